//! Instances: what a request makes of them, in domain types, up to the commit.
//!
//! [`transition`] and [`validate`] are pure. `create` and `change` load, decide and commit; the other modules are their parts: what is
//! reserved at other services (`reserve`, `nic`), what is claimed of hosts (`claim`, `place`, `resize`), and what a dry run answers
//! (`dry_run`).

pub(crate) mod change;
pub(crate) mod claim;
pub(crate) mod create;
pub(crate) mod dry_run;
pub mod nic;
pub(crate) mod place;
pub mod request;
pub(crate) mod reserve;
pub(crate) mod resize;
#[cfg(test)]
mod tests;
pub mod transition;
pub mod validate;
