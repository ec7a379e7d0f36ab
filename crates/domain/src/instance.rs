//! An instance: what its owner wants ([`InstanceSpec`]), what a host last said of it ([`InstanceStatus`]), and the one table of which
//! state may follow which ([`InstanceState::valid_transition`]).
//!
//! Desired state is level-triggered: power is a level, a reboot is a counter that the host catches up with (`boot_seq`), a rebuild is
//! another (`root_seq`). So a command that is repeated, lost or delivered after a restart does the same as one that arrived once.

use crate::{
    DiskId, HostId, ImageId, InstanceId, Name, NetworkId, PortId, ProjectId, SecurityGroupId, Timestamp,
    explain::PlacementRecord,
    flavor::Size,
    network::{FixedIpRequest, MacAddr},
    placement::PlacementConstraints,
};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

string_enum! {
    pub enum InstanceState {
        /// The instance is accepted and placed; its host doesn't know of it yet.
        Pending = "pending",
        /// The instance is being placed, possibly again.
        Scheduling = "scheduling",
        /// The host prepares disks or starts QEMU.
        Building = "building",
        Running = "running",
        Paused = "paused",
        Stopped = "stopped",
        Suspended = "suspended",
        Migrating = "migrating",
        Recovering = "recovering",
        Resizing = "resizing",
        Rebuilding = "rebuilding",
        Deleting = "deleting",
        /// This state is never stored, since the row is gone. It ends timelines and streams.
        Deleted = "deleted",
        Error = "error",
    }
}

impl InstanceState {
    /// States that may last. Every other one has a deadline.
    pub const FINAL: [Self; 6] =
        [Self::Running, Self::Paused, Self::Stopped, Self::Suspended, Self::Deleted, Self::Error];

    /// States in which the instance's claim on its host stands. Only a deleted instance holds nothing.
    #[must_use]
    pub fn holds_capacity(self) -> bool {
        self != Self::Deleted
    }

    #[must_use]
    pub fn is_final(self) -> bool {
        Self::FINAL.contains(&self)
    }

    /// Whether `to` may follow `from`. Staying is always allowed. docs/states.md is generated from this function.
    #[must_use]
    pub fn valid_transition(from: Self, to: Self) -> bool {
        use InstanceState as S;
        if from == to {
            return true;
        }
        match (from, to) {
            (S::Deleted, _) => false,
            // Deletion may begin anywhere and, once begun, only ends.
            (S::Deleting, _) => to == S::Deleted,
            (_, S::Deleting) => true,
            (_, S::Deleted) => false,
            // Anything may fail, and a failed one is tried again from its desired state.
            (_, S::Error) => true,
            // A host may be lost whatever its instances do.
            (_, S::Recovering) => true,
            (S::Error, S::Building | S::Running | S::Stopped | S::Paused | S::Rebuilding | S::Scheduling) => true,
            (S::Error, S::Pending | S::Suspended | S::Migrating | S::Resizing) => false,
            // A host may report a later state without our having seen the ones between.
            (S::Pending | S::Scheduling, S::Scheduling | S::Building | S::Running | S::Stopped | S::Paused) => true,
            (S::Building, S::Running | S::Stopped | S::Paused | S::Scheduling) => true,
            (S::Running, S::Paused | S::Stopped | S::Suspended | S::Migrating | S::Building | S::Rebuilding) => true,
            (S::Paused, S::Running | S::Stopped | S::Building | S::Rebuilding) => true,
            (S::Stopped, S::Building | S::Running | S::Paused | S::Resizing | S::Rebuilding | S::Scheduling) => true,
            (S::Suspended, S::Building | S::Running | S::Stopped) => true,
            (S::Migrating, S::Running | S::Paused | S::Stopped) => true,
            (S::Recovering, S::Scheduling | S::Building | S::Running | S::Paused | S::Stopped | S::Rebuilding) => true,
            (S::Resizing, S::Stopped | S::Building | S::Running) => true,
            (S::Rebuilding, S::Building | S::Running | S::Stopped | S::Paused) => true,
            (
                S::Pending
                | S::Scheduling
                | S::Building
                | S::Running
                | S::Paused
                | S::Stopped
                | S::Suspended
                | S::Migrating
                | S::Recovering
                | S::Resizing
                | S::Rebuilding,
                _,
            ) => false,
        }
    }
}

