//! Instances: what a request makes of them, from the request in domain types to the commit.
//!
//! [`transition`] and [`validate`] are pure; [`create`] and [`change`] load, decide and commit; the others are their parts.

pub(crate) mod attach;
pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod dry_run;
pub(crate) mod nic;
pub(crate) mod place;
pub(crate) mod reserve;
pub(crate) mod resize;
#[cfg(test)]
mod tests;
pub mod transition;
pub mod validate;
