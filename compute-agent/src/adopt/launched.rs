//! `launch.json`: what a QEMU is about to be started as, written before its exec, so that an agent that is killed in between leaves
//! its successor no riddle. Not synced: it matters only as long as the process lives, and no process outlives the page cache.

use crate::{
    ledger::{Running, Version},
    qemu::process::ProcessRef,
};
use domain::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path};

const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum LaunchedError {
    #[error("can't be read or written")]
    Io(#[source] io::Error),
    #[error("is not of the form this agent writes")]
    Form,
}

/// All of a [`Running`] but the process itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    pub version: Version,
    pub boot_seq: u64,
    pub root_seq: u64,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub console_offset: u64,
    pub started_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct LaunchedV1 {
    format: u32,
    epoch: i64,
    generation: i64,
    boot_seq: u64,
    root_seq: u64,
    vcpus: u32,
    memory_mib: u64,
    disk_gib: u64,
    console_offset: u64,
    started_at: Timestamp,
}

impl Launched {
    pub fn write(&self, path: &Path) -> Result<(), LaunchedError> {
        let v1 = LaunchedV1 {
            format: FORMAT,
            epoch: self.version.epoch,
            generation: self.version.generation,
            boot_seq: self.boot_seq,
            root_seq: self.root_seq,
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_gib: self.disk_gib,
            console_offset: self.console_offset,
            started_at: self.started_at,
        };
        let bytes = serde_json::to_vec(&v1).map_err(|_| LaunchedError::Form)?;
        let half = path.with_extension("half");
        fs::write(&half, bytes).and_then(|()| fs::rename(&half, path)).map_err(LaunchedError::Io)
    }

    pub fn read(path: &Path) -> Result<Self, LaunchedError> {
        let bytes = fs::read(path).map_err(LaunchedError::Io)?;
        let v1: LaunchedV1 = serde_json::from_slice(&bytes).map_err(|_| LaunchedError::Form)?;
        if v1.format != FORMAT {
            return Err(LaunchedError::Form);
        }
        Ok(Self {
            version: Version { epoch: v1.epoch, generation: v1.generation },
            boot_seq: v1.boot_seq,
            root_seq: v1.root_seq,
            vcpus: v1.vcpus,
            memory_mib: v1.memory_mib,
            disk_gib: v1.disk_gib,
            console_offset: v1.console_offset,
            started_at: v1.started_at,
        })
    }

    #[must_use]
    pub fn running(&self, process: ProcessRef, exec_ms: Option<i64>) -> Running {
        Running {
            process,
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            disk_gib: self.disk_gib,
            root_seq: self.root_seq,
            started_at: self.started_at,
            exec_ms,
            console_offset: self.console_offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_file_and_other_forms_are_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("launch.json");
        let launched = Launched {
            version: Version { epoch: 1, generation: 2 },
            boot_seq: 3,
            root_seq: 4,
            vcpus: 5,
            memory_mib: 6,
            disk_gib: 7,
            console_offset: 8,
            started_at: Timestamp(9),
        };
        launched.write(&path).expect("written");
        assert_eq!(Launched::read(&path).expect("read"), launched);
        fs::write(&path, fs::read_to_string(&path).expect("text").replace("\"format\":1", "\"format\":2"))
            .expect("written");
        assert!(matches!(Launched::read(&path), Err(LaunchedError::Form)));
        assert!(matches!(Launched::read(&dir.path().join("none")), Err(LaunchedError::Io(_))));
    }
}
