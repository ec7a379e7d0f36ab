//! Brings instances to what their owners want: [`plan`] says what an instance needs next, [`instance`] does it, [`report`] says what a
//! host's word makes of it, [`deadline`] how long each state is plausible, and [`signal`] wakes it all up.

pub mod deadline;
pub mod instance;
pub mod plan;
pub mod report;
pub mod signal;
#[cfg(test)]
mod tests;
