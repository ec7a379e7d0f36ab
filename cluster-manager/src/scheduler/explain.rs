//! What a decision was based on, for people: hosts rejected per filter, the best candidates, the nearest fit, and what would help.
//!
//! A refusal examines every host. A success must not: on a large inventory it counts by cells (zone, tags, features, dedication),
//! which is exact for these and leaves capacity uncounted: `candidates` are then the hosts that suit apart from their capacity.

use super::{
    choose::choose_excluding,
    decision::Choice,
    filter,
    groups::Groups,
    host::{HostEntry, minus},
    inventory::Inventory,
    labels::RequestLabels,
    nearest_fit,
    request::Request,
    score::Score,
};
use domain::{
    Timestamp,
    explain::{CandidateScore, NearestFit, PlacementRecord, Rejection, RejectionCount},
    flavor::Size,
    limits,
};

/// Up to this many hosts a success counts exactly.
const COUNTED_MAX: usize = 512;
/// How many candidates a record names.
const BEST: usize = 3;

fn reject(inventory: &Inventory, host: &HostEntry, request: &Request, groups: &Groups) -> Option<Rejection> {
    match filter::closed(host, request) {
        // A host that was lost to another member of the group counts as ruled out by the group.
        None | Some(Rejection::Contended) if groups.rule_out(inventory, host) => Some(Rejection::Group),
        None => filter::lacking(host, request),
        closed => closed,
    }
}

#[derive(Default)]
struct Counts {
    candidates: u32,
    rejected: [u32; filter::ORDER.len()],
}

impl Counts {
    fn of(inventory: &Inventory, request: &Request, groups: &Groups) -> Self {
        let mut counts = Self::default();
        for host in inventory.hosts() {
            match reject(inventory, host, request, groups) {
                Some(filter) => counts.rejected[filter as usize] += 1,
                None => counts.candidates += 1,
            }
        }
        counts
    }

    fn rejections(&self) -> Vec<RejectionCount> {
        let counted = filter::ORDER.into_iter().zip(self.rejected).filter(|(_, hosts)| *hosts > 0);
        counted.map(|(filter, hosts)| RejectionCount { filter, hosts }).collect()
    }
}

fn hosts_considered(inventory: &Inventory) -> u32 {
    u32::try_from(inventory.len()).unwrap_or(u32::MAX)
}

pub(super) fn placed(inventory: &mut Inventory, request: &Request, choice: &Choice, now: Timestamp) -> PlacementRecord {
    let considered = hosts_considered(inventory);
    let (counts, verb) = if inventory.len() <= COUNTED_MAX {
        let groups = Groups::locate(inventory, request);
        (Counts::of(inventory, request, &groups), "could take it")
    } else {
        let labels = inventory.label_bits(request);
        (by_cells(inventory, request, &labels), "suit it")
    };
    let best = best(inventory, request, choice);
    let host = inventory.find(choice.placed.host_id);
    let left = host.map_or_else(Size::default, |host| minus(host.free(), choice.placed.claim));
    let missed = match choice.score.violations {
        0 => String::new(),
        n => format!("; {n} soft constraints of its placement groups are not met"),
    };
    PlacementRecord {
        at: now,
        hosts_considered: considered,
        candidates: counts.candidates,
        rejected: counts.rejections(),
        chosen: Some(choice.placed.host_id),
        best,
        score: format!("leaves {} vCPUs, {} MiB, {} GiB", left.vcpus, left.memory_mib, left.disk_gib),
        nearest: None,
        summary: format!(
            "{} of {considered} hosts {verb}; the one that keeps most capacity for others was chosen{missed}",
            counts.candidates
        ),
        hint: String::new(),
    }
}

fn describe(score: &Score) -> String {
    format!(
        "soft constraints missed {}, start queue {}, packing {}",
        score.violations, score.start_queue, score.packing
    )
}

