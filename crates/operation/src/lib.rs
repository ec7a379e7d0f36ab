//! What every owner of objects does around an accepted change, written once.
//!
//! **The problem.** A client that lost the answer repeats its request: perhaps while the first one still runs, perhaps at another process,
//! perhaps after a crash. The change must happen once, and each repeat must get the first answer. Beside the change itself stand its
//! stored answer, its event and its line in the audit log; and what the store refuses has to become words for a person. Each owner
//! (api-gateway, cluster-manager, resource-manager, storage-manager) needs exactly this.
//!
//! **What holds.**
//! 1. The answer of an accepted change is stored under the operation's id in the change's own transaction ([`store_outcome`]). So after any
//!    crash a repeat finds either the answer or nothing done.
//! 2. A repeat tries the change as the first attempt did, and looks for the stored answer when something stops it: its id is taken, its name is
//!    taken by itself, or no capacity is left because it took that ([`Operations::execute_once`]). A first attempt pays no read for this.
//! 3. Two attempts at once would both find nothing and race: in one process the second waits for the first ([`InFlight`]); in two
//!    processes the unique operation id decides.
//! 4. A dry run changes nothing and stores nothing: it passes by.
//! 5. There is one encoding of stored answers ([`encode`], [`decode`]): the message with which the call is answered, whoever owns the object.
//!
//! Beside it stands how each of the three managers comes to serve ([`serve_in_turns`]).
//!
//! **For the gateway.** A repeat may name objects that are gone by now (the image was deleted since), so its names can't be resolved
//! again, and its request can't always be sent to the owner again. The gateway therefore asks [`find_outcome`] first, with the owner's
//! table and the answer's own type. It needs no knowledge of how an owner stores its answers: what it gets is what the call would have
//! answered, and it goes the same way from there. Its own answers, which may hold secrets, are a message as well
//! (`#[derive(prost::Message)]` with the sealed bytes), stored with [`store_outcome`] in [`store::OperationTable::Identity`].
//!
//! **Rejected.** Storing the answer after the change: a crash between the two makes a repeat do the work twice. A part of service-kit:
//! agents depend on that and must never depend on the store (docs/adr/2026-11-30-operation-is-a-crate.md).

mod activity;
mod failure;
mod in_flight;
mod leadership;
mod once;
mod outcome;
mod quota;

pub use activity::{Activity, AuditOutcome};
pub use failure::{
    COMMIT_ATTEMPTS, commit_problem, contended, database_full, database_unavailable, key_reused, read_problem,
};
pub use in_flight::{InFlight, Turn};
pub use leadership::{Turn as LeaderTurn, serve_in_turns};
pub use once::Operations;
pub use outcome::{decode, encode, find_outcome, store_outcome};
pub use quota::{ProjectQuota, check_quota, quota_refusal};
