//! The choice of a host: [`choose`] finds the best one through the index and allocates nothing.

use super::{
    decision::{Choice, Placed},
    filter,
    groups::{GROUPS_MAX, Groups},
    host::{HostEntry, fits},
    index::{CellKey, Found},
    inventory::Inventory,
    labels::RequestLabels,
    request::Request,
    score::Score,
};
use domain::{HostId, placement::GroupStrength};

/// Hosts tried for a protected instance until one is found that another can back: two in each of this many zones.
const PRIMARIES_MAX: usize = 32;

/// The best host for the request now.
pub fn choose(inventory: &mut Inventory, request: &Request) -> Option<Choice> {
    choose_excluding(inventory, request, &[])
}

/// The best host that isn't in one of the slots `excluding`.
pub(super) fn choose_excluding(inventory: &mut Inventory, request: &Request, excluding: &[u32]) -> Option<Choice> {
    if request.groups.len() > GROUPS_MAX {
        return None;
    }
    if let Some(choice) = recover(inventory, request) {
        return Some(choice);
    }
    let groups = Groups::locate(inventory, request);
    let labels = inventory.label_bits(request);
    if labels.unsatisfiable {
        return None;
    }
    if !request.protected || request.recovers.is_some() {
        let (found, violations) = find(inventory, request, &groups, &labels, (excluding, None))?;
        return answer(inventory, request, found, violations, None);
    }
    let mut tried = Tried::default();
    while tried.count < PRIMARIES_MAX {
        let (found, violations) = find(inventory, request, &groups, &labels, (excluding, Some(&tried)))?;
        if let Some(backup) = inventory.find_backup(found.slot, request) {
            return answer(inventory, request, found, violations, Some(backup));
        }
        let zone = inventory.at(found.slot).map_or(u16::MAX, |host| host.zone_at);
        tried.add(found.slot, zone);
    }
    None
}

/// Hosts that no other could back. When two hosts of a zone have failed, no host of it can back anything: the backup of one could be any
/// host but itself, and both found none.
struct Tried {
    hosts: [(u32, u16); PRIMARIES_MAX],
    count: usize,
}

impl Default for Tried {
    fn default() -> Self {
        Self { hosts: [(u32::MAX, u16::MAX); PRIMARIES_MAX], count: 0 }
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

/// The given host, if it could take the request.
pub(super) fn choose_on(inventory: &mut Inventory, request: &Request, host_id: HostId) -> Option<Choice> {
    let slot = inventory.slot_of(host_id)?;
    if request.groups.len() > GROUPS_MAX {
        return None;
    }
    let groups = Groups::locate(inventory, request);
    let host = inventory.at(slot).filter(|host| host.usable() && filter::reject(host, request).is_none())?;
    let violations = groups.violations(host, slot, &inventory.scratch)?;
    let found = inventory.index.score(slot, request.size)?;
    let backup = if request.protected { Some(inventory.find_backup(slot, request)?) } else { None };
    answer(inventory, request, found, violations, backup)
}

/// After the loss of a host: the capacity reserved for the instance, if it is still there.
fn recover(inventory: &mut Inventory, request: &Request) -> Option<Choice> {
    let instance = inventory.instances.find(request.recovers?)?;
    let (primary, backup) = (instance.slot, instance.backup);
    let groups = Groups::locate_backup(inventory, request, primary, request.recovers);
    let host = inventory.at(backup)?;
    let enough = fits(&filter::claim(host, request), &host.free_for_recovery());
    let ruled_out = groups.violations(host, backup, &inventory.backup_scratch).is_none();
    if !enough || ruled_out || !host.usable() || filter::closed(host, request).is_some() {
        return None;
    }
    let found = inventory.index.score(backup, request.size)?;
    answer(inventory, request, found, 0, None)
}

/// The best host, and how many soft constraints of groups it doesn't meet: as few as possible.
fn find(
    inventory: &mut Inventory,
    request: &Request,
    groups: &Groups,
    labels: &RequestLabels,
    (excluding, tried): (&[u32], Option<&Tried>),
) -> Option<(Found, u32)> {
    let zone = match &request.zone {
        Some(zone) => Some(inventory.zone_at(zone)?),
        None => None,
    };
    let exact = labels.incomplete || request.pinned || request.baseline.is_some() || !request.avoid.is_empty();
    for violations in 0..=groups.soft() {
        let skip = |slot: u32| excluding.contains(&slot) || tried.is_some_and(|t| t.has(slot));
        let is_out = |zone: u16| tried.is_some_and(|t| t.is_zone_out(zone));
        let near = groups.near(GroupStrength::Hard).or_else(|| {
            // As long as no soft constraint may be missed, only the near hosts count, and these are few.
            if violations == 0 { groups.near(GroupStrength::Soft) } else { None }
        });
        let found = match near {
            Some(near) => {
                let mut best: Option<((u8, i32, u16, HostId), Found)> = None;
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
                    if best.is_none_or(|(other, _)| key < other) {
                        best = Some((key, found));
                    }
                });
                best.map(|(_, found)| found)
            }
            None => {
                let Inventory { index, hosts, scratch, .. } = inventory;
                let cell = |key: &CellKey| {
                    zone.is_none_or(|z| z == key.zone)
                        && !is_out(key.zone)
                        && key.suits(labels, request)
                        && groups.zone_suits(key.zone, scratch)
                };
                let plain = request.groups.is_empty() && !exact;
                let accepts = |slot: u32| {
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
                index.best(request.size, cell, accepts)
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
