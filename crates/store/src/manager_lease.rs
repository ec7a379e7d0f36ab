//! Who leads each manager's role, and who waits to. The row of the lease is the judge of every unit that a manager commits (`engine/batch.rs`);
//! how a process comes to lead is in `leadership.rs`.

use crate::{ManagerRole, ReadError, Store};
use domain::Timestamp;
use std::fmt;

op! {
    /// Begins a term: the first of its role, or the one after a lease that nobody renewed or took since it was read (`renewals` is one more than
    /// was read).
    ManagerLeaseTake {
        role: ManagerRole, term: i64, holder: String, host: String, pid: u32, address: String, renewals: i64, ttl_ms: u64,
        led_since: Timestamp, renewed_at: Timestamp, resigned: bool,
    }
    on manager_lease, Insert by (role), guard ManagerLease: insert
    "WHERE TRUE ON CONFLICT (role) DO UPDATE SET term = excluded.term, holder = excluded.holder, host = excluded.host, pid = excluded.pid,
        address = excluded.address, renewals = excluded.renewals, ttl_ms = excluded.ttl_ms, led_since = excluded.led_since,
        renewed_at = excluded.renewed_at, resigned = excluded.resigned
     WHERE manager_lease.renewals = excluded.renewals - 1 AND manager_lease.term < excluded.term"
}

row! {
    /// The process that leads a role, or led it last.
    #[derive(Eq)]
    pub struct ManagerLease of manager_lease {
        pub role: ManagerRole,
        pub term: i64,
        pub holder: String,
        pub host: String,
        pub pid: u32,
        pub address: String,
        pub renewals: i64,
        /// 0: a lock decides, not this row.
        pub ttl_ms: u64,
        pub led_since: Timestamp,
        pub renewed_at: Timestamp,
        pub resigned: bool,
    }
}

impl fmt::Display for ManagerLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}, since {}", self.pid, self.host, self.led_since)
    }
}

impl ManagerLease {
    /// Whether nobody leads, as far as a reader can say whose clock is about right: it resigned, or missed several renewals.
    #[must_use]
    pub fn vacant(&self, now: Timestamp) -> bool {
        let unrenewed_ms = u64::try_from(now.0.saturating_sub(self.renewed_at.0)).unwrap_or(0);
        self.resigned || (self.ttl_ms > 0 && unrenewed_ms > 3 * self.ttl_ms)
    }
}

op! {
    /// A process waits to lead.
    ManagerStandbyPut { id: String, role: ManagerRole, host: String, pid: u32, address: String, since: Timestamp, renewed_at: Timestamp }
    on manager_standby, Insert by (id): insert "WHERE TRUE ON CONFLICT (id) DO UPDATE SET renewed_at = excluded.renewed_at"
}

op! {
    ManagerStandbyDelete { id: String }
    on manager_standby, Change by (id): "DELETE FROM manager_standby WHERE id IN (SELECT r.id FROM {rows})"
}

op! {
    /// Forgets processes that ended without a word.
    ManagerStandbyExpire { before: Timestamp }
    on manager_standby, Change by (before): expire id by renewed_at
}

row! {
    #[derive(Eq)]
    pub struct ManagerStandby of manager_standby {
        pub id: String,
        pub role: ManagerRole,
        pub host: String,
        pub pid: u32,
        pub address: String,
        pub since: Timestamp,
        pub renewed_at: Timestamp,
    }
}

impl Store {
    pub async fn manager_lease_find(&self, role: ManagerRole) -> Result<Option<ManagerLease>, ReadError> {
        self.pool().find("WHERE role = $1", [role.as_str().into()]).await
    }

    /// Of all roles that were ever led.
    pub async fn manager_lease_list(&self) -> Result<Vec<ManagerLease>, ReadError> {
        self.pool().list("WHERE role >= $1 ORDER BY role", ["".into()]).await
    }

    /// The processes that wait to lead and have said so since then.
    pub async fn manager_standby_list(&self, renewed_since: Timestamp) -> Result<Vec<ManagerStandby>, ReadError> {
        self.pool().list("WHERE renewed_at >= $1 ORDER BY renewed_at", [renewed_since.into()]).await
    }
}
