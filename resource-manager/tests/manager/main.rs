//! The service over the real gRPC, on a real database.

mod apply;
mod bounds;
mod ports;
mod support;
mod world;
