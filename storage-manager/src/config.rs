//! The section `[storage]`.

use serde::{Deserialize, Serialize};
use service_kit::config::ConfigError;
use std::path::PathBuf;

/// A commit may wait this long for the database, and a publication must outlive it.
const GRACE_SECS_MIN: u64 = 120;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory of the images' bytes. Empty means `images` below the state directory.
    pub directory: PathBuf,
    /// How long a new image may wait for its parts, seconds. An upload in progress extends it.
    pub image_deadline_secs: u64,
    /// The largest part of an image, GiB.
    pub part_gib_max: u64,
    /// Uploads at once. More are refused as unavailable.
    pub uploads_max: usize,
    /// Uploaded qcow2 images that are checked at once. Others wait for their turn.
    pub checks_max: usize,
    /// How much uploads leave free on the disk that holds the images, GiB; at most 1/20 of the disk.
    pub free_gib_min: u64,
    /// The time within which an upload must send what the least rate says, seconds; else it is cut.
    pub upload_stall_secs: u64,
    /// The least rate of an upload, KiB a second. Only the time counts in which the sender is waited for. 0: one byte within `upload_stall_secs`.
    pub upload_least_kib_per_sec: u64,
    /// How long bytes that no image names are kept, seconds.
    pub object_grace_secs: u64,
    /// How long outcomes of operations are kept for repeats, hours.
    pub operation_hours: u64,
    /// The time between two sweeps, seconds.
    pub sweep_secs: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            image_deadline_secs: 3600,
            part_gib_max: 256,
            uploads_max: 32,
            checks_max: 2,
            free_gib_min: 4,
            upload_stall_secs: 60,
            upload_least_kib_per_sec: 8,
            object_grace_secs: 3600,
            operation_hours: 24,
            sweep_secs: 5,
        }
    }
}

impl Config {
    /// Lists everything that is wrong with it.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut check = |holds: bool, key: &str, detail: &str| {
            if !holds {
                errors.push(ConfigError::new(format!("storage.{key}"), detail));
            }
        };
        check(self.directory.is_absolute(), "directory", "must be an absolute path");
        check((60..=604_800).contains(&self.image_deadline_secs), "image_deadline_secs", "must be 60 to 604800");
        check((1..=65_536).contains(&self.part_gib_max), "part_gib_max", "must be 1 to 65536");
        check((1..=256).contains(&self.uploads_max), "uploads_max", "must be 1 to 256");
        check((1..=16).contains(&self.checks_max), "checks_max", "must be 1 to 16");
        check(self.free_gib_min <= 65_536, "free_gib_min", "must be 0 to 65536");
        check((1..=3600).contains(&self.upload_stall_secs), "upload_stall_secs", "must be 1 to 3600");
        check(self.upload_least_kib_per_sec <= 1 << 20, "upload_least_kib_per_sec", "must be at most 1048576");
        check(
            self.object_grace_secs >= GRACE_SECS_MIN,
            "object_grace_secs",
            "must be at least 120: longer than a commit may take",
        );
        check(self.operation_hours >= 1, "operation_hours", "must be at least 1");
        check((1..=300).contains(&self.sweep_secs), "sweep_secs", "must be 1 to 300");
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_are_said_at_once() {
        let good = Config { directory: "/var/lib/iaas/images".into(), ..Config::default() };
        assert_eq!(good.validate(), vec![]);
        let bad = Config { directory: "x".into(), object_grace_secs: 1, uploads_max: 0, ..Config::default() };
        let keys: Vec<_> = bad.validate().into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["storage.directory", "storage.uploads_max", "storage.object_grace_secs"]);
    }
}
