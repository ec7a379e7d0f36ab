//! What this service does by itself, beside the calls that are answered.

pub mod invariants;
pub mod placement;
pub mod preemption;
pub mod retention;
