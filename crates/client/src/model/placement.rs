//! Goals of moves.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebalanceGoal {
    /// At most so many moves for a host.
    FreeHosts { moves_per_host: u32 },
    /// Hosts are even that differ by no more percent.
    EvenLoad { tolerance: u32 },
}
