//! A walk through each aggregate: its ops with their guards and constraints, and its reads.

pub mod catalog;
pub mod disk;
pub mod host;
pub mod host_token;
pub mod identity;
pub mod image;
pub mod instance;
pub mod leak;
pub mod log;
pub mod network;
pub mod network_view;
pub mod placement;
pub mod placement_record;
pub mod port;
pub mod quota;
pub mod recovery;
