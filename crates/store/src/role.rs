//! The managers' roles. One process at a time leads a role ([`crate::Leadership`]): what managers decide on is in their memory, and two of
//! a role would undo each other's work.

use crate::{ManagerLease, engine::Cause};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ManagerRole {
    #[serde(rename = "cluster-manager")]
    Cluster,
    #[serde(rename = "resource-manager")]
    Resource,
    #[serde(rename = "storage-manager")]
    Storage,
}

impl ManagerRole {
    pub const ALL: [Self; 3] = [Self::Cluster, Self::Resource, Self::Storage];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster-manager",
            Self::Resource => "resource-manager",
            Self::Storage => "storage-manager",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    #[error(
        "another {} serves this database: {}. With SQLite there may be one of each role: end that process first, or end this one",
        role.as_str(), holder.as_ref().map_or_else(|| "it didn't say who it is".to_owned(), ToString::to_string)
    )]
    Held { role: ManagerRole, holder: Option<ManagerLease> },
    #[error("the lock file {} can't be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
}
