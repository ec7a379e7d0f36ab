//! The addresses of one subnet. See the module above for the argument.

use domain::{
    SubnetId, Timestamp,
    network::{Cidr, SubnetSpec},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Why an address can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The address is in none of the blocks.
    Outside,
    Gateway,
    /// IPv4's network or broadcast address, IPv6's subnet-router anycast.
    NotForHosts,
    Taken,
    Quarantined {
        until: Timestamp,
    },
    /// None is free.
    Full {
        /// When the first that is quarantined comes free.
        next: Option<Timestamp>,
    },
}

/// What an address that isn't free is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Taken until the commit's outcome.
    Claimed,
    Held,
    Quarantined(Timestamp),
}

#[derive(Debug)]
pub struct Pool {
    cidr: Cidr,
    subnet_id: Option<SubnetId>,
    gateway: IpAddr,
    /// Where any address is taken from: ascending, disjoint, without what no host can have and without the gateway.
    ranges: Vec<(u128, u128)>,
    /// First → last; disjoint, never adjacent, within the ranges.
    free: BTreeMap<u128, u128>,
    used: HashMap<u128, Use>,
    /// They are sorted by the end of their quarantine.
    quarantined: BTreeSet<(Timestamp, u128)>,
    cursor: u128,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The ranges of `spec` that any address is taken from.
fn ranges(spec: &SubnetSpec) -> Vec<(u128, u128)> {
    let cidr = spec.cidr;
    let first = number(cidr.addr()) + 1;
    let last = number(cidr.last()) - u128::from(cidr.v4());
    let mut parts: Vec<(u128, u128)> = spec
        .allocation
        .iter()
        .map(|range| (number(range.first()).max(first), number(range.last()).min(last)))
        .filter(|(from, to)| from <= to)
        .collect();
    if spec.allocation.is_empty() {
        parts.push((first, last));
    }
    parts.sort_unstable();
    let gateway = number(spec.gateway);
    parts
        .into_iter()
        .flat_map(|(from, to)| {
            if (from..=to).contains(&gateway) {
                let below = (from < gateway).then(|| (from, gateway - 1));
                let above = (gateway < to).then(|| (gateway + 1, to));
                [below, above]
            } else {
                [Some((from, to)), None]
            }
        })
        .flatten()
        .collect()
}

impl Pool {
    #[must_use]
    pub fn new(subnet_id: Option<SubnetId>, spec: &SubnetSpec) -> Self {
        let mut pool = Self {
            cidr: spec.cidr,
            subnet_id,
            gateway: spec.gateway,
            ranges: Vec::new(),
            free: BTreeMap::new(),
            used: HashMap::new(),
            quarantined: BTreeSet::new(),
            cursor: 0,
        };
        pool.reshape(spec);
        pool
    }

    /// Gives the pool other ranges; what is used stays used, wherever it is.
    pub fn reshape(&mut self, spec: &SubnetSpec) {
        self.gateway = spec.gateway;
        self.ranges = ranges(spec);
        self.free.clear();
        // Adjacent ranges are one interval.
        for (from, to) in self.ranges.clone() {
            let joined = self.free.last_entry().filter(|last| last.get().checked_add(1) == Some(from));
            match joined {
                Some(mut last) => *last.get_mut() = to,
                None => {
                    self.free.insert(from, to);
                }
            }
        }
        let used: Vec<u128> = self.used.keys().copied().collect();
        for at in used {
            self.carve(at);
        }
    }

    #[must_use]
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    #[must_use]
    pub fn subnet_id(&self) -> Option<SubnetId> {
        self.subnet_id
    }

