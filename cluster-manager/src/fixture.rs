//! Rows for the unit tests of pure modules.

pub use domain::testing::{NOW, host, instance};
