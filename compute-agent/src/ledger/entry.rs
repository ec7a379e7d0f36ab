//! What the ledger holds of one instance: what it must be here ([`Desired`]), what the host has done about it ([`Done`]), or the
//! [`Tombstone`] that is left of it. `record` writes these types to disk as they are.

use crate::qemu::process::ProcessRef;
use agent_kit::Version;
use domain::{
    DiskId, ImageId, InstanceId, PortId, Timestamp,
    flavor::Size,
    image::{DiskFormat, ImageKind, ImagePart, ImagePartKind},
    instance::InstanceSpec,
    network::MacAddr,
};
use serde::{Deserialize, Serialize};

/// What one instance must be on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    pub instance_id: InstanceId,
    pub project_id: String,
    /// The instance's name, which is also the guest's hostname.
    pub name: String,
    pub version: Version,
    /// The owner's specification. Its `nics` are left empty: a host needs only [`Self::nics`].
    pub spec: InstanceSpec,
    /// The NICs in the order in which the guest sees them.
    pub nics: Vec<Nic>,
    /// The disks. An instance without any runs from memory (kernel images only).
    pub disks: Vec<Disk>,
    pub image: DesiredImage,
    /// The node whose threads its vCPUs are pinned to; `None` if they aren't pinned.
    pub numa_node: Option<u32>,
    /// The request that led to this version, for logs.
    pub request_id: String,
    /// The manager's digest of this version, which is told to it again.
    #[serde(default)]
    pub digest: u64,
    /// Of a deletion: it ends the instance everywhere, so that what of it is in the shared pool is erased.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erase_shared: bool,
}

impl Desired {
    /// The desired state of an instance of which nothing may be left. A deletion names no more than this, and whatever the ledger or the
    /// host's directories know of the instance beside it says what there is to remove.
    #[must_use]
    pub fn deletion(instance_id: InstanceId, version: Version, request_id: String) -> Self {
        let image_id = ImageId(Default::default());
        let image = DesiredImage {
            image_id,
            kind: ImageKind::Disk,
            format: DiskFormat::Qcow2,
            cmdline: String::new(),
            parts: Vec::new(),
        };
        Self {
            instance_id,
            project_id: String::new(),
            name: String::new(),
            version,
            spec: InstanceSpec::deletion(image_id),
            nics: Vec::new(),
            disks: Vec::new(),
            image,
            numa_node: None,
            request_id,
            digest: 0,
            erase_shared: false,
        }
    }

    /// This deletion with all that was known of the instance before.
    #[must_use]
    pub fn keeping(self, known: &Self) -> Self {
        let spec = InstanceSpec { deleted: true, ..known.spec.clone() };
        let Self { version, request_id, erase_shared, .. } = self;
        Self { version, request_id, erase_shared, spec, ..known.clone() }
    }

    /// How large a disk must be. The root disk's size is part of the instance's size.
    #[must_use]
    pub fn disk_size_gib(&self, disk: &Disk) -> u64 {
        if disk.is_root() { self.spec.size.disk_gib } else { disk.size_gib }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub disk_id: DiskId,
    /// What the disk is for; an instance has at most one disk of a role, and files are named after it.
    pub role: String,
    pub size_gib: u64,
    pub epoch: i64,
    /// The number of the disk with which the instance ran on this host, as far as the manager knows.
    #[serde(default)]
    pub used_seq: Option<u64>,
}

impl Disk {
    /// The guest boots from the root disk, and a rebuild makes it anew from the image.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.role == "root"
    }
}

/// A disk's file on this host: the disk's role in the instance, and a number that rises when the disk is made anew.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DiskFile {
    pub role: String,
    pub seq: u64,
}

impl DiskFile {
    /// The file that a desired disk must have. Only the root disk is ever made anew.
    #[must_use]
    pub fn of(disk: &Disk, spec: &InstanceSpec) -> Self {
        Self { role: disk.role.clone(), seq: if disk.is_root() { spec.root_seq } else { 0 } }
    }

    /// Reads a file name; `None` if it isn't a disk's.
    #[must_use]
    pub fn parse(file_name: &str) -> Option<Self> {
        let (role, seq) = file_name.strip_suffix(".qcow2")?.rsplit_once('-')?;
        Some(Self { role: role.to_owned(), seq: seq.parse().ok()? })
    }
}

/// A NIC: a port that the host's network-agent passes to the instance under this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub port_id: PortId,
    pub epoch: i64,
    pub mac: MacAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredImage {
    pub image_id: ImageId,
    pub kind: ImageKind,
    /// The format of the part `disk`.
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

/// What the host has done for an instance. Only the instance's own reconciler writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {
    /// The QEMU that was started last and whose end isn't recorded here yet.
    pub process: Option<Running>,
    /// The highest `boot_seq` that is done.
    pub boot_seq: u64,
    /// The `root_seq` of the root disk that was made last.
    pub root_seq: u64,
    /// Why the instance is down although its power is on.
    pub halt: Option<Halt>,
    /// How often QEMU has ended unexpectedly since the instance came to this host.
    pub crash_count: u32,
    /// How many of the last crashes in a row came soon after a start.
    pub quick_crashes: u32,
    pub started_at: Option<Timestamp>,
    pub guest_up_at: Option<Timestamp>,
    /// The NICs whose ports may be acquired, or in QEMU: they are noted before either, and removed after both have ended.
    pub nics: Vec<Nic>,
    /// The disks that a QEMU was started with here, the latest of each role. One of them that is missing is lost: nothing is made in its place.
    #[serde(default)]
    pub used_disks: Vec<DiskFile>,
    /// The threads that belong to its vCPUs alone while it is on this host, in the vCPUs' order.
    pub pins: Vec<u32>,
}

impl Done {
    /// Notes a NIC; of several notes of one port the latest counts.
    pub fn note_nic(&mut self, nic: Nic) {
        self.nics.retain(|noted| noted.port_id != nic.port_id);
        self.nics.push(nic);
    }

    /// Notes disks that a QEMU was started with; of each role the latest counts.
    pub fn note_disks(&mut self, disks: &[DiskFile]) {
        for disk in disks {
            match self.used_disks.iter_mut().find(|noted| noted.role == disk.role) {
                Some(noted) => noted.seq = noted.seq.max(disk.seq),
                None => self.used_disks.push(disk.clone()),
            }
        }
    }
}

/// A QEMU process of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub process: ProcessRef,
    pub launched: Launched,
    /// Milliseconds from the receipt of the generation to QEMU's exec; `None` if no command led to this start.
    pub exec_ms: Option<i64>,
}

/// What a QEMU was started as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launched {
    pub version: Version,
    pub boot_seq: u64,
    pub root_seq: u64,
    pub size: Size,
    /// The offset in the console's log at which this boot of the guest begins.
    pub console_offset: u64,
    pub started_at: Timestamp,
    #[serde(default)]
    pub disks: Vec<DiskFile>,
}

/// The instance stays down although `power` is on, until its owner starts it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    pub cause: HaltCause,
    /// A command with a higher `boot_seq` lifts the halt.
    pub boot_seq: u64,
    /// The version under which it halted.
    pub version: Version,
    pub reason: String,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HaltCause {
    /// The guest powered itself off.
    GuestPowerOff,
    /// QEMU ended unexpectedly and `on_crash` is `stop`.
    Crash,
    /// It crashed again and again soon after its start.
    CrashLoop,
}

/// All that is left of an instance: this epoch is over on this host and never returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    pub instance_id: InstanceId,
    pub version: Version,
    pub deleted_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub desired: Desired,
    pub done: Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
