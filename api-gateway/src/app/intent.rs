//! What a mutation is sent with beside its content: the idempotency key, the generation that it is based on, whether it is a dry run.

use domain::{ErrorKind, Problem};

/// A key that the caller chose, and what they used it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: String,
    /// A hash of all that the request means: the same key with another one is refused.
    pub request_hash: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    pub key: Option<IdempotencyKey>,
    /// The generation that the change is based on, if the caller says one.
    pub if_match: Option<i64>,
    pub dry_run: bool,
}

impl Intent {
    /// The generation as gRPC requests carry it: 0 is any.
    #[must_use]
    pub fn expected_generation(&self) -> i64 {
        self.if_match.unwrap_or(0)
    }

    /// Refuses a change that is based on another generation than the object has.
    pub fn check_generation(&self, current: i64) -> Result<(), Problem> {
        match self.if_match {
            Some(expected) if expected != current => Err(precondition_failed(expected, current)),
            Some(_) | None => Ok(()),
        }
    }
}

fn precondition_failed(expected: i64, current: i64) -> Problem {
    Problem::new(
        ErrorKind::PreconditionFailed,
        "precondition_failed",
        format!("If-Match names generation {expected}, but the object is at generation {current}"),
    )
    .with_hint("read the object again and decide whether the change is still wanted")
}
