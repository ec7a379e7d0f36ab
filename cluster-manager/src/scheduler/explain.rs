//! What a decision saw, for people: hosts rejected per filter, the best candidates, the nearest fit, and what would help.
//!
//! A refusal looks at every host. A success must not: on a large inventory it counts by cells (zone, tags, features, dedication),
//! which is exact for these and leaves room uncounted: `candidates` are then the hosts that suit but for their room.

use super::{
    atoms::{Asked, Atom},
    decide::{Choice, cell_suits, choose_beside},
    filter,
    host::{HostEntry, minus},
    inventory::Inventory,
    request::Request,
    roster::Groups,
    score::Score,
};
use domain::{
    Timestamp,
    explain::{CandidateScore, NearestFit, PlacementRecord, Rejection, RejectionCount},
    flavor::Size,
};

/// Up to this many hosts a success counts exactly.
const COUNTED: usize = 512;
/// Candidates in the record.
const BEST: usize = 3;

fn reject(inventory: &Inventory, host: &HostEntry, request: &Request, groups: &Groups) -> Option<Rejection> {
    filter::closed(host, request)
        .or_else(|| ruled_out(inventory, host, groups).then_some(Rejection::Group))
        .or_else(|| filter::no_room(host, request))
}

fn ruled_out(inventory: &Inventory, host: &HostEntry, groups: &Groups) -> bool {
    inventory.slot_of(host.id).is_some_and(|slot| groups.violations(host, slot, &inventory.scratch).is_none())
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
    let (counts, room) = if inventory.len() <= COUNTED {
        let groups = Groups::locate(inventory, request);
        (Counts::of(inventory, request, &groups), "could take it")
    } else {
        let asked = inventory.ask(request);
        (by_cells(inventory, request, &asked), "suit it")
    };
    let best = best(inventory, request, choice);
    let host = inventory.find(choice.placed.host_id);
    let left = host.map_or_else(Size::default, |host| minus(host.free(), choice.placed.claim));
    let wishes = match choice.score.violations {
        0 => String::new(),
        n => format!("; {n} soft wishes of its placement groups are not met"),
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
            "{} of {considered} hosts {room}; the one that keeps most room for others was chosen{wishes}",
            counts.candidates
        ),
        hint: String::new(),
    }
}

fn describe(score: &Score) -> String {
    format!("wishes missed {}, start queue {}, packing {}", score.violations, score.start_queue, score.packing)
}

fn best(inventory: &mut Inventory, request: &Request, choice: &Choice) -> Vec<CandidateScore> {
    let mut best = Vec::with_capacity(BEST);
    let mut beside = [u32::MAX; BEST];
    let mut next = Some(*choice);
    while let Some(choice) = next {
        if let Some(slot) = inventory.slot_of(choice.placed.host_id) {
            beside[best.len()] = slot;
        }
        best.push(CandidateScore { host_id: choice.placed.host_id, score: describe(&choice.score) });
        let more = best.len() < BEST && request.recovers.is_none();
        next = if more { choose_beside(inventory, request, &beside[..best.len()]) } else { None };
    }
    best
}

/// What no host of a cell changes, counted by cells; the rest of the usable hosts are candidates.
fn by_cells(inventory: &Inventory, request: &Request, asked: &Asked) -> Counts {
    let mut counts = Counts::default();
    let zone = request.zone.as_ref().map(|zone| inventory.zone_at(zone));
    let mut usable = 0;
    for (key, hosts) in inventory.index.cells() {
        usable += hosts;
        let filter = if zone.is_some_and(|zone| zone != Some(key.zone)) {
            Rejection::Zone
        } else if cell_suits(key, asked, request) {
            counts.candidates += hosts;
            continue;
        } else if key.dedicated_to.is_some_and(|p| request.project != Some(p))
            || (request.dedicated && key.dedicated_to.is_none())
        {
            Rejection::Dedicated
        } else if key.atoms & asked.needs & asked.tags != asked.needs & asked.tags {
            Rejection::Tags
        } else if key.atoms & asked.forbids != 0 {
            Rejection::ForbiddenTags
        } else {
            Rejection::CpuFeatures
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
    // Refused all the same: what has the room has nobody to back it.
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
        nearest: nearest(inventory, request),
        summary: String::new(),
        hint: String::new(),
    };
    record.summary = summary(&record);
    let short = record.nearest.as_ref().is_some_and(|nearest| nearest.lacks != Size::default());
    record.hint = match roomy_misses(inventory, request, &groups) {
        // What only the operator can change is no advice while there is other.
        Some((Rejection::Cordoned, _)) if short => nearest_hint(&record),
        Some((_, miss)) if short => format!("{miss}; {}", nearest_hint(&record)),
        Some((_, miss)) => miss,
        None => nearest_hint(&record),
    };
    record
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
            ((!host.up, filter::closed(host, request).is_some(), worst, host.id), lacks)
        })
        .min_by_key(|(key, _)| *key)
        .map(|((.., host_id), lacks)| NearestFit { host_id: Some(host_id), lacks })
}

