//! The decision itself. [`choose`] finds the best host through the index and allocates nothing; [`decide`] adds the record.

use super::{
    atoms::Asked,
    explain, filter,
    host::HostEntry,
    index::{CellKey, Found},
    inventory::Inventory,
    preempt::{self, Preemption},
    request::Request,
    roster::{Groups, WISHES_MOST},
    score::Score,
};
use domain::{HostId, Timestamp, explain::PlacementRecord, flavor::Size, placement::GroupStrength};

/// Hosts tried for a protected instance, until one is found that another can back: two in each of so many zones.
const PRIMARIES: usize = 32;

/// A refusal without its time.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    record: PlacementRecord,
    preemption: Option<Preemption>,
}

/// A place: the host, and what is to be claimed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub host_id: HostId,
    /// Of the host when it was chosen; none where nothing of it was chosen by.
    pub generation: Option<i64>,
    /// Memory with QEMU's overhead on that host, pinned vCPUs as whole threads.
    pub claim: Size,
    /// For pinned vCPUs.
    pub numa_node: Option<u8>,
    /// For protected instances: the host that keeps room for it.
    pub backup: Option<HostId>,
}

impl Placed {
    #[must_use]
    pub fn of(host_id: HostId, claim: Size) -> Self {
        Self { host_id, generation: None, claim, numa_node: None, backup: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// None: refused, and the record says why.
    pub placed: Option<Placed>,
    /// Refused, but there would be room if these gave way.
    pub preemption: Option<Preemption>,
    pub record: PlacementRecord,
}

/// A host and its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub placed: Placed,
    pub score: Score,
}

/// Decides for one instance. Takes nothing: the caller claims tentatively while it still holds the inventory. Mutable only for what
/// is remembered: refusals, orders of buckets, tags asked for.
pub fn decide(inventory: &mut Inventory, request: &Request, now: Timestamp) -> Decision {
    if let Some(Refused { record, preemption }) = inventory.known_refusal(request) {
        let record = PlacementRecord { at: now, ..record.clone() };
        return Decision { placed: None, preemption: preemption.clone(), record };
    }
    if let Some(choice) = choose(inventory, request) {
        let record = explain::placed(inventory, request, &choice, now);
        return Decision { placed: Some(choice.placed), preemption: None, record };
    }
    let preemption = preempt::plan(inventory, request);
    let record = explain::refused(inventory, request, now);
    inventory.remember_refusal(request.clone(), Refused { record: record.clone(), preemption: preemption.clone() });
    Decision { placed: None, preemption, record }
}

/// The best host for the request now.
pub fn choose(inventory: &mut Inventory, request: &Request) -> Option<Choice> {
    choose_excluding(inventory, request, &[])
}

/// The best host that is none of these.
pub(super) fn choose_excluding(inventory: &mut Inventory, request: &Request, beside: &[u32]) -> Option<Choice> {
    if request.groups.len() > WISHES_MOST {
        return None;
    }
    if let Some(choice) = recover(inventory, request) {
        return Some(choice);
    }
    let groups = Groups::locate(inventory, request);
    let asked = inventory.ask(request);
    if asked.hopeless {
        return None;
    }
    if !request.protected || request.recovers.is_some() {
        let (found, violations) = find(inventory, request, &groups, &asked, beside, None)?;
        return answer(inventory, request, found, violations, None);
    }
    let mut tried = Tried::default();
    while tried.count < PRIMARIES {
        let (found, violations) = find(inventory, request, &groups, &asked, beside, Some(&tried))?;
        if let Some(backup) = inventory.find_backup(found.slot, request) {
            return answer(inventory, request, found, violations, Some(backup));
        }
        let zone = inventory.at(found.slot).map_or(u16::MAX, |host| host.zone_at);
        tried.add(found.slot, zone);
    }
    None
}

/// Hosts that no other could back. When two of a zone have failed, no host of it can back anything: whatever could back the one is not
/// the other, and the other way round.
struct Tried {
    hosts: [(u32, u16); PRIMARIES],
    count: usize,
}

impl Default for Tried {
    fn default() -> Self {
        Self { hosts: [(u32::MAX, u16::MAX); PRIMARIES], count: 0 }
    }
}

impl Tried {
    fn add(&mut self, slot: u32, zone: u16) {
        self.hosts[self.count] = (slot, zone);
        self.count += 1;
    }

    fn hosts(&self) -> &[(u32, u16)] {
        &self.hosts[..self.count]
    }

    fn has(&self, slot: u32) -> bool {
        self.hosts().iter().any(|(tried, _)| *tried == slot)
    }

