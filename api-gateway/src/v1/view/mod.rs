//! What JSON looks like, one file per kind of object. Views are made from domain types; the domain knows nothing of them.

pub mod api_key;
pub mod explain;
pub mod floating_ip;
pub mod health;
pub mod host_token;
pub mod image;
pub mod instance;
pub mod names;
pub mod network;
pub mod nic;
pub mod peering;
pub mod placement_record;
pub mod plan;
pub mod port;
pub mod project;
pub mod quota;
pub mod router;
pub mod security_group;
pub mod session;
pub mod subnet;
pub mod user;
