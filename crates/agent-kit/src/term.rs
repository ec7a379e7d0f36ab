//! The highest term under which a manager led that this agent was told of. It outlives restarts: a manager that was succeeded while this host was
//! away, and doesn't know it yet, is refused.

use crate::durable;
use std::{
    io,
    path::{Path, PathBuf},
};

const FILE: &str = "manager-term";

/// A manager of this term was succeeded by one of the term `highest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it led under the term {term}, and was succeeded: the term is {highest}")]
pub struct FormerLeader {
    pub term: i64,
    pub highest: i64,
}

#[derive(Debug)]
pub struct HighestTerm {
    dir: PathBuf,
    highest: i64,
}

impl HighestTerm {
    /// As it was left in this directory. What can't be read counts as nothing, and is said: the managers' database refuses what a former
    /// leader writes in any case.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let highest = match std::fs::read_to_string(dir.join(FILE)) {
            Ok(text) => text.trim().parse().map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        };
        let highest = highest.unwrap_or_else(|error| {
            tracing::error!(%error, path = %dir.join(FILE).display(), "the managers' highest term can't be read; the next one counts");
            0
        });
        Self { dir: dir.to_path_buf(), highest }
    }

    /// Takes a term that isn't lower than the highest; a higher one is durable when this returns. 0 is of a manager that leads without a term.
    pub async fn take(&mut self, term: i64) -> Result<(), FormerLeader> {
        if term < self.highest {
            return Err(FormerLeader { term, highest: self.highest });
        }
        if term > self.highest {
            self.highest = term;
            let dir = self.dir.clone();
            let write = move || durable::replace(&dir, FILE, term.to_string().as_bytes()).map(drop);
            let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            if let Err(error) = written {
                tracing::warn!(%error, term, "the managers' term can't be kept; it counts until this agent ends");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lower_term_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut term = HighestTerm::open(dir.path());
        for taken in [0, 5, 5, 7] {
            term.take(taken).await.expect("not lower");
        }
        let mut again = HighestTerm::open(dir.path());
        for refused in [0, 5, 6] {
            assert_eq!(again.take(refused).await, Err(FormerLeader { term: refused, highest: 7 }));
        }
        again.take(8).await.expect("higher");
        std::fs::write(dir.path().join(FILE), "no number").expect("written");
        HighestTerm::open(dir.path()).take(1).await.expect("what can't be read counts as nothing");
    }
}
