//! What the ledger holds of one instance: what it must be here ([`Desired`]), what the host has done about it ([`Done`]), or the
//! [`Tombstone`] that is left of it. How this looks on disk is `record`'s business.

use crate::qemu::process::ProcessRef;
use agent_kit::Version;
use domain::{
    DiskId, ImageId, InstanceId, PortId, Timestamp,
    image::{DiskFormat, ImageKind, ImagePart, ImagePartKind},
    instance::InstanceSpec,
    network::MacAddr,
};

/// What one instance must be on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub instance_id: InstanceId,
    pub project_id: String,
    /// Also the guest's hostname.
    pub name: String,
    pub version: Version,
    /// Its `nics` are left empty: of them, [`Self::nics`] is what a host needs.
    pub spec: InstanceSpec,
    /// In the order in which the guest sees them.
    pub nics: Vec<Nic>,
    /// None: runs from memory (kernel images only).
    pub root_disk: Option<RootDisk>,
    pub image: DesiredImage,
    /// The node whose threads its vCPUs are pinned to. None: they aren't.
    pub numa_node: Option<u32>,
    /// Of the request that brought this version, for logs.
    pub request_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootDisk {
    pub disk_id: DiskId,
    pub size_gib: u64,
    pub epoch: i64,
}

/// A network card: a port that the host's network-agent hands over under this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nic {
    pub port_id: PortId,
    pub epoch: i64,
    pub mac: MacAddr,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredImage {
    pub image_id: ImageId,
    pub kind: ImageKind,
    /// Of the `disk` part.
    pub format: DiskFormat,
    pub cmdline: String,
    pub parts: Vec<ImagePart>,
}

impl DesiredImage {
    #[must_use]
    pub fn part(&self, kind: ImagePartKind) -> Option<&ImagePart> {
        self.parts.iter().find(|p| p.kind == kind)
    }
}

/// What the host has done for an instance. Only its own reconciler writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// The QEMU that was started last and whose end isn't written here yet.
    pub process: Option<Running>,
    /// The highest boot_seq that is done with.
    pub boot_seq: u64,
    /// The root_seq of the root disk that was made last.
    pub root_seq: u64,
    /// Why it is down although its power says on.
    pub halt: Option<Halt>,
    /// Unexpected ends since the instance came here.
    pub crash_count: u32,
    /// Of those, the ones in a row that came soon after a start.
    pub quick_crashes: u32,
    pub started_at: Option<Timestamp>,
    pub guest_up_at: Option<Timestamp>,
    /// Nics whose ports may be acquired, or in QEMU: written before either, taken out after both have ended.
    pub nics: Vec<Nic>,
    /// The threads that are its vCPUs' alone, in their order, while it is here.
    pub pins: Vec<u32>,
}

impl Done {
    /// Of several entries about one port the latest counts.
    pub fn note_nic(&mut self, nic: Nic) {
        self.nics.retain(|known| known.port_id != nic.port_id);
        self.nics.push(nic);
    }
}

/// A QEMU process of ours and what it was started as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub process: ProcessRef,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    pub root_seq: u64,
    pub started_at: Timestamp,
    /// Milliseconds from the agent's learning of the generation to QEMU's exec; none when no command led to this start.
    pub exec_ms: Option<i64>,
    /// Where in the console's log this boot of the guest begins.
    pub console_offset: u64,
}

/// An instance that stays down although `power` is on, until its owner starts it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    pub cause: HaltCause,
    /// A command with a higher boot_seq lifts it.
    pub boot_seq: u64,
    /// The version it halted under.
    pub version: Version,
    pub reason: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltCause {
    /// The guest powered itself off.
    GuestPowerOff,
    /// QEMU ended unexpectedly and `on_crash` is `stop`.
    Crash,
    /// It crashed again and again soon after its start.
    CrashLoop,
}

/// All that is left of an instance: this epoch is over here, and never comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    pub instance_id: InstanceId,
    pub version: Version,
    pub deleted_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub desired: Desired,
    pub done: Done,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    Live(Entry),
    Tombstone(Tombstone),
}

impl Held {
    #[must_use]
    pub fn instance_id(&self) -> InstanceId {
        match self {
            Self::Live(entry) => entry.desired.instance_id,
            Self::Tombstone(tombstone) => tombstone.instance_id,
        }
    }

    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::Live(entry) => entry.desired.version,
            Self::Tombstone(tombstone) => tombstone.version,
        }
    }
}
