//! What JSON looks like, one file per noun. Views are made from domain types; the domain knows nothing of them.

pub mod api_key;
pub mod audit;
pub mod console;
pub mod explain;
pub mod flavor;
pub mod health;
pub mod host;
pub mod image;
pub mod instance;
pub mod instance_request;
pub mod names;
pub mod plan;
pub mod project;
pub mod quota;
pub mod session;
pub mod ssh_key;
pub mod timeline;
pub mod user;
