//! Shapes of the REST API that the api-gateway writes and the client reads: one struct each, described for OpenAPI, made from the domain's
//! types here.
//!
//! The description is always compiled: behind a feature, the command line and the server would each build this crate and its dependents.

mod audit;
mod capacity;
mod catalog;
mod host;
mod instance;
pub mod names;
mod nic;
mod placement;

pub use audit::*;
pub use capacity::*;
pub use catalog::*;
pub use host::*;
pub use instance::*;
pub use nic::*;
pub use placement::*;
