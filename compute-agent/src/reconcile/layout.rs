//! Where an instance's files are. Pure.
//!
//! ```text
//! <state>/instances/<id>/            owned by root; instances' users may pass through
//!     <role>-<seq>.qcow2             a disk, owned by the instance's user; of the root disk, the number says which rebuild it is of
//!     base-<role>-<seq>.img          a second name of the cached image that the disk lies on
//!     config-<digest>.iso            named after its content: a changed content is another file
//!     launch.json                    what the last QEMU was started as
//!     stderr                         what it printed
//!     console/console.log            the directory is owned by the instance's user, because QEMU writes there; its owner *is* the
//!                                    record of which user the instance has
//! <pool>/disks/<id>/                 the disks and their images instead, where the instance's disks are in the shared pool
//! <run>/vms/<id>/{qmp,serial}.sock   owned by the instance's user
//! ```
//!
//! QEMU can write two directories and the disks, and none that the agent makes or renames files in: a QEMU that a guest has taken
//! over finds no path to swap under the agent's hands.

pub use crate::ledger::DiskFile;
use domain::InstanceId;
use std::path::{Path, PathBuf};

pub const QMP_SOCKET: &str = "qmp.sock";

#[derive(Debug, Clone)]
pub struct Paths {
    pub dir: PathBuf,
    pub run_dir: PathBuf,
    /// Where its disks are: its own directory, or one in the shared pool.
    pub disks_dir: PathBuf,
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
        let dir = instances_dir(state_dir).join(&name);
        Self { disks_dir: dir.clone(), dir, run_dir: vms_dir(run_dir).join(name) }
    }

    #[must_use]
    pub fn disk(&self, file: &DiskFile) -> PathBuf {
        self.disks_dir.join(format!("{}-{}.qcow2", file.role, file.seq))
    }

    /// The image that a disk lies on, if it lies on one.
    #[must_use]
    pub fn base(&self, file: &DiskFile) -> PathBuf {
        self.disks_dir.join(format!("base-{}-{}.img", file.role, file.seq))
    }

    #[must_use]
    pub fn config_drive(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("config-{digest}.iso"))
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
        for (role, seq) in [("root", 17), ("data-1", 0)] {
            let file = DiskFile { role: role.into(), seq };
            assert_eq!(DiskFile::parse(&name(paths.disk(&file))), Some(file.clone()));
            assert_eq!(DiskFile::parse(&name(paths.base(&file))), None);
        }
        assert_eq!(DiskFile::parse("root-17.qcow2.new"), None);
        assert!(config_drive_name(&name(paths.config_drive("ab"))));
        for socket in [paths.qmp_socket(), paths.serial_socket()] {
            assert!(socket.as_os_str().len() <= crate::qemu::argv::SOCKET_PATH_MAX, "{socket:?}");
        }
    }
}
