//! What bodies may say at all, before anything is looked up, and what they mean to `app`. Pure. The bounds are `domain::validate`'s; here are the
//! names of the fields (JSON pointers), and what only this API knows. Every violation is named at once.

pub mod flavor;
pub mod host;
pub mod image;
pub mod instance;
pub mod network;
pub mod nic;
pub mod rule;

use crate::app::catalog::KEY_BYTES_MAX;
use domain::{Name, Problem, Violations};

/// A new object's name, alone in its check.
pub fn name(field: &str, text: &str) -> Result<Name, Problem> {
    text.parse::<Name>().map_err(|error| Problem::invalid(field, error.to_string()))
}

/// An id or a name of something that is looked up later.
pub fn check_key(violations: &mut Violations, field: &str, text: &str) {
    violations.unless((1..=KEY_BYTES_MAX).contains(&text.len()), field, || "an id or a name is expected".to_owned());
}