    fn address(&self, at: u128) -> IpAddr {
        if self.cidr.v4() {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(at).unwrap_or(u32::MAX)))
        } else {
            IpAddr::V6(Ipv6Addr::from(at))
        }
    }

    #[must_use]
    pub fn used(&self, address: IpAddr) -> Option<Use> {
        self.used.get(&number(address)).copied()
    }

    pub fn held(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.used.iter().filter(|(_, used)| **used == Use::Held).map(|(at, _)| self.address(*at))
    }

    /// Addresses that could be taken now.
    #[must_use]
    pub fn free(&self) -> u128 {
        self.free.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Addresses whose quarantine has ended are free.
    fn end_quarantines(&mut self, now: Timestamp) {
        while let Some((until, at)) = self.quarantined.first().copied()
            && until <= now
        {
            self.set_number(at, None);
        }
    }

    pub(super) fn claim_any(&mut self, now: Timestamp) -> Result<IpAddr, Refusal> {
        self.end_quarantines(now);
        let around = self.free.range(..=self.cursor).next_back().filter(|(_, last)| **last >= self.cursor);
        let next = around.map(|_| self.cursor);
        let next = next.or_else(|| self.free.range(self.cursor..).next().map(|(first, _)| *first));
        let next = next.or_else(|| self.free.first_key_value().map(|(first, _)| *first));
        let at = next.ok_or_else(|| Refusal::Full { next: self.quarantined.first().map(|(until, _)| *until) })?;
        self.cursor = at.saturating_add(1);
        self.set_number(at, Some(Use::Claimed));
        Ok(self.address(at))
    }

    pub(super) fn claim(&mut self, address: IpAddr, now: Timestamp) -> Result<(), Refusal> {
        self.end_quarantines(now);
        if !self.cidr.contains(address) {
            return Err(Refusal::Outside);
        }
        if address == self.gateway {
            return Err(Refusal::Gateway);
        }
        if address == self.cidr.addr() || (self.cidr.v4() && address == self.cidr.last()) {
            return Err(Refusal::NotForHosts);
        }
        match self.used(address) {
            Some(Use::Claimed | Use::Held) => Err(Refusal::Taken),
            Some(Use::Quarantined(until)) => Err(Refusal::Quarantined { until }),
            None => {
                self.set_number(number(address), Some(Use::Claimed));
                Ok(())
            }
        }
    }

    pub(super) fn set(&mut self, address: IpAddr, used: Option<Use>) {
        if self.cidr.contains(address) {
            self.set_number(number(address), used);
        }
    }

    fn set_number(&mut self, at: u128, used: Option<Use>) {
        let was = match used {
            Some(used) => self.used.insert(at, used),
            None => self.used.remove(&at),
        };
        if let Some(Use::Quarantined(until)) = was {
            self.quarantined.remove(&(until, at));
        }
        if let Some(Use::Quarantined(until)) = used {
            self.quarantined.insert((until, at));
        }
        match (was, used) {
            (None, Some(_)) => self.carve(at),
            (Some(_), None) => self.join(at),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Takes one address out of the free intervals, if it is in one.
    fn carve(&mut self, at: u128) {
        let Some((first, last)) = self.free.range(..=at).next_back().map(|(first, last)| (*first, *last)) else {
            return;
        };
        if last < at {
            return;
        }
        self.free.remove(&first);
        if first < at {
            self.free.insert(first, at - 1);
        }
        if at < last {
            self.free.insert(at + 1, last);
        }
    }

    /// Puts one address back among the free ones, if it is of a range.
    fn join(&mut self, at: u128) {
        let of_a_range = self.ranges.partition_point(|(from, _)| *from <= at).checked_sub(1);
        if of_a_range.is_none_or(|i| self.ranges[i].1 < at) {
            return;
        }
        let mut last = at;
        if let Some(after) = at.checked_add(1)
            && let Some(end) = self.free.remove(&after)
        {
            last = end;
        }
        match self.free.range_mut(..at).next_back() {
            Some((_, end)) if end.checked_add(1) == Some(at) => *end = last,
            _ => {
                self.free.insert(at, last);
            }
        }
    }

    /// Every invariant that its maps must keep.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut before: Option<u128> = None;
        for (first, last) in &self.free {
            assert!(first <= last);
            assert!(before.is_none_or(|end| end + 1 < *first), "intervals are disjoint and never adjacent");
            assert!(self.used.keys().all(|at| !(first..=last).contains(&at)), "what is used isn't free");
            before = Some(*last);
        }
        let quarantined = self.used.iter().filter(|(_, used)| matches!(used, Use::Quarantined(_))).count();
        assert_eq!(quarantined, self.quarantined.len());
    }
}
