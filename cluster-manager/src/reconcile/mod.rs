//! Brings instances to what their owners want: [`plan`] says what an instance needs next, [`instance`] has it done, [`report`] says what a
//! host's word makes of it, [`deadline`] how long each state is plausible, and [`signal`] wakes it all up.

#[cfg(test)]
mod card_tests;
mod claims;
pub mod deadline;
pub mod instance;
pub mod plan;
pub mod report;
pub mod signal;
mod step;
#[cfg(test)]
mod tests;
