//! All of the state, and all of the SQL: the only crate that talks to the database.
//!
//! **The problem.** Thousands of small changes a second must each be durable before they are answered, on an embedded SQLite as well as
//! on PostgreSQL. A transaction per change costs an fsync each (a few hundred a second on a common disk), and on PostgreSQL the hot
//! rows (a host's usage, a project's quota, the head of the events) make them queue up one behind the other.
//!
//! **Rejected.** A transaction handed to the caller (`store.transaction(|tx| async …)`): a connection and its locks are then held across
//! the caller's awaits, and nothing can be grouped. An ORM, or one text per database: two texts drift apart.
//!
//! **What is here.** A change is a [`Unit`]: plain data, a list of [`Op`]s, no closures and no awaits. [`Store::commit`] queues it for the
//! one writer, which takes whatever is queued when it is free, merges the ops of all those units per kind into one statement per kind
//! (fed by one JSON array), and commits once: one fsync for the batch. Callers are answered after that commit. A batch in which some
//! unit breaks a constraint or a guard is rolled back and halved until only the failing units fail. Reads go to a pool of their own.
//!
//! **Invariants**
//! 1. A unit is applied whole or not at all, and `Ok` means durable.
//! 2. Every guard and constraint holds for the unit alone, whatever else was in its batch: two units that change the same row never share
//!    a batch, and ops that add (claims, usage) are summed before they are checked.
//! 3. Within a unit, ops run in the order of kinds in `engine/unit.rs`, not in the order they were pushed. Operation ids come first, so that a
//!    repeat is told from a conflict; event ids are given last, under the lock of `event_head`, so that their order is that of the commits.
//! 4. A commit whose answer was lost is resolved, never blindly repeated: additive ops would count twice.
//! 5. Both databases get one SQL text; only the row source differs.
//!
//! One file per aggregate holds its ops (struct, SQL, guard) and its reads. How to add one: `docs/how-to/add-a-table.md`.

#[macro_use]
mod engine;

mod address;
mod api_key;
mod audit;
mod backup;
mod config;
mod cpu_baseline;
mod disk;
mod event;
mod external_network;
mod flavor;
mod floating_ip;
mod host;
mod host_token;
mod idempotency;
mod image;
mod instance;
mod instance_todo;
mod leadership;
mod leak;
mod manager_lease;
mod named;
mod network;
mod network_host;
mod open;
mod orphan;
mod peering;
mod placement_group;
mod placement_record;
mod port;
mod project;
mod quota;
mod recovery;
mod retention;
mod role;
mod router;
mod security_group;
mod ssh_key;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod user;

pub use address::*;
pub use api_key::*;
pub use audit::*;
pub use backup::*;
pub use config::{Page, StoreConfig};
pub use cpu_baseline::{CpuBaselinePut, CpuBaselineRow};
pub use disk::*;
pub use engine::{
    Cause, CommitError, Constraint, DatabaseError, Guard, ReadError, Store, StoreCounters,
    constraint::{ConstraintName, ForeignKey, NAMED_CONSTRAINTS, Table},
    term::RoleState,
    unit::{Op, Unit},
};
pub use event::*;
pub use external_network::*;
pub use flavor::*;
pub use floating_ip::*;
pub use host::*;
pub use host_token::*;
pub use idempotency::*;
pub use image::*;
pub use instance::*;
pub use instance_todo::*;
pub use leadership::*;
pub use leak::*;
pub use manager_lease::*;
pub use named::*;
pub use network::*;
pub use network_host::*;
pub use open::{OpenError, SCHEMA_VERSION};
pub use orphan::*;
pub use peering::*;
pub use placement_group::*;
pub use placement_record::*;
pub use port::*;
pub use project::*;
pub use quota::*;
pub use recovery::*;
pub use retention::*;
pub use role::*;
pub use router::*;
pub use security_group::*;
pub use ssh_key::*;
pub use token::*;
pub use user::*;