string_enum! {
    #[derive(Default)]
    pub enum Power {
        #[default]
        On = "on",
        Off = "off",
        Paused = "paused",
    }

    /// What happens when QEMU ends although it should run.
    #[derive(Default)]
    pub enum OnCrash {
        #[default]
        Restart = "restart",
        Stop = "stop",
    }

    /// What happens when the host is lost.
    #[derive(Default)]
    pub enum OnHostLoss {
        #[default]
        Wait = "wait",
        Restart = "restart",
        Recreate = "recreate",
    }

    /// Where an instance's disks are.
    #[derive(Default)]
    pub enum DiskPool {
        /// On its host, and lost with it.
        #[default]
        Local = "local",
        /// In the shared pool, a directory that several hosts mount: they outlive their host.
        Shared = "shared",
    }
}

fn in_local_pool(pool: &DiskPool) -> bool {
    *pool == DiskPool::Local
}

/// The desired state. It is stored as one JSON document and sent as a whole to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    pub size: Size,
    /// The flavor's name at creation or the last resize; empty when sizes were given explicitly.
    #[serde(default)]
    pub flavor: String,
    pub image_id: ImageId,
    pub power: Power,
    /// Each reboot raises this counter; the host reboots until it has caught up with it.
    #[serde(default)]
    pub boot_seq: u64,
    /// Whether the reboot that raised `boot_seq` last is a reset (true) or asks the guest first (false).
    #[serde(default)]
    pub boot_hard: bool,
    /// Each rebuild raises this counter; the host makes the root disk again from `image_id`.
    #[serde(default)]
    pub root_seq: u64,
    /// How long a stop waits for the guest before QEMU is ended, seconds. 0 ends it at once.
    #[serde(default = "default_stop_timeout_secs")]
    pub stop_timeout_secs: u32,
    #[serde(default)]
    pub on_crash: OnCrash,
    #[serde(default)]
    pub on_host_loss: OnHostLoss,
    /// It is left out where it is the local one: what was stored before there was another means the same.
    #[serde(default, skip_serializing_if = "in_local_pool")]
    pub pool: DiskPool,
    /// The public keys themselves: deleting a stored key changes no instance.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// The bytes as the owner gave them, in base64.
    #[serde(default)]
    pub user_data_base64: String,
    #[serde(default)]
    pub zone: Option<String>,
    #[serde(default, skip_serializing_if = "PlacementConstraints::is_empty")]
    pub placement: PlacementConstraints,
    /// The NICs, in the order in which the guest sees them.
    #[serde(default)]
    pub nics: Vec<Nic>,
    #[serde(default)]
    pub deleted: bool,
}

impl InstanceSpec {
    /// Whether it has a disk, and that is in the shared pool.
    #[must_use]
    pub fn uses_shared_pool(&self) -> bool {
        self.pool == DiskPool::Shared && self.size.disk_gib > 0
    }

    /// What it takes of its host: a disk in the shared pool takes nothing there.
    #[must_use]
    pub fn size_on_host(&self) -> Size {
        self.size_on_host_of(self.size)
    }

    /// What it would take of its host with this size.
    #[must_use]
    pub fn size_on_host_of(&self, size: Size) -> Size {
        match self.pool {
            DiskPool::Local => size,
            DiskPool::Shared => Size { disk_gib: 0, ..size },
        }
    }

    /// What is desired of an instance that must be gone, where nothing else is known of it.
    #[must_use]
    pub fn deletion(image_id: ImageId) -> Self {
        Self {
            size: Size::default(),
            flavor: String::new(),
            image_id,
            power: Power::Off,
            boot_seq: 0,
            boot_hard: false,
            root_seq: 0,
            stop_timeout_secs: 0,
            on_crash: OnCrash::default(),
            on_host_loss: OnHostLoss::default(),
            pool: DiskPool::default(),
            ssh_keys: Vec::new(),
            user_data_base64: String::new(),
            zone: None,
            placement: PlacementConstraints::default(),
            nics: Vec::new(),
            deleted: true,
        }
    }
}

/// A NIC: a port of a network that is attached to this instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    pub port_id: PortId,
    pub network_id: NetworkId,
    pub mac: MacAddr,
    /// The addresses at the time of attachment; a port's addresses don't change while it is attached.
    pub addresses: Vec<IpAddr>,
    /// The groups as they were requested when the NIC was made with its instance, in case its reservation has to be repeated; `None` means the
    /// project's default group. The present groups are those of the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_group_ids: Option<Vec<SecurityGroupId>>,
}

/// The role of the disk that an instance boots from.
pub const ROOT_DISK: &str = "root";

/// A disk that an instance must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceDisk {
    pub id: DiskId,
    pub role: &'static str,
    pub size_gib: u64,
}

