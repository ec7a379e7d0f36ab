//! The same policy in its most naive form: examine every host, keep those that could take the request, sort.

use super::*;
use crate::scheduler::score::Score;

fn matches(
    inventory: &Inventory,
    constraint: &GroupConstraint,
    host: &HostEntry,
    placed: &[(InstanceId, HostId, Vec<GroupConstraint>)],
) -> bool {
    let place = |h: &HostEntry| match constraint.scope {
        GroupScope::Host => h.id.to_string(),
        GroupScope::Rack => h.tags.get("rack").cloned().unwrap_or_else(|| h.id.to_string()),
        GroupScope::Zone => h.zone.to_string(),
    };
    let mut others = placed
        .iter()
        .filter(|(.., constraints)| constraints.iter().any(|w| w.group == constraint.group))
        .filter_map(|(_, host_id, _)| inventory.find(*host_id))
        .map(place)
        .peekable();
    match constraint.policy {
        GroupPolicy::Affinity => others.peek().is_none() || others.any(|other| other == place(host)),
        GroupPolicy::AntiAffinity => others.all(|other| other != place(host)),
    }
}

/// The hosts that could take the request, best first.
pub fn candidates(
    inventory: &Inventory,
    request: &Request,
    placed: &[(InstanceId, HostId, Vec<GroupConstraint>)],
) -> Vec<Score> {
    let mut all: Vec<Score> = inventory
        .hosts()
        .filter_map(|h| {
            let need = h.overhead.claim_mib(request.size) as i64;
            let free_cpu = i64::from(h.capacity.vcpus)
                - i64::from(h.used.vcpus)
                - i64::from(h.tentative.vcpus)
                - i64::from(h.recovery_reserved.vcpus)
                - i64::from(h.policies.reserved.vcpus);
            let free = |f: fn(&Size) -> u64| {
                [h.used, h.tentative, h.recovery_reserved, h.policies.reserved]
                    .iter()
                    .fold(f(&h.capacity) as i64, |left, taken| left - f(taken) as i64)
            };
            let enough = free_cpu >= i64::from(request.size.vcpus)
                && free(|s| s.memory_mib) >= need
                && free(|s| s.disk_gib) >= request.size.disk_gib as i64;
            let tags = request.tags.iter().all(|(k, v)| h.tags.get(k) == Some(v))
                && request.forbidden_tags.iter().all(|(k, v)| h.tags.get(k) != Some(v))
                && request.cpu_features.iter().all(|f| h.cpu_features.contains(f));
            let open = h.up() && !h.cordoned && !h.policies.draining && !request.avoid.contains(&h.id);
            let zone = request.zone.as_ref().is_none_or(|z| **z == *h.zone);
            let project = match h.policies.dedicated_to {
                Some(p) => request.project == Some(p),
                None => !request.dedicated,
            };
            if !(enough && tags && open && zone && project) {
                return None;
            }
            let mut violations = 0;
            for constraint in &request.groups {
                if !matches(inventory, constraint, h, placed) {
                    match constraint.strength {
                        GroupStrength::Hard => return None,
                        GroupStrength::Soft => violations += 1,
                    }
                }
            }
            let slot = inventory.slot_of(h.id).expect("known");
            let price = inventory.index.score(slot, request.size).expect("usable hosts are in the index");
            let start_queue = (h.starts_in_progress() / h.threads).min(3) as u8;
            Some(Score { violations, start_queue, packing: price.packing, bucket: price.bucket, host_id: h.id })
        })
        .collect();
    all.sort_unstable();
    all
}
