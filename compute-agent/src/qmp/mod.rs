//! QEMU's machine protocol: [`wire`] splits and reads messages, [`client`] is one connection, [`commands`] the commands
//! we use with their types.
//!
//! The client is our own and small, because a client that models the whole schema fails at the first event that it doesn't know, and QEMU
//! adds events with every release. Here an unknown event is an event, an unknown field is ignored, an unknown state is
//! [`commands::RunState::Other`].

pub mod client;
pub mod commands;
pub mod wire;

pub use client::{QmpClient, QmpError};
pub use commands::RunState;
pub use wire::Event;