fn best(inventory: &mut Inventory, request: &Request, choice: &Choice) -> Vec<CandidateScore> {
    let mut best = Vec::with_capacity(BEST);
    let mut excluding = [u32::MAX; BEST];
    let mut next = Some(*choice);
    while let Some(choice) = next {
        if let Some(slot) = inventory.slot_of(choice.placed.host_id) {
            excluding[best.len()] = slot;
        }
        best.push(CandidateScore { host_id: choice.placed.host_id, score: describe(&choice.score) });
        let more = best.len() < BEST && request.recovers.is_none();
        next = if more { choose_excluding(inventory, request, &excluding[..best.len()]) } else { None };
    }
    best
}

/// The counts of what the hosts of a cell have in common; the rest of the usable hosts are candidates.
fn by_cells(inventory: &Inventory, request: &Request, labels: &RequestLabels) -> Counts {
    let mut counts = Counts::default();
    let zone = request.zone.as_ref().map(|zone| inventory.zone_at(zone));
    let mut usable = 0;
    for (key, hosts) in inventory.index.cells() {
        usable += hosts;
        let filter = if zone.is_some_and(|zone| zone != Some(key.zone)) {
            Rejection::Zone
        } else if key.suits(labels, request) {
            counts.candidates += hosts;
            continue;
        } else if key.dedicated_to.is_some_and(|p| request.project != Some(p))
            || (request.dedicated && key.dedicated_to.is_none())
        {
            Rejection::Dedicated
        } else if key.labels & labels.required & labels.tags != labels.required & labels.tags {
            Rejection::Tags
        } else if key.labels & labels.forbidden != 0 {
            Rejection::ForbiddenTags
        } else if key.labels & labels.required & labels.pools == labels.required & labels.pools {
            Rejection::CpuFeatures
        } else {
            Rejection::SharedPool
        };
        counts.rejected[filter as usize] += hosts;
    }
    let down = inventory.down();
    counts.rejected[Rejection::Disconnected as usize] = down;
    counts.rejected[Rejection::Cordoned as usize] = hosts_considered(inventory).saturating_sub(usable + down);
    counts
}

pub(super) fn refused(inventory: &mut Inventory, request: &Request, now: Timestamp) -> PlacementRecord {
    let groups = Groups::locate(inventory, request);
    let mut counts = Counts::of(inventory, request, &groups);
    // The request is refused all the same: no other host could back those that have the capacity.
    if counts.candidates > 0 {
        let filter = if request.protected { Rejection::Reserve } else { Rejection::Group };
        counts.rejected[filter as usize] += counts.candidates;
        counts.candidates = 0;
    }
    let mut record = PlacementRecord {
        at: now,
        hosts_considered: hosts_considered(inventory),
        candidates: 0,
        rejected: counts.rejections(),
        chosen: None,
        best: Vec::new(),
        score: String::new(),
        nearest: nearest(inventory, request, &groups),
        summary: String::new(),
        hint: String::new(),
    };
    record.summary = summary(&record);
    record.hint = advise(inventory, request, &groups, &record);
    record
}

/// What would make the request fit: another constraint, if hosts have the capacity; else a smaller size.
fn advise(inventory: &Inventory, request: &Request, groups: &Groups, record: &PlacementRecord) -> String {
    let Some(nearest) = &record.nearest else { return no_hosts() };
    if let Some(unbacked) = record.rejected.iter().find(|r| r.filter == Rejection::Reserve) {
        return unbacked_hint(unbacked.hosts);
    }
    let less = if nearest.lacks == Size::default() { None } else { Some(less_hint(inventory, request, nearest)) };
    match (nearest_fit::nearest(inventory, request, groups), less) {
        (Some(nearest), None) => nearest.text,
        // What only the operator can change is no advice while there is other.
        (Some(nearest), Some(less)) if nearest.operators => less,
        (Some(nearest), Some(less)) => format!("{}; {less}", nearest.text),
        (None, Some(less)) => less,
        (None, None) => "a host has enough capacity but may not be used now".to_owned(),
    }
}

fn no_hosts() -> String {
    "register a host: start its compute-agent".to_owned()
}

