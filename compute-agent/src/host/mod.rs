//! The host itself: what it is ([`facts`]) and how its processes are limited ([`cgroup`]).

pub mod cgroup;
pub mod facts;