    fn is_zone_out(&self, zone: u16) -> bool {
        self.hosts().iter().filter(|(_, tried)| *tried == zone).count() >= 2
    }
}

/// This very host, if it could take the request.
pub(super) fn choose_on(inventory: &mut Inventory, request: &Request, host_id: HostId) -> Option<Choice> {
    let slot = inventory.slot_of(host_id)?;
    if request.groups.len() > WISHES_MOST {
        return None;
    }
    let groups = Groups::locate(inventory, request);
    let host = inventory.at(slot).filter(|host| host.usable() && filter::reject(host, request).is_none())?;
    let violations = groups.violations(host, slot, &inventory.scratch)?;
    let found = inventory.index.score(slot, request.size)?;
    let backup = if request.protected { Some(inventory.find_backup(slot, request)?) } else { None };
    answer(inventory, request, found, violations, backup)
}

/// After the loss of a host: the room set aside for the instance, if it is still there.
fn recover(inventory: &mut Inventory, request: &Request) -> Option<Choice> {
    let member = inventory.roster.find(request.recovers?)?;
    let (primary, backup) = (member.slot, member.backup);
    let groups = Groups::locate_backup(inventory, request, primary, request.recovers);
    let host = inventory.at(backup)?;
    let room = super::host::fits(&filter::claim(host, request), &host.free_for_recovery());
    let apart = groups.violations(host, backup, &inventory.backup_scratch).is_none();
    if !room || apart || !host.usable() || filter::closed(host, request).is_some() {
        return None;
    }
    let found = inventory.index.score(backup, request.size)?;
    answer(inventory, request, found, 0, None)
}

/// What no host of the cell would change.
pub(super) fn cell_suits(key: &CellKey, asked: &Asked, request: &Request) -> bool {
    let project = match key.dedicated_to {
        Some(project) => request.project == Some(project),
        None => !request.dedicated,
    };
    project && key.atoms & asked.needs == asked.needs && key.atoms & asked.forbids == 0
}

fn find(
    inventory: &mut Inventory,
    request: &Request,
    groups: &Groups,
    asked: &Asked,
    beside: &[u32],
    tried: Option<&Tried>,
) -> Option<(Found, u32)> {
    let zone = match &request.zone {
        Some(zone) => Some(inventory.zone_at(zone)?),
        None => None,
    };
    let exact = asked.rest || request.pinned || request.baseline.is_some() || !request.avoid.is_empty();
    for violations in 0..=groups.soft() {
        let skip = |slot: u32| beside.contains(&slot) || tried.is_some_and(|t| t.has(slot));
        let is_out = |zone: u16| tried.is_some_and(|t| t.is_zone_out(zone));
        let near = groups.near(GroupStrength::Hard).or_else(|| {
            // With all soft wishes met, the near ones are few.
            if violations == 0 { groups.near(GroupStrength::Soft) } else { None }
        });
        let found = match near {
            Some(near) => {
                let mut best: Option<(u8, i32, u16, HostId, Found)> = None;
                Groups::each_near(near, inventory, &inventory.scratch, |slot| {
                    let Some(host) = inventory.at(slot) else { return };
                    if skip(slot)
                        || is_out(host.zone_at)
                        || !suits(host, slot, request, groups, violations, &inventory.scratch)
                        || filter::reject(host, request).is_some()
                    {
                        return;
                    }
                    let Some(found) = inventory.index.score(slot, request.size) else { return };
                    let key = (found.queue, found.packing, found.bucket, host.id);
                    if best.is_none_or(|(a, b, c, d, _)| key < (a, b, c, d)) {
                        best = Some((key.0, key.1, key.2, key.3, found));
                    }
                });
                best.map(|(.., found)| found)
            }
            None => {
                let Inventory { index, hosts, scratch, .. } = inventory;
                let cell = |key: &CellKey| {
                    zone.is_none_or(|z| z == key.zone)
                        && !is_out(key.zone)
                        && cell_suits(key, asked, request)
                        && groups.zone_suits(key.zone, scratch)
                };
                let plain = request.groups.is_empty() && !exact;
                let wanted = |slot: u32| {
                    if skip(slot) {
                        return false;
                    }
                    if plain {
                        return true;
                    }
                    hosts[slot as usize].as_ref().is_some_and(|host| {
                        suits(host, slot, request, groups, violations, scratch)
                            && (!exact || filter::reject(host, request).is_none())
                    })
                };
                index.best(request.size, cell, wanted)
            }
        };
        if let Some(found) = found {
            return Some((found, violations));
        }
    }
    None
}

fn suits(host: &HostEntry, slot: u32, request: &Request, groups: &Groups, violations: u32, scratch: &[u32]) -> bool {
    request.groups.is_empty() || groups.violations(host, slot, scratch).is_some_and(|v| v <= violations)
}

fn answer(
    inventory: &Inventory,
    request: &Request,
    found: Found,
    violations: u32,
    backup: Option<u32>,
) -> Option<Choice> {
    let host = inventory.at(found.slot)?;
    let claim = filter::claim(host, request);
    let numa_node = if request.pinned { host.node_for(request.size.vcpus, claim.memory_mib) } else { None };
    let backup = backup.and_then(|slot| inventory.at(slot)).map(|h| h.id);
    let placed = Placed { host_id: host.id, generation: Some(host.generation), claim, numa_node, backup };
    let score =
        Score { violations, start_queue: found.queue, packing: found.packing, bucket: found.bucket, host_id: host.id };
    Some(Choice { placed, score })
}
