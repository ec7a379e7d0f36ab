//! What runs by itself, beside the calls that are answered.

pub mod placement;
pub mod preemption;
