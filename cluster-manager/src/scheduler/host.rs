//! One host as the scheduler sees it.

use super::grid::KindKey;
use domain::{
    HostId, InstanceId, ProjectId,
    cpu::CpuBaseline,
    flavor::Size,
    host::{Host, HostState, MemoryOverhead, NumaFacts},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The tag that says which rack a host is in.
pub const RACK_TAG: &str = "rack";

/// What an operator decided on a host beyond its row's cordon and tags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// The host is being emptied and gets nothing new.
    pub draining: bool,
    /// Only this project's instances may be placed here.
    pub dedicated_to: Option<ProjectId>,
    /// What is kept free for the operator.
    pub reserved: Size,
}

/// A NUMA node's threads and memory, and what pinned instances have taken of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NumaNode {
    /// The host's number for the node.
    pub id: u32,
    pub threads: u32,
    pub memory_mib: u64,
    pub pinned_threads: u32,
    pub pinned_mib: u64,
}

/// The CPU that a host's guests see, with its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GuestCpu {
    pub id: String,
    pub baseline: CpuBaseline,
}

impl GuestCpu {
    #[must_use]
    pub fn of(baseline: &CpuBaseline) -> Self {
        Self { id: baseline.id(), baseline: baseline.clone() }
    }
}

/// The fields that each claim reads and writes come first, on whole cache lines: in a large cloud hardly any host is in a CPU cache when its
/// turn comes.
#[derive(Debug, Clone)]
#[repr(C, align(128))]
pub struct HostEntry {
    pub capacity: Size,
    /// The claims that the database has.
    pub used: Size,
    /// The claims whose commit is on its way.
    pub tentative: Size,
    /// What is reserved for protected instances of other hosts, should one of these be lost ([`super::reserve`]).
    pub recovery_reserved: Size,
    /// This rises with each change of `used` or `tentative`: whoever read the row before may not overwrite what came after.
    pub(super) changes: u64,
    /// The desired-state revision that the database has.
    pub revision: i64,
    /// How many instances placed here aren't known to have started yet; [`super::Inventory`] knows which.
    pub(super) starting: u32,
    /// How many commits on their way release claims.
    pub(super) releasing: u32,
    /// Its hardware threads (capacity without overcommit), at least 1.
    pub threads: u32,
    pub policies: Policies,
    pub id: HostId,
    /// The generation of what the operator decided.
    pub generation: i64,
    pub overhead: MemoryOverhead,
    /// vCPUs per thread, in thousandths.
    pub overcommit_permille: u32,
    pub state: HostState,
    pub cordoned: bool,
    pub name: String,
    pub zone: Arc<str>,
    pub tags: Arc<BTreeMap<String, String>>,
    pub cpu_features: Arc<BTreeSet<String>>,
    pub guest_cpu: Option<Arc<GuestCpu>>,
    /// The id of the shared pool that it mounts.
    pub pool: Option<Arc<str>>,
    pub numa: Vec<NumaNode>,
    /// The protected and preemptible instances here, in no order.
    pub(super) special: Vec<InstanceId>,
    pub(super) kind: KindKey,
    pub(super) zone_at: u16,
    /// None: the host is a rack of its own.
    pub(super) rack_at: Option<u32>,
    /// Which of the labels that requests ever named the host has ([`super::labels`]).
    pub(super) labels: u128,
}

impl HostEntry {
    #[must_use]
    pub fn from_host(host: &Host) -> Self {
        let threads = host.facts.threads.max(1);
        Self {
            id: host.id,
            name: host.name.clone(),
            zone: host.zone.as_str().into(),
            tags: Arc::new(host.tags.clone()),
            cpu_features: Arc::new(host.facts.cpu_features.iter().cloned().collect()),
            guest_cpu: host.facts.guest_cpu.as_ref().map(|cpu| Arc::new(GuestCpu::of(cpu))),
            pool: host.facts.usable_pool().map(Arc::from),
            policies: Policies { draining: host.draining, dedicated_to: host.dedicated_to, reserved: Size::default() },
            state: host.state,
            cordoned: host.cordoned,
            capacity: host.capacity,
            used: host.used,
            tentative: Size::default(),
            recovery_reserved: Size::default(),
            overhead: host.overhead,
            threads,
            overcommit_permille: host.cpu_overcommit_permille.max(1),
            numa: numa_nodes(host),
            generation: host.generation,
            revision: host.revision,
            starting: 0,
            special: Vec::new(),
            changes: 0,
            releasing: 0,
            kind: KindKey::of(host.capacity, host.overhead),
            zone_at: 0,
            rack_at: None,
            labels: 0,
        }
    }

    /// Takes over what memory knows of the host beyond its row.
    pub(super) fn keep_claims_of(&mut self, old: Self) {
        (self.used, self.tentative, self.recovery_reserved) = (old.used, old.tentative, old.recovery_reserved);
        (self.starting, self.special, self.changes) = (old.starting, old.special, old.changes);
        (self.releasing, self.policies.reserved) = (old.releasing, old.policies.reserved);
        self.revision = self.revision.max(old.revision);
        for old in old.numa {
            if let Some(node) = self.numa.iter_mut().find(|node| node.id == old.id) {
                (node.pinned_threads, node.pinned_mib) = (old.pinned_threads, old.pinned_mib);
            }
        }
    }

