//! The API under `/v1`: what it does per route (`routes`), and what its JSON looks like (`view`). Another API dialect is a folder beside
//! this one.

pub mod answer;
pub mod check;
pub mod describe;
pub mod routes;
pub mod scope;
pub mod view;
