//! The gateway as its clients meet it: a real listener on loopback, a real SQLite store, the real managers behind it in process.
//! Hosts are simulated (`crates/sim`); what needs a real guest is tested end to end.

mod backup;
mod bad_input;
mod compute;
mod console;
mod drain;
mod edge;
mod events;
mod every_route;
mod flood;
mod full_disk;
mod golden;
mod harness;
mod host;
mod host_token;
mod idempotency;
mod identity;
mod image;
mod instance;
mod instance_bad;
mod limits;
mod listing;
mod manager;
mod network;
mod network_bad;
mod network_nic;
mod network_repeat;
mod placement;
mod pools;
mod session;
mod strangers;
mod tls;
mod tokens;
mod view;
mod wait;
