//! What callers are told when the object store fails.

use crate::object::ObjectError;
use domain::Problem;
use service_kit::error_chain;

/// Logs what only we should know of an error, and gives what the caller is told.
pub(super) fn object_problem(error: ObjectError) -> Problem {
    match error {
        ObjectError::StorageFull { .. } | ObjectError::LowSpace { .. } => {
            tracing::warn!(error = error_chain(&error), "the object store is full")
        }
        ObjectError::Io { .. } | ObjectError::WriterLost => {
            tracing::error!(error = error_chain(&error), "the object store failed");
        }
        ObjectError::Absent { .. } | ObjectError::InvalidHash { .. } => {}
    }
    error.problem()
}
