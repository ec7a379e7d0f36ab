//! How the hosts that could take a request are ranked. The smallest score wins; the order of the fields is the policy.

use domain::HostId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// How many soft constraints of placement groups the host doesn't meet.
    pub violations: u32,
    /// Starts in progress per hardware thread, rounded down: packing a burst onto one host would make every one of them slow, so
    /// a host with all threads busy starting others comes after one that isn't.
    pub start_queue: u8,
    /// The packing price ([`super::grid`]).
    pub packing: i32,
    /// Among equal prices, the host with less free capacity comes first.
    pub bucket: u16,
    /// Makes the decision the same, whatever the order in which hosts are examined.
    pub host_id: HostId,
}
