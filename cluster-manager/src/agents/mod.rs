//! The hosts' agents: their streams, what is sent to them and what they report.
//!
//! One stream per host. What goes to an agent is put into its link's queue and taken from there as fast as the agent reads: an
//! instance that changes twice before the agent looks is sent once, as it is last, and a queue that grows past its bound is replaced
//! by one wish, a snapshot. So a slow agent costs bounded memory and holds up nobody. What comes from an agent goes into one channel
//! for all hosts ([`ingest`]), where reports of many instances become one read and one commit.

pub mod desired;
pub mod incoming;
pub mod ingest;
pub mod link;
pub mod liveness;
pub mod registry;
pub mod service;
pub mod welcome;
