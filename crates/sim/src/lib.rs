//! Simulated hosts: agents that speak the real protocol over real gRPC, and keep what they "run" in memory.
//!
//! A simulated host has what a real one has: a ledger that survives a crash of its agent, instances that go on when the agent is gone,
//! a start number, a fence on every report, an outbox that repeats what wasn't acknowledged. What it doesn't have is QEMU. So a manager
//! can be driven through thousands of lifecycles in seconds, and through faults that a real host shows once a year.
//!
//! Faults are data ([`Fault`]), drawn from a seeded plan ([`FaultPlan`]); the seed is in every failure message. What must never happen is
//! watched from outside ([`World`], [`invariants`]), not by the code under test.

mod console;
pub mod fault;
mod fleet;
mod host;
pub mod invariants;
mod ledger;
mod process;
mod world;

pub use fault::{CrashPoint, Fault, FaultPlan};
pub use fleet::SimFleet;
pub use host::{Directory, SimConfig, SimHost};
pub use ledger::{Machine, Power};
pub use world::World;
