//! The virtual resource manager: networks, subnets, ports, routers, floating IPs, security groups, and what each host must know of them.

pub mod link;
pub mod manager;
pub mod topology;

pub use manager::Manager;
