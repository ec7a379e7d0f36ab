//! What an operation came to: answered to its caller, and stored with the change for repeats. The inner modules know it in domain types;
//! how it reads on the wire is said in [`crate::grpc`] alone.

use domain::Timestamp;
use service_kit::context::CallContext;
use store::{OperationTable, Unit};

pub trait Outcome {
    type Answer: prost::Message + Default;

    /// The message that answers the call.
    fn answer(&self) -> Self::Answer;
}

/// Stores the outcome in the change's own unit.
pub fn store_outcome(unit: &mut Unit, context: &CallContext, outcome: &impl Outcome, now: Timestamp) {
    operation::store_outcome(unit, OperationTable::Compute, context, &outcome.answer(), now);
}
