//! What JSON looks like, one file per noun. Views are made from domain types; the domain knows nothing of them.

pub mod api_key;
pub mod audit;
pub mod flavor;
pub mod health;
pub mod plan;
pub mod project;
pub mod quota;
pub mod session;
pub mod ssh_key;
pub mod user;
