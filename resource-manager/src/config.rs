//! The section `[resource]` of the configuration file.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seconds that a released address rests before somebody else may get it.
    pub quarantine_secs: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { quarantine_secs: 60 }
    }
}
