//! What opening a store needs, and how lists are cut.

use std::time::Duration;

/// A service manager starts the next process when the last one has ended.
const ROLE_WAIT: Duration = Duration::from_secs(15);
/// A leader that is killed is succeeded after a little more than this; one that the database leaves alone for so long gives up by itself.
const LEASE_TTL: Duration = Duration::from_secs(3);

/// Where the database is and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `sqlite:///absolute/path.db` or `postgres://user:password@host:port/database`.
    pub url: String,
    /// Connections for reads. Writes have one of their own.
    pub readers: u32,
    /// The most units in one transaction.
    pub batch_max: usize,
    /// SQLite: how long a manager waits for another process of its role to end, before it refuses to serve.
    pub role_wait: Duration,
    /// PostgreSQL: how long a manager leads without having renewed its lease.
    pub lease_ttl: Duration,
    /// SQLite: what is kept free on its disk for deletions and logins when the disk is full. 0: nothing.
    pub reserve_bytes: u64,
}

impl StoreConfig {
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            readers: 8,
            batch_max: 256,
            role_wait: ROLE_WAIT,
            lease_ttl: LEASE_TTL,
            reserve_bytes: 0,
        }
    }
}

/// One page of a list that is ordered by id: what comes after `after`, at most `limit` rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The last id of the page before; `None` for the first page.
    pub after: Option<String>,
    pub limit: u32,
}

impl Page {
    #[must_use]
    pub fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }

    /// The SQL value that every id of the page is greater than: the empty text sorts before all ids.
    pub(crate) fn after_text(&self) -> String {
        self.after.clone().unwrap_or_default()
    }
}
