//! Shapes of the REST API that the api-gateway writes and the client reads: one struct each, described for OpenAPI, made from the domain's
//! types here.
//!
//! The description is always compiled: behind a feature, the command line and the server would each build this crate and its dependents.

mod audit;
mod backup;
mod capacity;
mod catalog;
mod floating_ip;
mod host;
mod instance;
mod manager;
pub mod names;
mod network;
mod nic;
mod placement;
mod plan;
mod port;
mod project;
mod recovery;
mod security_group;

pub use audit::*;
pub use backup::*;
pub use capacity::*;
pub use catalog::*;
pub use floating_ip::*;
pub use host::*;
pub use instance::*;
pub use manager::*;
pub use network::*;
pub use nic::*;
pub use placement::*;
pub use plan::*;
pub use port::*;
pub use project::*;
pub use recovery::*;
pub use security_group::*;

/// An event is sent as it is stored.
pub use domain::event::Event;
