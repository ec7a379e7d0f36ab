//! What is observed of one instance on this host. Pure.

use super::{layout::DiskFile, starts::Permit};
use crate::ledger::Nic;
use domain::PortId;

/// What exists of one instance on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub process: ObservedProcess,
    /// The instance's disks on this host, by role and ascending sequence number; a role has two in the middle of a rebuild.
    pub disks: Vec<ObservedDisk>,
    /// Whether all parts of the desired image are in the cache.
    pub image: bool,
    /// Whether a config drive with the desired content exists.
    pub config_drive: bool,
    /// The NICs that QEMU has.
    pub nics: Vec<ObservedNic>,
    /// The NICs whose taps are held open for the next start.
    pub taps: Vec<Nic>,
    /// Whether a directory, a control group or a file of the instance exists.
    pub anything: bool,
    /// The id of the host's current boot.
    pub boot_id: String,
    /// Why the shared pool that its disks are in can't be used.
    pub pool_problem: Option<String>,
    /// Whether the instance may be started now.
    pub permit: Permit,
}

impl Observed {
    /// The newest disk of a role.
    #[must_use]
    pub fn newest_disk(&self, role: &str) -> Option<&ObservedDisk> {
        self.disks.iter().rfind(|disk| disk.file.role == role)
    }

    /// A disk that a newer one of its role has replaced.
    #[must_use]
    pub fn replaced_disk(&self) -> Option<&ObservedDisk> {
        self.disks.windows(2).find(|pair| pair[0].file.role == pair[1].file.role).map(|pair| &pair[0])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedNic {
    pub slot: u8,
    pub port_id: PortId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDisk {
    pub file: DiskFile,
    pub size_gib: u64,
    /// It lies on an image that isn't there: without the image it is no disk.
    pub base_gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedProcess {
    /// No process runs: none that the ledger names, and none in the instance's own control group.
    None,
    /// QEMU runs, and the task isn't connected to its monitor.
    Silent,
    /// QEMU runs, and its monitor hasn't answered for `compute.qemu_silence_secs`.
    Unresponsive,
    /// QEMU runs, and its monitor reports this state.
    Speaking(Machine),
}

/// The state of the machine that QEMU's monitor reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// The machine exists, and no instruction has run yet.
    Prelaunch,
    Running,
    Paused,
    PoweredOff,
    Panicked,
    /// The guest armed its watchdog and didn't reset it in time: it hangs.
    Hung,
    /// A disk of the host failed or is full.
    IoError,
    /// QEMU or KVM gave up.
    Broken,
    /// A state in between, which passes by itself.
    Between,
}
