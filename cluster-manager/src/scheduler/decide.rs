//! The decision itself: every host through the filters, the best score wins, and the record says what was seen.

use super::{
    filter,
    inventory::{HostEntry, Inventory},
    score::{self, Score},
};
use domain::{
    HostId, Timestamp,
    explain::{NearestFit, PlacementRecord, RejectionCount},
    flavor::Size,
};
use std::collections::BTreeMap;

/// What is asked of a host. Affinity groups join here when they come: as sets of hosts wanted and avoided, with their generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Request {
    pub size: Size,
    pub zone: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub cpu_features: Vec<String>,
    /// Hosts that just refused this very request's commit. Counted as cordoned.
    pub avoid: Vec<HostId>,
}

/// The shape of a request that was refused.
pub(super) type RefusalKey = Request;

/// A refusal without its time.
#[derive(Debug, Clone)]
pub(super) struct Refused(PlacementRecord);

/// A place: the host, and what is to be claimed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub host_id: HostId,
    /// Memory with QEMU's overhead on that host.
    pub claim: Size,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// None: refused, and the record says why.
    pub placed: Option<Placed>,
    pub record: PlacementRecord,
}

/// Decides for one instance. Takes nothing: the caller claims tentatively while it still holds the inventory. Mutable only for the
/// memory of refusals.
pub fn decide(inventory: &mut Inventory, request: &Request, now: Timestamp) -> Decision {
    if let Some(Refused(record)) = inventory.known_refusal(request) {
        return Decision { placed: None, record: PlacementRecord { at: now, ..record.clone() } };
    }
    let mut best: Option<(Score, &HostEntry, Size)> = None;
    let mut candidates = 0;
    let mut rejected = [0_u32; filter::ORDER.len()];
    for host in inventory.hosts() {
        if let Some(filter) = filter::reject(host, request) {
            rejected[filter as usize] += 1;
            continue;
        }
        candidates += 1;
        let claim = host.claim_of(request.size);
        let score = score::score(host, claim);
        if best.as_ref().is_none_or(|(other, ..)| score < *other) {
            best = Some((score, host, claim));
        }
    }
    let considered = u32::try_from(inventory.len()).unwrap_or(u32::MAX);
    let rejected = filter::ORDER
        .into_iter()
        .zip(rejected)
        .filter(|(_, hosts)| *hosts > 0)
        .map(|(filter, hosts)| RejectionCount { filter, hosts })
        .collect::<Vec<_>>();
    let mut record = PlacementRecord {
        at: now,
        hosts_considered: considered,
        candidates,
        rejected,
        chosen: None,
        score: String::new(),
        nearest: None,
        summary: String::new(),
    };
    if let Some((_, host, claim)) = best {
        let left = score::left_after(host, claim);
        record.chosen = Some(host.id);
        record.score = format!("leaves {} vCPUs, {} MiB, {} GiB", left.vcpus, left.memory_mib, left.disk_gib);
        record.summary = format!("{candidates} of {considered} hosts could take it; the tightest fit was chosen");
        return Decision { placed: Some(Placed { host_id: host.id, claim }), record };
    }
    record.nearest = nearest(inventory, request);
    record.summary = refusal_summary(&record);
    inventory.remember_refusal(request.clone(), Refused(record.clone()));
    Decision { placed: None, record }
}

/// The host that lacks least, among those that fail for room alone; then among all that are at least connected.
fn nearest(inventory: &Inventory, request: &Request) -> Option<NearestFit> {
    inventory
        .hosts()
        .map(|host| {
            let lacks = filter::lacks(host, request);
            let permille = |lacks: u64, capacity: u64| lacks.saturating_mul(1000) / capacity.max(1);
            let worst = permille(u64::from(lacks.vcpus), u64::from(host.capacity.vcpus))
                .max(permille(lacks.memory_mib, host.capacity.memory_mib))
                .max(permille(lacks.disk_gib, host.capacity.disk_gib));
            let other_reason = filter::reject(host, request).is_some_and(|f| f < domain::explain::Rejection::Vcpus);
            ((!host.up, other_reason, worst, host.id), lacks)
        })
        .min_by_key(|(key, _)| *key)
        .map(|((.., host_id), lacks)| NearestFit { host_id: Some(host_id), lacks })
}

fn refusal_summary(record: &PlacementRecord) -> String {
    if record.hosts_considered == 0 {
        return "no host has registered yet".to_owned();
    }
    let why: Vec<String> =
        record.rejected.iter().map(|r| format!("{} {}", r.hosts, filter::describe(r.filter))).collect();
    format!("none of {} hosts can take it: {}", record.hosts_considered, why.join(", "))
}

/// What would make a refused request fit, for people.
#[must_use]
pub fn hint(record: &PlacementRecord) -> String {
    let Some(nearest) = &record.nearest else {
        return "register a host: start its compute-agent".to_owned();
    };
    let lacks: Vec<String> = [
        (u64::from(nearest.lacks.vcpus), "vCPUs"),
        (nearest.lacks.memory_mib, "MiB of memory"),
        (nearest.lacks.disk_gib, "GiB of disk"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    if lacks.is_empty() {
        "a host has the room but may not be used now (disconnected, cordoned, or in another zone)".to_owned()
    } else {
        format!("the nearest host lacks {}; ask for less, delete something, or add a host", lacks.join(", "))
    }
}
