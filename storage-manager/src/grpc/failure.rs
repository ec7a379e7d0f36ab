//! What callers are told of a store that failed. What has a meaning for a call (a guard, a name taken) is matched by that call before;
//! the rest comes here and is logged once.

use domain::Problem;
use std::error::Error;
use store::{CommitError, ReadError};

/// Changes that are decided again because somebody was faster: so often, then the caller may try.
pub(super) const TRIES: usize = 16;

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(super) fn database_away() -> Problem {
    Problem::unavailable("the database is not available")
}

pub(super) fn of_read(error: ReadError) -> Problem {
    match error {
        ReadError::Unavailable(_) => {
            tracing::warn!(error = chain(&error), "a read waits for the database");
            database_away()
        }
        ReadError::Internal(_) => {
            tracing::error!(error = chain(&error), "a read failed");
            Problem::internal()
        }
    }
}

pub(super) fn of_commit(error: CommitError) -> Problem {
    match error {
        CommitError::Unavailable(_) => {
            tracing::warn!(error = chain(&error), "a change waits for the database");
            database_away()
        }
        CommitError::Guard(_) | CommitError::Constraint(_) | CommitError::Internal(_) => {
            tracing::error!(error = chain(&error), "a change was refused by the database");
            Problem::internal()
        }
    }
}

/// Logs what only we should know of an error, and gives what the caller is told.
pub(super) fn of_object(error: &crate::object::ObjectError) -> Problem {
    use crate::object::ObjectError;
    match error {
        ObjectError::StorageFull { .. } => tracing::warn!(error = chain(error), "the object store is full"),
        ObjectError::Io { .. } | ObjectError::WriterLost => {
            tracing::error!(error = chain(error), "the object store failed");
        }
        ObjectError::Absent { .. } | ObjectError::InvalidHash { .. } => {}
    }
    error.problem()
}

/// Others changed the same thing each time.
pub(super) fn contended(what: &str) -> Problem {
    Problem::unavailable(format!("{what} is being changed by others all the time"))
}
