//! Which of the hosts that could is the best. The smallest score wins; the order of the fields is the policy.

use super::inventory::HostEntry;
use domain::{HostId, flavor::Size};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Starts in progress per hardware thread, rounded down: packing a burst onto one host would make every one of them slow, so
    /// a host with all threads busy starting others comes after one that isn't.
    pub start_queue: u32,
    /// The scarcest resource's share left after the claim, in thousandths. Less is better: best fit keeps large holes for large
    /// instances.
    pub left_permille: u32,
    /// The same decision whatever the order in which hosts are looked at.
    pub host_id: HostId,
}

#[must_use]
pub fn score(host: &HostEntry, claim: Size) -> Score {
    let left = left_after(host, claim);
    let share = |left: u64, of: u64| {
        let permille = left.saturating_mul(1000).checked_div(of).unwrap_or(1000);
        u32::try_from(permille).unwrap_or(1000)
    };
    let left_permille = share(u64::from(left.vcpus), u64::from(host.capacity.vcpus))
        .min(share(left.memory_mib, host.capacity.memory_mib))
        .min(share(left.disk_gib, host.capacity.disk_gib));
    Score { start_queue: host.starts_in_progress() / host.threads, left_permille, host_id: host.id }
}

#[must_use]
pub fn left_after(host: &HostEntry, claim: Size) -> Size {
    super::inventory::minus(host.free(), claim)
}
