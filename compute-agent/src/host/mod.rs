//! The host itself: its hardware and kernel ([`facts`]), how its processes are limited ([`cgroup`]), and on which threads they run ([`cpuset`]).

pub mod cgroup;
pub mod cpuset;
pub mod facts;