/// The disks of an instance with this root disk and size. Whatever reserves, binds, resizes, delivers or releases disks goes by this list;
/// an instance that runs from memory has none.
#[must_use]
pub fn disks(root_disk_id: Option<DiskId>, size: Size) -> Vec<InstanceDisk> {
    let root = root_disk_id.filter(|_| size.disk_gib > 0);
    root.map(|id| InstanceDisk { id, role: ROOT_DISK, size_gib: size.disk_gib }).into_iter().collect()
}

impl Instance {
    /// The disks that it must have.
    #[must_use]
    pub fn disks(&self) -> Vec<InstanceDisk> {
        disks(self.root_disk_id, self.spec.size)
    }
}

/// A NIC that is requested for an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicRequest {
    pub port_id: PortId,
    pub port: PortRequest,
}

/// Where the port of a requested NIC comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortRequest {
    /// The port exists by itself and is taken.
    Existing,
    /// The port is made with its instance.
    New {
        network_id: NetworkId,
        /// Empty: an address of each kind of subnet that the network has.
        fixed_ips: Vec<FixedIpRequest>,
        /// `None`: the project's default group.
        security_group_ids: Option<Vec<SecurityGroupId>>,
        /// `None`: it is chosen.
        mac: Option<MacAddr>,
    },
}

/// A requested NIC whose port is to be reserved for its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortReservation {
    pub nic: NicRequest,
    pub instance_id: InstanceId,
    pub project_id: ProjectId,
    /// The instance's name as DNS has it.
    pub hostname: String,
}

#[must_use]
pub fn default_stop_timeout_secs() -> u32 {
    30
}

/// The observed state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub state: InstanceState,
    /// The current step, for people: "fetching image (41 %)". It is empty when nothing is being done.
    pub step: String,
    /// Why the instance is in `error`, or why it waits.
    pub reason: String,
    /// The desired generation that the host has caught up with.
    pub observed_generation: i64,
    /// When the state stops being plausible: past it, a reason is shown and the reconciler acts.
    pub deadline_at: Option<Timestamp>,
    /// When QEMU was last started.
    pub started_at: Option<Timestamp>,
    /// When the guest last reported that it is up.
    pub guest_up_at: Option<Timestamp>,
    /// Unexpected ends of QEMU since the instance was created.
    pub crash_count: u32,
}

/// What the instance was given of its host beyond capacity when it was placed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Binding {
    /// The CPU baseline ([`crate::cpu::CpuBaseline::id`]) within which the instance may migrate; `None` if its host's agent reports none.
    pub cpu_baseline: Option<String>,
    /// The NUMA node of the host to whose threads the vCPUs are pinned; `None` if they aren't pinned.
    pub numa_node: Option<u32>,
    /// The number ([`InstanceSpec::root_seq`]) of the root disk that the instance ran with on its host; `None` before its first start there.
    pub root_used_seq: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub id: InstanceId,
    pub project_id: ProjectId,
    pub name: Name,
    pub tags: BTreeMap<String, String>,
    /// The generation rises with every write of the desired state; it is also the ETag.
    pub generation: i64,
    /// The epoch rises each time the instance is given to a host.
    pub epoch: i64,
    pub host_id: Option<HostId>,
    pub root_disk_id: Option<DiskId>,
    pub spec: InstanceSpec,
    pub status: InstanceStatus,
    /// How the host was chosen.
    pub placement: Option<PlacementRecord>,
    pub binding: Binding,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The fence of a report: stored only if greater than what was stored, equal is a repeat.
/// `start` is the agent's start number from its ledger, `counter` rises within one start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct ReportFence {
    pub epoch: i64,
    pub generation: i64,
    pub start: i64,
    pub counter: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use InstanceState as S;

    #[test]
    fn deletion_is_one_way_and_reachable_from_everywhere() {
        for from in S::ALL {
            assert_eq!(S::valid_transition(from, S::Deleting), from != S::Deleted, "{from:?}");
            if !matches!(from, S::Deleted | S::Deleting) {
                assert!(!S::valid_transition(from, S::Deleted), "{from:?} must pass through deleting");
                assert!(!S::valid_transition(S::Deleting, from));
            }
        }
    }

    #[test]
    fn every_state_that_is_not_final_can_reach_one() {
        for from in S::ALL {
            let mut reached = vec![from];
            let mut i = 0;
            while i < reached.len() {
                for to in S::ALL {
                    if S::valid_transition(reached[i], to) && !reached.contains(&to) {
                        reached.push(to);
                    }
                }
                i += 1;
            }
            assert!(reached.iter().any(|s| s.is_final()), "{from:?} is a trap");
            assert_eq!(S::parse(from.as_str()), Some(from));
        }
    }
}
