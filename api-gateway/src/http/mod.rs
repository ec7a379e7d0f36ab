//! Everything between the socket and a route's function: connections, request ids, limits, the strict extractors, and the one
//! place where a refusal becomes an answer.

pub mod activity;
pub mod body;
pub mod codes;
pub mod console_socket;
pub mod dialect;
pub mod edge;
pub mod etag;
pub mod intent;
mod log_budget;
pub mod page;
pub mod path;
pub mod problem;
pub mod query;
pub mod reply;
pub mod scope;
pub mod server;
mod stall;
mod stream_stall;
