//! The gateway as its clients meet it: a real listener on loopback, a real SQLite store, the real managers behind it in process.
//! No instance runs here (no agent is connected); what needs one is tested end to end.

mod bad_input;
mod edge;
mod events;
mod every_route;
mod golden;
mod harness;
mod idempotency;
mod identity;
mod listing;
mod tls;
mod tokens;
