//! What callers are told of a store that failed. What has a meaning for a call (a guard, a name taken) is matched by that call before;
//! the rest comes here and is logged once.

use domain::Problem;
use std::error::Error;
use store::{CommitError, ReadError};

/// Changes that are decided again because somebody was faster: so often, then the caller may try.
pub(crate) const TRIES: usize = 16;

fn database_away() -> Problem {
    Problem::unavailable("the database is not available")
}

pub(crate) fn of_read(error: ReadError) -> Problem {
    match error {
        ReadError::Unavailable(_) => {
            tracing::warn!(error = &error as &dyn Error, "a read waits for the database");
            database_away()
        }
        ReadError::Internal(_) => {
            tracing::error!(error = &error as &dyn Error, "a read failed");
            Problem::internal()
        }
    }
}

pub(crate) fn of_commit(error: CommitError) -> Problem {
    match error {
        CommitError::Unavailable(_) => {
            tracing::warn!(error = &error as &dyn Error, "a change waits for the database");
            database_away()
        }
        CommitError::Guard(_) | CommitError::Constraint(_) | CommitError::Internal(_) => {
            tracing::error!(error = &error as &dyn Error, "a change was refused by the database");
            Problem::internal()
        }
    }
}

/// Others changed the same thing each time.
pub(crate) fn contended(what: &str) -> Problem {
    Problem::unavailable(format!("{what} is being changed by others all the time")).with_hint("try again")
}