    /// What is left for new claims. It never goes below zero, even where a host shrank under what it holds.
    #[must_use]
    pub fn free(&self) -> Size {
        minus(self.free_for_recovery(), self.recovery_reserved)
    }

    /// What would be left if claims of `preempted` were gone. Claims may already exceed the capacity: those held until preemption is done.
    #[must_use]
    pub fn free_after(&self, preempted: Size) -> Size {
        let Self { policies, used, tentative, recovery_reserved, .. } = self;
        [policies.reserved, *used, *tentative, *recovery_reserved]
            .into_iter()
            .fold(plus(self.capacity, preempted), minus)
    }

    /// What is left together with what is reserved for recoveries.
    #[must_use]
    pub fn free_for_recovery(&self) -> Size {
        minus(minus(minus(self.capacity, self.policies.reserved), self.used), self.tentative)
    }

    /// What an instance of `size` takes here: its memory with QEMU's own.
    #[must_use]
    pub fn claim_of(&self, size: Size) -> Size {
        Size { memory_mib: self.overhead.claim_mib(size), ..size }
    }

    #[must_use]
    pub fn starts_in_progress(&self) -> u32 {
        self.starting
    }

    /// Whether it is connected, and nothing is wrong with it.
    #[must_use]
    pub fn up(&self) -> bool {
        self.state == HostState::Up
    }

    /// Whether the host may get new instances at all.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.up() && !self.cordoned && !self.policies.draining
    }

    /// The position in `numa` of the node with the host's number.
    #[must_use]
    pub fn node_at(&self, id: u32) -> Option<u8> {
        self.numa.iter().position(|node| node.id == id).and_then(|at| u8::try_from(at).ok())
    }

    /// Whether more is pinned to the node than it has.
    #[must_use]
    pub fn node_overfull(&self, at: u8) -> bool {
        let node = self.numa.get(usize::from(at));
        node.is_some_and(|node| node.pinned_threads > node.threads || node.pinned_mib > node.memory_mib)
    }

    /// The NUMA node that pinned vCPUs with this memory fit into: the fullest, so that large holes stay, and of equally full ones the first.
    #[must_use]
    pub fn node_for(&self, vcpus: u32, memory_mib: u64) -> Option<u8> {
        let fits = |n: &NumaNode| {
            n.threads.saturating_sub(n.pinned_threads) >= vcpus
                && n.memory_mib.saturating_sub(n.pinned_mib) >= memory_mib
        };
        let best = self.numa.iter().enumerate().filter(|(_, n)| fits(n));
        best.min_by_key(|(at, n)| (n.threads - n.pinned_threads, *at)).and_then(|(at, _)| u8::try_from(at).ok())
    }
}

/// A host whose agent doesn't say which nodes there are can pin nothing.
fn numa_nodes(host: &Host) -> Vec<NumaNode> {
    let node = |facts: &NumaFacts| NumaNode {
        id: facts.id,
        threads: facts.threads,
        memory_mib: facts.memory_mib,
        ..NumaNode::default()
    };
    host.facts.numa.iter().take(usize::from(u8::MAX)).map(node).collect()
}

/// Pinned vCPUs claim whole threads, so all the vCPUs that overcommit makes of these.
#[must_use]
pub fn pinned_claim(vcpus: u32, overcommit_permille: u32) -> u32 {
    let claim = u64::from(vcpus) * u64::from(overcommit_permille.max(1000)) / 1000;
    u32::try_from(claim).unwrap_or(u32::MAX)
}

pub(super) fn pinned_threads(claimed_vcpus: u32, overcommit_permille: u32) -> u32 {
    let threads = u64::from(claimed_vcpus) * 1000 / u64::from(overcommit_permille.max(1000));
    u32::try_from(threads).unwrap_or(u32::MAX)
}

#[must_use]
pub fn fits(need: &Size, free: &Size) -> bool {
    need.vcpus <= free.vcpus && need.memory_mib <= free.memory_mib && need.disk_gib <= free.disk_gib
}

#[must_use]
pub fn plus(a: Size, b: Size) -> Size {
    Size {
        vcpus: a.vcpus.saturating_add(b.vcpus),
        memory_mib: a.memory_mib.saturating_add(b.memory_mib),
        disk_gib: a.disk_gib.saturating_add(b.disk_gib),
    }
}

#[must_use]
pub fn minus(a: Size, b: Size) -> Size {
    Size {
        vcpus: a.vcpus.saturating_sub(b.vcpus),
        memory_mib: a.memory_mib.saturating_sub(b.memory_mib),
        disk_gib: a.disk_gib.saturating_sub(b.disk_gib),
    }
}
