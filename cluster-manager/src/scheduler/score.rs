//! Which of the hosts that could is the best. The smallest score wins; the order of the fields is the policy.

use domain::HostId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Soft wishes of placement groups that the host doesn't meet.
    pub violations: u32,
    /// Starts in progress per hardware thread, rounded down: packing a burst onto one host would make every one of them slow, so
    /// a host with all threads busy starting others comes after one that isn't.
    pub start_queue: u8,
    /// The packing price ([`super::grid`]).
    pub packing: i32,
    /// Of equal price, the host with less room.
    pub bucket: u16,
    /// The same decision whatever the order in which hosts are looked at.
    pub host_id: HostId,
}
