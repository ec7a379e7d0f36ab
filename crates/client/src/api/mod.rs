//! One method per route, named noun_verb. Objects are given by name or id. Reads are plain async functions, lists are [`Listing`]s,
//! changes are [`Mutation`]s.
//!
//! [`Listing`]: crate::Listing
//! [`Mutation`]: crate::Mutation

mod identity;
mod instance;
mod network;
mod object;
mod placement_record;
mod recovery;
mod system;

pub use instance::{ConsoleLog, LogFrom};
pub use system::ServerLook;
