//! The resource-manager over its real gRPC, on a real database.

mod apply;
mod fault;
mod port;
mod reconcile;
mod support;
