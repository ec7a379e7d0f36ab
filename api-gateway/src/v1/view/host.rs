//! Hosts, for system admins.

use super::names::HostStateName;
use api_types::Size as SizeView;
use domain::{
    HostId, ProjectId, Timestamp,
    cpu::CpuBaseline,
    host::{Host, HostFacts, HostState, MemoryOverhead},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = Host)]
pub struct HostView {
    #[schema(value_type = String, format = "uuid")]
    pub id: HostId,
    pub name: String,
    pub zone: String,
    pub tags: BTreeMap<String, String>,
    #[schema(value_type = HostStateName)]
    pub state: HostState,
    /// It keeps its instances and gets no new ones.
    pub cordoned: bool,
    pub cordon_reason: String,
    /// It is being drained, and gets no new instances.
    pub draining: bool,
    /// The only project whose instances it takes.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub dedicated_to: Option<ProjectId>,
    /// What instances may use in total: what it offers, without what is reserved, times the overcommit.
    pub capacity: SizeView,
    /// What its agent offers to instances: hardware threads, memory and disk.
    pub offered: SizeView,
    /// Reserved by its operator, and not for instances.
    pub reserved: SizeView,
    /// What instances use; memory with QEMU's overhead.
    pub used: SizeView,
    /// What is claimed beyond the capacity. These claims stay; nothing new fits until they are freed.
    pub beyond_capacity: SizeView,
    /// vCPUs per hardware thread.
    pub cpu_overcommit: f64,
    /// Guests' memory per memory.
    pub memory_overcommit: f64,
    /// Guests' disk per disk.
    pub disk_overcommit: f64,
    pub overhead: MemoryOverheadView,
    /// Names the CPU that its guests see, `facts.guest_cpu`. Instances may move, running, between hosts of one.
    pub cpu_baseline: Option<String>,
    /// What its agent reports of the machine.
    #[schema(value_type = Object)]
    pub facts: HostFacts,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub registered_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub state_changed_at: Timestamp,
}

/// Memory that one QEMU takes beside the guest's own: `fixed + per_vcpu * vcpus + per_gib * memory_gib`, MiB.
#[derive(Serialize, ToSchema)]
#[schema(as = MemoryOverhead)]
pub struct MemoryOverheadView {
    pub fixed_mib: u64,
    pub per_vcpu_mib: u64,
    pub per_gib_mib: u64,
}

impl From<MemoryOverhead> for MemoryOverheadView {
    fn from(overhead: MemoryOverhead) -> Self {
        let MemoryOverhead { fixed_mib, per_vcpu_mib, per_gib_mib } = overhead;
        Self { fixed_mib, per_vcpu_mib, per_gib_mib }
    }
}

impl From<Host> for HostView {
    fn from(host: Host) -> Self {
        let beyond_capacity = host.beyond_capacity().into();
        Self {
            id: host.id,
            name: host.name,
            zone: host.zone,
            tags: host.tags,
            state: host.state,
            cordoned: host.cordoned,
            cordon_reason: host.cordon_reason,
            draining: host.draining,
            dedicated_to: host.dedicated_to,
            capacity: host.capacity.into(),
            offered: host.offered.into(),
            reserved: host.reserved.into(),
            used: host.used.into(),
            beyond_capacity,
            cpu_overcommit: f64::from(host.cpu_overcommit_permille) / 1000.0,
            memory_overcommit: f64::from(host.memory_overcommit_permille) / 1000.0,
            disk_overcommit: f64::from(host.disk_overcommit_permille) / 1000.0,
            overhead: host.overhead.into(),
            cpu_baseline: host.facts.guest_cpu.as_ref().map(CpuBaseline::id),
            facts: host.facts,
            generation: host.generation,
            registered_at: host.registered_at,
            state_changed_at: host.state_changed_at,
        }
    }
}

/// What isn't named stays.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostChange {
    #[serde(default)]
    pub cordoned: Option<bool>,
    /// The reason, for the other operators.
    #[serde(default)]
    pub cordon_reason: Option<String>,
    /// Whether it is to be drained.
    #[serde(default)]
    pub draining: Option<bool>,
    /// Id or name of the only project whose instances it takes; empty: it takes every project's. Its present instances stay.
    #[serde(default)]
    pub dedicated_to: Option<String>,
    #[serde(default)]
    pub zone: Option<String>,
    /// Replaces all tags.
    #[serde(default)]
    pub tags: Option<BTreeMap<String, String>>,
    /// vCPUs per hardware thread, 0.1 to 100, to three decimals.
    #[serde(default)]
    pub cpu_overcommit: Option<f64>,
    /// Guests' memory per memory, 0.1 to 10, to three decimals.
    #[serde(default)]
    pub memory_overcommit: Option<f64>,
    /// Guests' disk per disk, 0.1 to 100, to three decimals.
    #[serde(default)]
    pub disk_overcommit: Option<f64>,
    /// What is reserved and not for instances, at most what the host offers. Claims beyond what is left stay.
    #[serde(default)]
    pub reserved: Option<HostReserve>,
}

/// What isn't named stays.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostReserve {
    /// Hardware threads.
    #[serde(default)]
    pub vcpus: Option<u32>,
    #[serde(default)]
    pub memory_mib: Option<u64>,
    #[serde(default)]
    pub disk_gib: Option<u64>,
}