fn unbacked_hint(hosts: u32) -> String {
    let has = if hosts == 1 { "1 host has".to_owned() } else { format!("{hosts} hosts have") };
    format!(
        "{has} enough capacity, but no other could restart the instance if its host were lost; add a host, or create it \
         without on_host_loss: restart"
    )
}

/// Advises a smaller size, as in "would fit with 2 GiB less memory".
fn less_hint(inventory: &Inventory, request: &Request, nearest: &NearestFit) -> String {
    let (lacks, size) = (nearest.lacks, request.size);
    // A pinned vCPU claims a whole thread.
    let claimed =
        nearest.host_id.and_then(|id| inventory.find(id)).map_or(size.vcpus, |h| filter::claim(h, request).vcpus);
    let each = (claimed / size.vcpus.max(1)).max(1);
    let fewer = Size { vcpus: lacks.vcpus.div_ceil(each), ..lacks };
    let left = minus(size, fewer);
    let possible =
        left.vcpus > 0 && left.memory_mib >= limits::MEMORY_MIB_MIN && (left.disk_gib > 0 || fewer.disk_gib == 0);
    if possible {
        format!(
            "would fit with {}; choose a smaller size, delete other instances, or add a host",
            amounts(fewer, " less")
        )
    } else {
        format!("the nearest host lacks {}; delete other instances, or add a host", amounts(lacks, ""))
    }
}

/// Names amounts, as in "1 vCPU less and 2 GiB less memory"; without `less` it is "1 vCPU and 2 GiB of memory".
fn amounts(size: Size, less: &str) -> String {
    let of = if less.is_empty() { " of" } else { less };
    let mut parts = Vec::with_capacity(3);
    if size.vcpus > 0 {
        parts.push(format!("{} vCPU{}{less}", size.vcpus, if size.vcpus == 1 { "" } else { "s" }));
    }
    if size.memory_mib > 0 {
        let whole = size.memory_mib.is_multiple_of(1024);
        let amount = if whole { format!("{} GiB", size.memory_mib / 1024) } else { format!("{} MiB", size.memory_mib) };
        parts.push(format!("{amount}{of} memory"));
    }
    if size.disk_gib > 0 {
        parts.push(format!("{} GiB{of} disk", size.disk_gib));
    }
    parts.join(" and ")
}

/// The host that lacks least: among those that fail for their capacity alone, else among all that are connected, else among all.
fn nearest(inventory: &Inventory, request: &Request, groups: &Groups) -> Option<NearestFit> {
    inventory
        .hosts()
        .map(|host| {
            let lacks = filter::lacks(host, request);
            let permille = |lacks: u64, capacity: u64| lacks.saturating_mul(1000) / capacity.max(1);
            let worst = permille(u64::from(lacks.vcpus), u64::from(host.capacity.vcpus))
                .max(permille(lacks.memory_mib, host.capacity.memory_mib))
                .max(permille(lacks.disk_gib, host.capacity.disk_gib));
            let closed = filter::closed(host, request).is_some() || groups.rule_out(inventory, host);
            ((!host.up(), closed, worst, host.id), lacks)
        })
        .min_by_key(|(key, _)| *key)
        .map(|((.., host_id), lacks)| NearestFit { host_id: Some(host_id), lacks })
}

fn summary(record: &PlacementRecord) -> String {
    if record.hosts_considered == 0 {
        return "no host has registered yet".to_owned();
    }
    let why: Vec<String> = record.rejected.iter().map(|r| format!("{} {}", r.hosts, r.filter.describe())).collect();
    format!("none of {} hosts can take it: {}", record.hosts_considered, why.join(", "))
}

/// What would make a refused request fit, for people.
#[must_use]
pub fn hint(record: &PlacementRecord) -> String {
    match &record.nearest {
        _ if !record.hint.is_empty() => record.hint.clone(),
        None => no_hosts(),
        Some(nearest) if nearest.lacks == Size::default() => {
            "the host has enough capacity but may not be used now".to_owned()
        }
        Some(nearest) => format!(
            "the nearest host lacks {}; choose a smaller size, delete other instances, or add a host",
            amounts(nearest.lacks, "")
        ),
    }
}
