//! What opening a store needs, and how lists are cut.

/// Where the database is and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `sqlite:///absolute/path.db` or `postgres://user:password@host:port/database`.
    pub url: String,
    /// Connections for reads. Writes have one of their own.
    pub readers: u32,
    /// The most units in one transaction.
    pub batch_max: usize,
}

impl StoreConfig {
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), readers: 8, batch_max: 256 }
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
