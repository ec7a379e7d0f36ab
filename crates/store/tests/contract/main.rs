//! The contract of the store, run on SQLite and on a real PostgreSQL: every op, every read, every constraint, batches with a failing unit,
//! concurrent writers, migrations, and a database that goes away and comes back.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is its assertion")]

mod backup;
mod batch;
mod coverage;
mod durability;
mod event;
mod fixture;
mod kinds;
mod migration;
mod outage;
mod plan;
mod reference;
mod role;
mod schema;
mod server;
