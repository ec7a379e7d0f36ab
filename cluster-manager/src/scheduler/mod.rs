//! Where an instance goes: a pure decision over an inventory in memory.
//!
//! **The problem.** Thousands of creates a second must each find the best of a hundred thousand hosts, two at once must not take the
//! same capacity, a cloud must not fill up with holes that fit nothing, and a refusal must say what would have fitted.
//!
//! **What was rejected.** Asking the database for candidates per request puts its latency and its lock on every create (OpenStack
//! Placement: 1.2 decisions a second at 10,000 hosts). Locking a host while its create commits makes creates on one host wait for
//! each other's fsync. A scan of all hosts takes longer the larger the cloud is; sampling a few (Kubernetes, Sparrow) packs badly when
//! it is full, which is when it matters. A sorted list per resource finds tight fits in one resource and walks past thousands of
//! hosts that lack another.
//!
//! **How it is.** The inventory ([`inventory`]) lives in memory and is only ever *ahead* of the database: a decision takes a tentative
//! claim at once, the commit (guarded by `used + x <= capacity` in the database, which stays the truth) confirms it, a failure releases it.
//! Several schedulers may decide on snapshots of it: what they get wrong is a conflict, never an overcommit.
//! - Hosts are kept by what no request changes (a cell: zone, dedication, and the tags and features that requests name, their [`labels`])
//!   and by free capacity (a bucket of the cell's [`grid`]). For each shape of claim the cheapest occupied buckets are kept
//!   ([`bucket_cache`]), until prices change; a decision takes the first host of the first bucket that really has the capacity ([`index`],
//!   [`bucket_trees`]).
//! - The price ([`grid`]) is best fit, weighted by what the sizes requested lately ([`demand`]) find scarce, plus what a claim spoils for
//!   them. It knows no lifetimes and nothing of the future.
//! - Filters are a closed enum in a fixed order ([`domain::explain::Rejection`], [`filter`]); the score is a struct whose field order
//!   is the policy ([`score::Score`]); what a decision was based on is kept in a [`domain::explain::PlacementRecord`] ([`explain`]).
//! - Groups ([`groups`]), capacity reserved for the loss of a host ([`reserve`]), preemption ([`preempt`]) and batches ([`mod@decide`]) go the
//!   same path.
//!
//! The files build on each other: types ([`request`], [`decision`], [`host`]), then the index and the inventory, then choices ([`mod@choose`])
//! and what explains them, then decisions ([`mod@decide`]), and plans of moves ([`consolidate`], [`balance`]) beside those.
//!
//! **Invariants** (tests/): used + tentative + reserved <= capacity for whatever was decided here; the same inventory gives the
//! same decision, in whatever order it came to be; the index chooses what a naive scan with the same score chooses; a hard group constraint
//! holds after any interleaving; any one host can be lost and its protected instances fit on their backups; a removed host is never
//! chosen; a decision and its claim allocate nothing for shapes seen before (tests/placement_alloc.rs).
//!
//! Sources: Verma et al., "Large-scale cluster management at Google with Borg" (EuroSys 2015: equivalence classes, scored packing);
//! Hadary et al., "Protean" (OSDI 2020: cached candidate sets, ordered rules); Weng et al., "Beware of Fragmentation" (ATC 2023);
//! Bayer, McCreight, "Organization and maintenance of large ordered indices" (1972).

pub mod balance;
pub mod bucket_cache;
pub mod bucket_trees;
pub mod capacity;
pub mod choose;
pub mod consolidate;
pub mod decide;
pub mod decision;
pub mod demand;
pub mod explain;
pub mod filter;
pub mod grid;
pub mod groups;
pub mod host;
pub mod ids;
pub mod index;
pub mod inventory;
pub mod labels;
pub mod members;
mod nearest_fit;
pub mod preempt;
pub mod request;
pub mod reserve;
pub mod resident;
pub mod score;
#[cfg(test)]
pub(crate) mod tests;

pub use choose::choose;
pub use decide::{Batch, decide, decide_batch};
pub use decision::{Choice, Decision, Placed, Preemption};
pub use domain::placement::{Fill, GroupPolicy, GroupScope, GroupStrength};
pub use host::{HostEntry, Policies};
pub use inventory::Inventory;
pub use request::{GroupConstraint, Request};
