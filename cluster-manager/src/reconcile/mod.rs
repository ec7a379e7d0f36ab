//! Brings instances to what their owners want: [`plan`] decides what an instance needs next, [`instance`] has it done, [`report`] decides what
//! a host's report makes of it, [`deadline`] how long each state is plausible, and [`signal`] wakes the reconciler.

mod claims;
pub mod deadline;
pub mod instance;
#[cfg(test)]
mod nic_tests;
pub mod plan;
pub mod report;
pub mod signal;
mod step;
mod target;
#[cfg(test)]
mod tests;
