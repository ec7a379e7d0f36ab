//! The nouns of the cloud and the rules that need no I/O: ids, names, states and their transitions, specs, quotas, the
//! authorization policy and the error table. Everything else in the workspace may depend on this crate; it depends on none of them.

#[macro_use]
mod string_enum;

pub mod capacity;
pub mod cpu;
pub mod event;
pub mod explain;
pub mod flavor;
pub mod host;
pub mod id;
pub mod identity;
pub mod image;
pub mod instance;
pub mod join;
pub mod lease;
pub mod limits;
pub mod metadata;
pub mod name;
pub mod network;
pub mod placement;
pub mod policy;
pub mod problem;
pub mod quota;
pub mod recovery;
pub mod ssh_key;
pub mod testing;
pub mod time;
pub mod validate;

pub use id::*;
pub use name::Name;
pub use problem::{ErrorKind, FieldError, Problem};
pub use time::Timestamp;
pub use validate::Violations;
