//! Where an instance's files are. Pure.
//!
//! ```text
//! <state>/instances/<id>/            root's; instances' users may pass
//!     root-<root_seq>.qcow2          the instance's user's; the number says which rebuild it is of
//!     base-<root_seq>.img            a second name of the cached image that the disk lies on
//!     config-<sum>.iso               the sum of its content: a changed content is another file
//!     launch.json                    what the last QEMU was started as
//!     stderr                         what it said
//!     console/console.log            the directory is the instance's user's: QEMU writes there; its owner *is* the record of
//!                                    which user the instance has
//! <run>/vms/<id>/{qmp,serial}.sock   the instance's user's
//! ```
//!
//! QEMU can write two directories and the disk, and none that the agent makes or renames files in: a QEMU that a guest has taken
//! over finds no path to swap under the agent's hands.

use domain::InstanceId;
use std::path::{Path, PathBuf};

pub const QMP_SOCKET: &str = "qmp.sock";

#[derive(Debug, Clone)]
pub struct Paths {
    pub dir: PathBuf,
    pub run_dir: PathBuf,
}

#[must_use]
pub fn instances_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("instances")
}

#[must_use]
pub fn images_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("images")
}

#[must_use]
pub fn vms_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("vms")
}

impl Paths {
    #[must_use]
    pub fn new(state_dir: &Path, run_dir: &Path, instance_id: InstanceId) -> Self {
        let name = instance_id.to_string();
        Self { dir: instances_dir(state_dir).join(&name), run_dir: vms_dir(run_dir).join(name) }
    }

    #[must_use]
    pub fn root_disk(&self, root_seq: u64) -> PathBuf {
        self.dir.join(format!("root-{root_seq}.qcow2"))
    }

    #[must_use]
    pub fn base(&self, root_seq: u64) -> PathBuf {
        self.dir.join(format!("base-{root_seq}.img"))
    }

    #[must_use]
    pub fn config_drive(&self, sum: &str) -> PathBuf {
        self.dir.join(format!("config-{sum}.iso"))
    }

    #[must_use]
    pub fn launch(&self) -> PathBuf {
        self.dir.join("launch.json")
    }

    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.dir.join("stderr")
    }

    #[must_use]
    pub fn console_dir(&self) -> PathBuf {
        self.dir.join("console")
    }

    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.console_dir().join("console.log")
    }

    #[must_use]
    pub fn qmp_socket(&self) -> PathBuf {
        self.run_dir.join(QMP_SOCKET)
    }

    #[must_use]
    pub fn serial_socket(&self) -> PathBuf {
        self.run_dir.join("serial.sock")
    }
}

/// The root_seq of a root disk's file name.
#[must_use]
pub fn root_seq_of(file_name: &str) -> Option<u64> {
    file_name.strip_prefix("root-")?.strip_suffix(".qcow2")?.parse().ok()
}

/// Whether a file name is a config drive's.
#[must_use]
pub fn config_drive_name(file_name: &str) -> bool {
    file_name.starts_with("config-") && file_name.ends_with(".iso")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_sockets_fit() {
        let run_dir = PathBuf::from(format!("/{}", "r".repeat(47)));
        let paths = Paths::new(Path::new("/s"), &run_dir, InstanceId::new());
        let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(root_seq_of(&name(paths.root_disk(17))), Some(17));
        assert_eq!(root_seq_of("root-17.qcow2.new"), None);
        assert_eq!(root_seq_of(&name(paths.base(1))), None);
        assert!(config_drive_name(&name(paths.config_drive("ab"))));
        for socket in [paths.qmp_socket(), paths.serial_socket()] {
            assert!(socket.as_os_str().len() <= crate::qemu::argv::SOCKET_PATH_MAX, "{socket:?}");
        }
    }
}
