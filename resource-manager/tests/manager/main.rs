//! The service over the real gRPC, on a real database.

mod ports;
mod world;
