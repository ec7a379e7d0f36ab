//! A host is lost: the verdict, the recovery of its instances on other hosts, and what happens when the host comes back.
//!
//! **The problem.** The instances of a host that died shall run elsewhere, on the same addresses, and none may ever run twice. A silent host isn't a
//! dead one: its guests go on while its agent, its network or its manager is away. And it may come back at any moment, with a ledger that says that
//! all of it is still its own.
//!
//! **Rejected.** To take silence for death after a time that is long enough: no time is. To let each host ask before every start: then a manager's outage
//! stops what it has nothing to do with. To move instances by a script per host ("for each: place, start, announce"): it breaks when the manager dies in
//! the middle, and two of them race.
//!
//! **How it is.**
//! - A *verdict* ([`verdict`]) needs proof ([`Proof`]): an operator's word, or a lease that lapsed, so that the host's guard has ended what may run elsewhere. It
//!   is one unit: the row and the host's state `lost`, in which no claim is made on it and nothing but the verdict's end changes it.
//! - Each instance of it that may go elsewhere ([`plan::fate`]) gets a *recovery*, a row ([`list`]). What is open is all the work there is; nothing in memory
//!   is more than a copy of it, so that another manager goes on wherever this one dies.
//! - One unit takes an instance to its new host ([`relocate`]): the next epoch, the claims of both hosts, the place in its groups, what the lost host no longer
//!   owns (`host_taken`), and the phase. From there the reconciler does what it does for any instance: it binds disks and ports under the new epoch, and delivers.
//! - A host that comes back ([`returning`]) is told the end of everything in `host_taken` and nothing else, starts nothing, and is admitted when there is no such row
//!   left: one is removed by the host's own proof alone.
//!
//! **Why none runs twice.** At the verdict the proof says that nothing of the host runs. What it may start later is what its ledger holds. Every instance that another
//! host was given is in `host_taken` by the same unit. While the verdict stands, the host starts nothing (its agent starts an instance that may run elsewhere only in a
//! session that a manager has opened, and no session says so before the verdict ends), and it ends only when the host has proved, for each row, that its ledger holds
//! that epoch no more. A unit that takes an instance is guarded by the verdict, and the verdict's end by there being no row: whichever commits first, the other one
//! is refused. An instance is never taken from a lost host whose agent is connected: it is about to have it again.
//!
//! A disk on a pool that outlives its host changes one decision alone: [`plan::fate`].

pub mod list;
pub mod plan;
pub mod relocate;
pub mod returning;
pub mod signal;
pub mod verdict;

pub use verdict::Proof;

use crate::manager::Manager;
use domain::{HostId, Problem};
use service_kit::context::CallContext;
use verdict::DeclaredLost;

impl Manager {
    /// Declares a host lost; its instances are recovered from then on. Repeating it is harmless.
    pub async fn declare_lost(&self, host_id: HostId, proof: Proof) -> Result<DeclaredLost, Problem> {
        verdict::declare(self, &CallContext::system("host-loss"), host_id, proof).await
    }
}
