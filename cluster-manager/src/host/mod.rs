//! Hosts: what an operator decides about them, how they join and leave the fleet, and what they still have capacity for.

pub mod admission;
pub(crate) mod capacity;
pub(crate) mod change;
pub(crate) mod rebalance;
