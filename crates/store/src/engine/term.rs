//! A term of a manager's role, as the process that leads knows it.
//!
//! Two things end it, whichever comes first: the process's own clock, when the lease couldn't be renewed in time; and the database, when a
//! unit finds that another term stands. The first keeps a leader from answering and deciding on what is old, the second keeps whatever it
//! had under way from being written.

use super::error::{CommitError, DatabaseError};
use crate::ManagerRole;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Time since this machine started, also while it was suspended.
pub(crate) fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    Duration::new(secs, nanos)
}

#[derive(Debug)]
pub(crate) struct Term {
    pub role: ManagerRole,
    pub number: i64,
    /// By [`boot_time`]. `None`: it lasts as long as its holder's lock.
    until: Mutex<Option<Duration>>,
    ended: watch::Sender<bool>,
}

impl Term {
    pub(crate) fn new(role: ManagerRole, number: i64, until: Option<Duration>) -> Self {
        Self { role, number, until: Mutex::new(until), ended: watch::Sender::new(false) }
    }

    pub(crate) fn holds(&self) -> bool {
        !*self.ended.borrow() && self.until.lock().is_none_or(|until| boot_time() < until)
    }

    /// The lease was renewed. False: too late, it had lapsed.
    pub(crate) fn extend(&self, until: Duration) -> bool {
        let holds = self.holds();
        if holds {
            *self.until.lock() = Some(until);
        }
        holds
    }

    /// How long it holds if it isn't renewed.
    pub(crate) fn left(&self) -> Duration {
        self.until.lock().map_or(Duration::MAX, |until| until.saturating_sub(boot_time()))
    }

    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub(crate) fn not_leader(&self) -> CommitError {
        CommitError::Unavailable(Arc::new(DatabaseError::NotLeader(self.role)))
    }
}

/// What this process is in a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleState {
    /// It waits to lead, and this is who leads: its address, as far as it is known.
    Standby {
        leader: Option<String>,
    },
    Leads {
        term: i64,
    },
}

/// The roles that this process has or wants.
#[derive(Debug, Default)]
pub(crate) struct RoleStates(Mutex<BTreeMap<ManagerRole, RoleState>>);

impl RoleStates {
    pub(crate) fn set(&self, role: ManagerRole, state: RoleState) {
        let term = if let RoleState::Leads { term } = state { term } else { 0 };
        metrics::gauge!("iaas_leader", "role" => role.as_str()).set(if term > 0 { 1.0 } else { 0.0 });
        if term > 0 {
            metrics::gauge!("iaas_leader_term", "role" => role.as_str()).set(term as f64);
        }
        self.0.lock().insert(role, state);
    }

    pub(crate) fn all(&self) -> Vec<(ManagerRole, RoleState)> {
        self.0.lock().iter().map(|(role, state)| (*role, state.clone())).collect()
    }
}
