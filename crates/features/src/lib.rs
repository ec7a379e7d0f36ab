//! Nothing but the union of the features that members of this workspace ask of the crates they share.
//!
//! Cargo builds a dependency once for each set of features, and the set depends on which packages are built: without this crate,
//! `-p iaasd -p iaasctl` (`deploy/up`), `-p iaas-bench` and the whole workspace (`deploy/test`) each built tokio, and with it nearly everything, anew.
//! Each member depends on this crate, so that they all share. `.ci/features` fails when a set differs again.
