//! Hosts: what the operator decided (schedulable, zone, overcommit) and what their agents reported.

use crate::{HostId, ProjectId, Timestamp, cpu::CpuBaseline, flavor::Size};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a host's agent says of its machine. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostFacts {
    pub cpu_model: String,
    pub cpu_vendor: String,
    pub cpu_features: Vec<String>,
    pub architecture: String,
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
    pub numa_nodes: u32,
    pub kernel: String,
    pub qemu_version: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// The reason why the accelerator isn't KVM.
    pub accelerator_reason: String,
    pub agent_version: String,
    /// The NUMA nodes that have threads, by id. Agents of the first release don't report them, and pin nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numa: Vec<NumaFacts>,
    /// Memory that the operator set apart as hugepages, by size, when the agent connected. Guests have none of it: it is no capacity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hugepages: Vec<HugepageFacts>,
    /// The CPU that guests see. Agents of the first release don't report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_cpu: Option<CpuBaseline>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct NumaFacts {
    /// As the host's kernel numbers it; gaps are usual.
    pub id: u32,
    pub threads: u32,
    pub memory_mib: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct HugepageFacts {
    pub size_kib: u64,
    pub total: u64,
    pub free: u64,
}

/// Memory that one QEMU takes beside the guest's own, MiB: `fixed + per_vcpu * vcpus + per_gib * memory_gib`. It is claimed with the
/// instance, so that a host full on paper doesn't swap in practice. The host's agent says the figures (they depend on the accelerator).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct MemoryOverhead {
    pub fixed_mib: u64,
    pub per_vcpu_mib: u64,
    pub per_gib_mib: u64,
}

impl MemoryOverhead {
    /// The memory that an instance of `size` claims on its host, MiB.
    #[must_use]
    pub fn claim_mib(&self, size: Size) -> u64 {
        let grown = self.per_gib_mib.saturating_mul(size.memory_mib).div_ceil(1024);
        size.memory_mib
            .saturating_add(self.fixed_mib)
            .saturating_add(self.per_vcpu_mib.saturating_mul(u64::from(size.vcpus)))
            .saturating_add(grown)
    }
}

string_enum! {
    pub enum HostState {
        /// The host's agent is connected.
        Up = "up",
        /// The host's agent isn't connected. Its instances keep running; no new ones are placed on it.
        Disconnected = "disconnected",
    }
}

string_enum! {
    /// The two daemons that speak for a host.
    pub enum AgentRole {
        ComputeAgent = "compute-agent",
        NetworkAgent = "network-agent",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub name: String,
    pub zone: String,
    pub tags: BTreeMap<String, String>,
    pub state: HostState,
    /// A cordoned host keeps its instances and gets no new ones.
    pub cordoned: bool,
    pub cordon_reason: String,
    /// The host is being emptied and gets no new instances.
    pub draining: bool,
    /// The only project whose instances the host takes.
    pub dedicated_to: Option<ProjectId>,
    /// What instances may take in total: of what is offered, what isn't reserved, times the overcommit ([`Self::placeable`]). Memory
    /// claims include QEMU's overhead.
    pub capacity: Size,
    /// What its agent says instances may take: hardware threads, MiB and GiB, the host's own needs already left out.
    pub offered: Size,
    /// What the operator keeps from instances.
    pub reserved: Size,
    /// vCPUs per hardware thread, in thousandths: 4000 is 4 vCPUs a thread. 0: its agent hasn't said yet.
    pub cpu_overcommit_permille: u32,
    /// Guests' memory per memory of the host, in thousandths.
    pub memory_overcommit_permille: u32,
    /// Guests' disk per disk of the host, in thousandths.
    pub disk_overcommit_permille: u32,
    pub used: Size,
    pub overhead: MemoryOverhead,
    pub facts: HostFacts,
    /// The generation rises with cordon, tags, zone and whatever else an operator decides.
    pub generation: i64,
    /// The revision rises in each transaction that changes the desired state of this host.
    pub revision: i64,
    pub registered_at: Timestamp,
    /// The time of the last change of `state`.
    pub state_changed_at: Timestamp,
}

impl Host {
    /// What instances may take of what is offered. The store computes the same in SQL when an agent or an operator says something new.
    #[must_use]
    pub fn placeable(&self) -> Size {
        let of = |offered: u64, reserved: u64, permille: u32| {
            offered.saturating_sub(reserved).saturating_mul(u64::from(permille)) / 1000
        };
        let (offered, reserved) = (self.offered, self.reserved);
        let vcpus = of(u64::from(offered.vcpus), u64::from(reserved.vcpus), self.cpu_overcommit_permille);
        Size {
            vcpus: u32::try_from(vcpus).unwrap_or(u32::MAX),
            memory_mib: of(offered.memory_mib, reserved.memory_mib, self.memory_overcommit_permille),
            disk_gib: of(offered.disk_gib, reserved.disk_gib, self.disk_overcommit_permille),
        }
    }

    /// What is claimed beyond capacity, since a host can shrink under what it holds. That stays; nothing new fits until it is freed.
    #[must_use]
    pub fn beyond_capacity(&self) -> Size {
        Size {
            vcpus: self.used.vcpus.saturating_sub(self.capacity.vcpus),
            memory_mib: self.used.memory_mib.saturating_sub(self.capacity.memory_mib),
            disk_gib: self.used.disk_gib.saturating_sub(self.capacity.disk_gib),
        }
    }
}
