//! What both agents of a host need to follow their manager: a host must become what its manager says, and the manager must learn what
//! the host is, over streams that break, with processes that are killed, on disks that lose power.
//!
//! The compute-agent and the network-agent hold different objects on different media (a file per instance, a journal for thousands of
//! ports), but they keep the same promises, and the promises are kept here once:
//!
//! - **Absence never deletes.** A snapshot says what a host must be; what it doesn't name stays. Only a tombstone removes, and the
//!   ledger keeps it, so that a late command can't bring the object back.
//! - **A lower version never replaces a higher one** ([`mod@accept`]). Messages are repeated and overtaken, and a database may have been
//!   restored from a backup, so the order of (epoch, generation) alone decides, never the order of arrival.
//! - **A gap means a new snapshot** ([`session`]). A delta is taken only on top of the revision before it.
//! - **Durable first.** A command is on disk before anything is done about it ([`durable`], [`writer`]), and the revision is never ahead
//!   of the objects that it stands for.
//! - **A full disk stops no deletion** ([`reserve`]). The session goes on, and the manager hears that there is no room.
//! - **Reports are fenced** by (epoch, generation, start, counter): the start number rises durably with each start of the agent
//!   ([`ledger`]), the counter with each observation ([`outbox`]), and a report keeps its counter when it is sent again, so a manager
//!   tells what is newer from what is a repeat. The last observation of each object reaches the manager, whatever is lost on the way.
//!
//! What stays with each agent: the objects and their parsing, the medium of its ledger, and what is done about a change.
//!
//! A generic ledger was rejected. The two media differ for good reasons that each ledger states, and a trait that hides the difference
//! between a file per object and a journal would be larger than what the two have in common, which is here.

pub mod accept;
pub mod durable;
pub mod ledger;
pub mod liveness;
pub mod outbox;
pub mod reserve;
pub mod session;
pub mod term;
pub mod writer;

pub use accept::{Current, Decision, Incoming, Revival, Version, accept};
pub use ledger::{HostRecord, LedgerDir, LedgerError};
pub use liveness::send_beats;
pub use outbox::{Numbered, Observation, Outbox};
pub use session::{Agent, HelloError, follow_manager};
