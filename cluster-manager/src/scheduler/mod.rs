//! Where an instance goes: a pure decision over an inventory in memory.
//!
//! The problem: thousands of creates a second must each find the best of thousands of hosts, two at once must not take the same room,
//! and a refusal must say what would have fitted. Asking the database for candidates per request puts its latency and its lock on
//! every create; locking a host while its create commits makes creates on one host wait for each other's fsync.
//!
//! So the inventory lives in memory and is only ever *ahead* of the database: a decision takes a tentative claim at once, the commit
//! (guarded by `used + x <= capacity` in the database, which stays the truth) makes it firm, a failure gives it back. Filters are a
//! closed enum in a fixed order ([`domain::explain::Rejection`]), the score is a struct whose field order is the policy
//! ([`score::Score`]), and what a decision saw is kept in a [`domain::explain::PlacementRecord`].
//!
//! Invariants (tests.rs checks them): used + tentative <= capacity for whatever was decided here; the same inventory gives the same
//! decision; a decision equals that of a naive reference.

pub mod decide;
pub mod filter;
pub mod inventory;
pub mod score;
#[cfg(test)]
mod tests;

pub use decide::{Decision, Placed, Request, decide};
pub use inventory::{HostEntry, Inventory};
