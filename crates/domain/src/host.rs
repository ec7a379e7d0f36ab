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
    /// The shared pool that the host mounts, where its configuration names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_pool: Option<SharedPoolFacts>,
}

/// The shared pool as a host sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SharedPoolFacts {
    /// Which pool it is; empty where the host can't use it.
    pub id: String,
    /// Why the host can't use it; empty where it can.
    pub reason: String,
    /// The size of its file system, and what was free when the agent connected.
    pub total_gib: u64,
    pub free_gib: u64,
}

impl HostFacts {
    /// The shared pool that instances on this host may have their disks in.
    #[must_use]
    pub fn usable_pool(&self) -> Option<&str> {
        self.shared_pool.as_ref().map(|pool| pool.id.as_str()).filter(|id| !id.is_empty())
    }
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
        /// The host's agent has lost what it knew ([`HostLedger`]): it is given nothing until its operator decides.
        Held = "held",
        /// The file system of the host's disks is full. Its instances go on; no new ones are placed on it.
        DiskFull = "disk_full",
        /// The host was declared lost: its instances are recovered elsewhere. If its agent comes back, it is given nothing but the end of what was
        /// taken from it, until it has proved that it holds nothing of that.
        Lost = "lost",
    }
}

string_enum! {
    /// Which of the capacity that a host reports is offered to instances before an operator has accepted it. A host that lies of its capacity
    /// attracts instances, with their user data.
    pub enum AcceptCapacity {
        /// All of it.
        Always = "always",
        /// What it reports first, since an operator let it join; growth has to be accepted.
        First = "first",
        /// None.
        Never = "never",
    }
}

string_enum! {
    /// The two daemons that speak for a host.
    pub enum AgentRole {
        ComputeAgent = "compute-agent",
        NetworkAgent = "network-agent",
    }
}

impl HostState {
    /// Whether the host's agent takes commands.
    #[must_use]
    pub fn takes_commands(self) -> bool {
        match self {
            Self::Up | Self::DiskFull => true,
            Self::Disconnected | Self::Held | Self::Lost => false,
        }
    }
}

/// Which ledger the host's agent speaks from. An agent that comes with another one, or with an older copy of it, has lost what it knew of
/// its instances, and most often their disks too: a directory that isn't mounted looks like a new one. Such a host is held.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostLedger {
    /// The ledger that counts; empty: its agent hasn't said which one it has.
    pub id: String,
    /// The highest number of a start that was seen of it.
    pub start: i64,
    /// Starts are to be numbered from here on: what was reported before a ledger was given up is older than what comes after.
    pub start_floor: i64,
    /// What the agent came with instead: the host is held.
    pub found: Option<FoundLedger>,
}

/// A ledger that isn't the one that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLedger {
    pub id: String,
    pub start: i64,
}

impl HostLedger {
    /// What to think of it when an agent says Hello from this ledger, at this start.
    #[must_use]
    pub fn after_hello(&self, id: &str, start: i64) -> Self {
        let counts = self.id.is_empty() || (self.id == id && start >= self.start);
        // An agent that names no ledger is one of the first release, which can't be held.
        if id.is_empty() {
            return Self { found: None, ..self.clone() };
        }
        if counts {
            return Self { id: id.to_owned(), start, found: None, ..self.clone() };
        }
        Self { found: Some(FoundLedger { id: id.to_owned(), start }), ..self.clone() }
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
    pub reported: Size,
    /// How much of that its operator accepted. A host that says more gets no more for it.
    pub accepted: Size,
    /// What is offered to instances: what is reported, as far as it is accepted.
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
    pub ledger: HostLedger,
}

impl Host {
    /// Why the host is in a state in which it gets no new instances, and what to do about it; empty where there is nothing to say.
    #[must_use]
    pub fn state_reason(&self) -> String {
        let name = &self.name;
        match (self.state, &self.ledger.found) {
            (HostState::Held, Some(found)) => {
                let FoundLedger { start, .. } = found;
                let before = self.ledger.start;
                let what = if found.id == self.ledger.id { "an older copy of its ledger" } else { "another ledger" };
                format!(
                    "its compute-agent came with {what} than before (start {start} after start {before}): the directory \
                     compute.state_dir isn't mounted, was replaced or was lost. Mount or restore it and restart the agent. If it is lost \
                     for good, run `iaasctl host accept-loss {name}`: instances whose disks are gone are errors then"
                )
            }
            (HostState::Lost, Some(_)) => format!(
                "it was declared lost, and its compute-agent came back with another ledger than before, which proves nothing: make sure that \
                 nothing runs there any more, then run `iaasctl host accept-loss {name}`"
            ),
            (HostState::Lost, None) => format!(
                "it was declared lost: its instances are recovered elsewhere or wait. When its agent connects again, it stops what it no longer \
                 owns, and the host is up again. If it never comes back, delete what waits for it and run `iaasctl host remove {name}`"
            ),
            (HostState::DiskFull, _) => {
                "the file system of compute.state_dir is full: free or add space. Deletions go on, new instances are placed elsewhere".to_owned()
            }
            (HostState::Held | HostState::Up | HostState::Disconnected, _) => String::new(),
        }
    }

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

    /// What the host says it has beyond what was accepted. A kernel that leaves some MiB more than the one before is no growth.
    #[must_use]
    pub fn unaccepted(&self) -> Size {
        let more = |reported: u64, accepted: u64| {
            let more = reported.saturating_sub(accepted);
            if more > accepted / 32 { more } else { 0 }
        };
        let (reported, accepted) = (self.reported, self.accepted);
        Size {
            vcpus: reported.vcpus.saturating_sub(accepted.vcpus),
            memory_mib: more(reported.memory_mib, accepted.memory_mib),
            disk_gib: more(reported.disk_gib, accepted.disk_gib),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_held_by_another_ledger_and_by_an_older_copy_of_its_own() {
        let new = HostLedger::default().after_hello("a", 1);
        assert_eq!((new.id.as_str(), new.start, &new.found), ("a", 1, &None));
        let known = new.after_hello("a", 7);
        assert_eq!((known.start, &known.found), (7, &None));
        assert_eq!(known.after_hello("a", 7), known, "it only connected again");
        for (id, start) in [("b", 1), ("b", 9), ("a", 6)] {
            let held = known.after_hello(id, start);
            assert_eq!(held.found, Some(FoundLedger { id: id.into(), start }));
            assert_eq!((held.id.as_str(), held.start), ("a", 7), "what counts stays");
            assert_eq!(held.after_hello("a", 8).found, None, "the old one is back");
        }
        assert_eq!(known.after_hello("", 1).found, None);
    }
}
