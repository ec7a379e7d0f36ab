//! `launch.json`: what a QEMU is about to be started as, written before its exec, so that an agent that is killed in between leaves
//! its successor no riddle. It isn't synced: it matters only as long as the process lives, and no process outlives the page cache.

use crate::ledger::Launched;
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path};

const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum LaunchedError {
    #[error("launch.json can't be read or written")]
    Io(#[source] io::Error),
    #[error("launch.json is not of the form that this agent writes")]
    Form,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    launched: Launched,
}

impl Launched {
    pub fn write(&self, path: &Path) -> Result<(), LaunchedError> {
        let file = File { format: FORMAT, launched: self.clone() };
        let bytes = serde_json::to_vec(&file).map_err(|_| LaunchedError::Form)?;
        let half = path.with_extension("half");
        fs::write(&half, bytes).and_then(|()| fs::rename(&half, path)).map_err(LaunchedError::Io)
    }

    pub fn read(path: &Path) -> Result<Self, LaunchedError> {
        let bytes = fs::read(path).map_err(LaunchedError::Io)?;
        let file: File = serde_json::from_slice(&bytes).map_err(|_| LaunchedError::Form)?;
        if file.format == FORMAT { Ok(file.launched) } else { Err(LaunchedError::Form) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Version;
    use domain::{Timestamp, flavor::Size};

    #[test]
    fn survives_the_file_and_other_forms_are_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("launch.json");
        let launched = Launched {
            version: Version { epoch: 1, generation: 2 },
            boot_seq: 3,
            root_seq: 4,
            size: Size { vcpus: 5, memory_mib: 6, disk_gib: 7 },
            console_offset: 8,
            started_at: Timestamp(9),
            disks: vec![],
        };
        launched.write(&path).expect("written");
        assert_eq!(Launched::read(&path).expect("read"), launched);
        fs::write(&path, fs::read_to_string(&path).expect("text").replace("\"format\":1", "\"format\":2"))
            .expect("written");
        assert!(matches!(Launched::read(&path), Err(LaunchedError::Form)));
        assert!(matches!(Launched::read(&dir.path().join("none")), Err(LaunchedError::Io(_))));
    }
}
