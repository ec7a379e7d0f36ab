//! This host, as both of its agents know it.

mod identity;

pub use identity::Identity;