fn summary(record: &PlacementRecord) -> String {
    if record.hosts_considered == 0 {
        return "no host has registered yet".to_owned();
    }
    let why: Vec<String> =
        record.rejected.iter().map(|r| format!("{} {}", r.hosts, filter::describe(r.filter))).collect();
    format!("none of {} hosts can take it: {}", record.hosts_considered, why.join(", "))
}

/// Hosts that have the room and fail for one wish alone: "3 hosts have the room but lack the tag gpu=a100".
fn roomy_misses(inventory: &Inventory, request: &Request, groups: &Groups) -> Option<(Rejection, String)> {
    let mut misses: Vec<(Miss, u32)> = Vec::new();
    for host in inventory.hosts().filter(|h| h.up && filter::no_room(h, request).is_none()) {
        let mut all = all_misses(inventory, host, request, groups);
        let (Some(miss), None) = (all.next(), all.next()) else { continue };
        match misses.iter_mut().find(|(known, _)| *known == miss) {
            Some((_, hosts)) => *hosts += 1,
            None => misses.push((miss, 1)),
        }
    }
    // What a tenant can change; then the most hosts; of equal ones the first in the filters' order.
    let rank =
        |(miss, hosts): &(Miss, u32)| (miss.filter() == Rejection::Cordoned, std::cmp::Reverse(*hosts), miss.filter());
    let (miss, hosts) = misses.into_iter().min_by_key(rank)?;
    let filter = miss.filter();
    let (n, have, are) = if hosts == 1 {
        ("1 host".to_owned(), "has the room but lacks", "has the room but is")
    } else {
        (format!("{hosts} hosts"), "have the room but lack", "have the room but are")
    };
    let text = match miss {
        Miss::Atom(Atom::Tag(key, value), Rejection::ForbiddenTags) => {
            let has = if hosts == 1 { "has the room but has" } else { "have the room but have" };
            format!("{n} {has} the forbidden tag {key}={value}")
        }
        Miss::Atom(Atom::Tag(key, value), _) => format!("{n} {have} the tag {key}={value}"),
        Miss::Atom(Atom::Feature(feature), _) => format!("{n} {have} the CPU feature {feature}"),
        Miss::Other(Rejection::Cordoned) => format!("{n} {are} cordoned"),
        Miss::Other(Rejection::Zone) => format!("{n} {are} in another zone"),
        Miss::Other(Rejection::Dedicated) => format!("{n} {are} dedicated to others"),
        Miss::Other(Rejection::Group) => {
            format!("{n} {are} ruled out by the placement group; a soft policy would allow it")
        }
        Miss::Other(filter) => format!("{n} {are} {}", filter::describe(filter)),
    };
    Some((filter, text))
}

#[derive(Debug, PartialEq, Eq)]
enum Miss {
    Atom(Atom, Rejection),
    Other(Rejection),
}

impl Miss {
    fn filter(&self) -> Rejection {
        match self {
            Self::Atom(_, filter) | Self::Other(filter) => *filter,
        }
    }
}

fn all_misses<'a>(
    inventory: &'a Inventory,
    host: &'a HostEntry,
    request: &'a Request,
    groups: &'a Groups,
) -> impl Iterator<Item = Miss> + 'a {
    let cordoned = host.cordoned || host.policies.draining || request.avoid.contains(&host.id);
    let zone = request.zone.as_ref().is_some_and(|zone| **zone != *host.zone);
    let dedicated = match host.policies.dedicated_to {
        Some(project) => request.project != Some(project),
        None => request.dedicated,
    };
    let others = [
        (cordoned, Rejection::Cordoned),
        (zone, Rejection::Zone),
        (dedicated, Rejection::Dedicated),
        (ruled_out(inventory, host, groups), Rejection::Group),
    ];
    let others = others.into_iter().filter(|(missed, _)| *missed).map(|(_, filter)| Miss::Other(filter));
    let atoms = super::atoms::wishes(request).filter_map(|(wish, needed)| {
        let atom = wish.to_atom();
        let filter = match (&atom, needed) {
            (Atom::Tag(..), true) => Rejection::Tags,
            (Atom::Tag(..), false) => Rejection::ForbiddenTags,
            (Atom::Feature(_), _) => Rejection::CpuFeatures,
        };
        (atom.holds(host) != needed).then_some(Miss::Atom(atom, filter))
    });
    others.chain(atoms)
}

fn nearest_hint(record: &PlacementRecord) -> String {
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
        if record.rejected.iter().any(|r| r.filter == Rejection::Reserve) {
            return "a host has the room, but no other could restart the instance were it lost; add a host, or create it \
                    without on_host_loss: restart"
                .to_owned();
        }
        "a host has the room but may not be used now (disconnected, cordoned, or in another zone)".to_owned()
    } else {
        format!("the nearest host lacks {}; ask for less, delete something, or add a host", lacks.join(", "))
    }
}

/// What would make a refused request fit, for people.
#[must_use]
pub fn hint(record: &PlacementRecord) -> String {
    if record.hint.is_empty() { nearest_hint(record) } else { record.hint.clone() }
}
