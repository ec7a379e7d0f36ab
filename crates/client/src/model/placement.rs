//! Groups that keep together or apart, and goals of moves.

use domain::placement::{GroupPolicy, GroupScope, GroupStrength};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementGroupCreate {
    pub name: String,
    pub policy: GroupPolicy,
    pub scope: GroupScope,
    pub strength: GroupStrength,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceGoal {
    /// At most so many moves for a host.
    FreeHosts { moves_per_host: u32 },
    /// Hosts are even that differ by no more percent.
    EvenLoad { tolerance: u32 },
}
