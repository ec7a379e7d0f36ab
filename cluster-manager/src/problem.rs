//! How a failed read is told to callers.

use domain::Problem;
use store::ReadError;

/// What a caller is told when a read fails. It is logged here, once.
#[must_use]
pub fn read_problem(error: &ReadError) -> Problem {
    match error {
        ReadError::Unavailable(_) => {
            tracing::warn!(error = error as &dyn std::error::Error, "the database can't be read");
            Problem::unavailable("the database doesn't answer now")
        }
        ReadError::Internal(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "a read failed");
            Problem::internal()
        }
    }
}
