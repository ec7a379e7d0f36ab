//! Hosts and the tokens that admit them, for system admins.

use crate::{Size, names::HostStateName};
use domain::{
    HostId, HostTokenId, InstanceId, Name, ProjectId, Timestamp,
    cpu::CpuBaseline,
    host::{self, HostFacts, HostState},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    #[schema(value_type = String, format = "uuid")]
    pub id: HostId,
    pub name: String,
    pub zone: String,
    pub tags: BTreeMap<String, String>,
    #[schema(value_type = HostStateName)]
    pub state: HostState,
    /// Why it is in a state in which it gets no new instances, and what to do; empty where there is nothing to say.
    pub state_reason: String,
    /// It keeps its instances and gets no new ones.
    pub cordoned: bool,
    pub cordon_reason: String,
    /// It is being drained, and gets no new instances.
    pub draining: bool,
    /// The only project whose instances it takes.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub dedicated_to: Option<ProjectId>,
    /// What instances may use in total: what it offers, without what is reserved, times the overcommit.
    pub capacity: Size,
    /// What it offers to instances, of what its agent reports: hardware threads, memory and disk.
    pub offered: Size,
    /// What its agent reports beyond what was accepted. It isn't offered until it is accepted too (`accept_capacity` of a change).
    #[serde(default)]
    pub unaccepted: Size,
    /// Reserved by its operator, and not for instances.
    pub reserved: Size,
    /// What instances use; memory with QEMU's overhead.
    pub used: Size,
    /// What is claimed beyond the capacity. These claims stay; nothing new fits until they are freed.
    pub beyond_capacity: Size,
    /// vCPUs per hardware thread.
    pub cpu_overcommit: f64,
    /// Guests' memory per memory.
    pub memory_overcommit: f64,
    /// Guests' disk per disk.
    pub disk_overcommit: f64,
    pub overhead: MemoryOverhead,
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
    /// What the host runs and no instance is: it goes on, and is nobody's. Only where a host is shown or listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<Vec<Orphan>>,
}

/// What a host runs although the database has no such instance there: it was restored from a backup, or another control plane placed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Orphan {
    #[schema(value_type = String, format = "uuid")]
    pub instance_id: InstanceId,
    pub epoch: i64,
    /// Why it is an orphan.
    pub detail: String,
    #[schema(value_type = String, format = DateTime)]
    pub last_seen_at: Timestamp,
}

/// Memory that one QEMU takes beside the guest's own: `fixed + per_vcpu * vcpus + per_gib * memory_gib`, MiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryOverhead {
    pub fixed_mib: u64,
    pub per_vcpu_mib: u64,
    pub per_gib_mib: u64,
}

impl From<host::MemoryOverhead> for MemoryOverhead {
    fn from(overhead: host::MemoryOverhead) -> Self {
        let host::MemoryOverhead { fixed_mib, per_vcpu_mib, per_gib_mib } = overhead;
        Self { fixed_mib, per_vcpu_mib, per_gib_mib }
    }
}

impl From<host::Host> for Host {
    fn from(host: host::Host) -> Self {
        let (beyond_capacity, state_reason) = (host.beyond_capacity().into(), host.state_reason());
        let unaccepted = host.unaccepted().into();
        Self {
            id: host.id,
            name: host.name,
            zone: host.zone,
            tags: host.tags,
            state: host.state,
            state_reason,
            cordoned: host.cordoned,
            cordon_reason: host.cordon_reason,
            draining: host.draining,
            dedicated_to: host.dedicated_to,
            capacity: host.capacity.into(),
            offered: host.offered.into(),
            unaccepted,
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
            orphans: None,
        }
    }
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
    /// The reason, for the other operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cordon_reason: Option<String>,
    /// Whether it is to be drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// Id or name of the only project whose instances it takes; empty: it takes every project's. Its present instances stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedicated_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Replaces all tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    /// vCPUs per hardware thread, 0.1 to 100, to three decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_overcommit: Option<f64>,
    /// Guests' memory per memory, 0.1 to 10, to three decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_overcommit: Option<f64>,
    /// Guests' disk per disk, 0.1 to 100, to three decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_overcommit: Option<f64>,
    /// What is reserved and not for instances, at most what the host offers. Claims beyond what is left stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<HostReserve>,
    /// Takes a held host as it is, without what it has lost: instances whose disks are gone are errors then. Only for a host in the state `held`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_loss: bool,
    /// Accepts all the capacity that its agent reports, so that it is offered to instances.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_capacity: bool,
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostReserve {
    /// Hardware threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostToken {
    #[schema(value_type = String, format = "uuid")]
    pub id: HostTokenId,
    /// The only host that it is for; null: any new host.
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    /// The zone of a new host; null: what its agent is configured with.
    #[schema(value_type = Option<String>)]
    pub zone: Option<Name>,
    pub state: HostTokenState,
    /// The host it has admitted.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub host_id: Option<HostId>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub redeemed_at: Option<Timestamp>,
    pub created_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostTokenState {
    /// It admits its first host.
    Unused,
    /// It admits the host that used it, and no other.
    Used,
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostTokenCreated {
    #[schema(value_type = String, format = "uuid")]
    pub id: HostTokenId,
    /// All that a host needs, in one line: `iaasd compute-agent --join <token>`. It is shown once.
    pub token: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostTokenCreate {
    /// Admits only this host: a new one, which gets this name, or the known one of that name, which gets a new key. Absent: any new host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The zone of a new host. Absent: what its agent is configured with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// How long it is valid, in seconds: 1 to 2592000. Absent: an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_secs: Option<u64>,
}
