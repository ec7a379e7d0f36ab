//! The addresses that no instance may reach by an external network: the hosts' and the managers' own.
//!
//! Every host must know those of every other host, and a host that joins must not make the manager send all of them to all hosts again. One
//! object per host was rejected: with ten thousand hosts each agent would hold, and say at each Hello, ten thousand of them. So the hosts are
//! spread over a fixed number of parts by their ids. A host that joins changes one part, which is a few kilobytes in the largest fleet.

use super::Cidr;
use crate::HostId;
use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

/// Over how many parts the hosts are spread.
pub const PROTECTED_PARTS: u8 = 64;
/// Addresses that one host may have protected besides its underlay address. A host that was taken over could name any: these are as many
/// addresses as it can keep instances of other hosts from reaching.
pub const PROTECTED_ADDRESSES_PER_HOST: usize = 64;

/// A part of the protected addresses, which is sent as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProtectedPart {
    /// The managers' addresses, and the blocks of the manager's configuration.
    Managers,
    /// Those of the hosts whose ids fall into it.
    Hosts(u8),
}

impl ProtectedPart {
    #[must_use]
    pub fn of_host(host_id: HostId) -> Self {
        // The bytes of an id that are drawn at random: its first ones are the time.
        let bytes = host_id.0.as_bytes();
        Self::Hosts(bytes[15] % PROTECTED_PARTS)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::Managers).chain((0..PROTECTED_PARTS).map(Self::Hosts))
    }
}

impl fmt::Display for ProtectedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Managers => f.write_str("managers"),
            Self::Hosts(part) => write!(f, "hosts-{part}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no part of the protected addresses")]
pub struct InvalidProtectedPart {
    text: String,
}

impl FromStr for ProtectedPart {
    type Err = InvalidProtectedPart;

    fn from_str(text: &str) -> Result<Self, InvalidProtectedPart> {
        let invalid = || InvalidProtectedPart { text: text.chars().take(64).collect() };
        if text == "managers" {
            return Ok(Self::Managers);
        }
        let part = text.strip_prefix("hosts-").and_then(|part| part.parse().ok());
        part.filter(|part| *part < PROTECTED_PARTS).map(Self::Hosts).ok_or_else(invalid)
    }
}

/// Whether it makes sense to protect an address for the whole fleet: what every machine has (loopback, link-local addresses) and what
/// belongs to no machine (multicast) says nothing about one host.
#[must_use]
pub fn can_be_protected(addr: IpAddr) -> bool {
    let link_local = match addr {
        IpAddr::V4(addr) => addr.is_link_local() || addr.is_broadcast(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    !(addr.is_loopback() || addr.is_unspecified() || addr.is_multicast() || link_local)
}

/// The same addresses in as few blocks as possible, none of which overlap: the hosts of a fleet mostly have neighbouring addresses.
#[must_use]
pub fn merge_blocks(blocks: impl IntoIterator<Item = Cidr>) -> BTreeSet<Cidr> {
    // The shorter prefix of two that begin at one address comes first, so that a block always comes after those that cover it.
    let sorted: BTreeSet<Cidr> = blocks.into_iter().collect();
    let mut merged: Vec<Cidr> = Vec::with_capacity(sorted.len());
    for block in sorted {
        if merged.last().is_some_and(|last| last.covers(block)) {
            continue;
        }
        let mut block = block;
        // Two halves of a block become that block, which may be a half again.
        while let Some(last) = merged.last().copied()
            && let Some(both) = parent(block).filter(|both| last.prefix() == block.prefix() && both.covers(last))
        {
            merged.pop();
            block = both;
        }
        merged.push(block);
    }
    merged.into_iter().collect()
}

/// The block that is twice as large; none for a block of everything.
fn parent(block: Cidr) -> Option<Cidr> {
    Some(Cidr::around(block.addr(), block.prefix().checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_part_is_read_as_it_is_written_and_nothing_else_is_one() {
        for part in ProtectedPart::all() {
            assert_eq!(part.to_string().parse(), Ok(part));
        }
        for text in ["", "hosts-", "hosts-64", "hosts--1", "hosts-300", "manager"] {
            assert!(text.parse::<ProtectedPart>().is_err(), "{text}");
        }
        let used: BTreeSet<ProtectedPart> = (0..2000).map(|_| ProtectedPart::of_host(HostId::new())).collect();
        assert_eq!(used.len(), usize::from(PROTECTED_PARTS), "hosts spread over all parts");
    }

    #[test]
    fn what_every_machine_has_is_not_protected() {
        for text in
            ["127.0.0.1", "::1", "0.0.0.0", "::", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1", "255.255.255.255"]
        {
            assert!(!can_be_protected(text.parse().expect("an address")), "{text}");
        }
        for text in ["10.0.0.1", "192.0.2.1", "fd00::1", "2001:db8::1"] {
            assert!(can_be_protected(text.parse().expect("an address")), "{text}");
        }
    }

    #[test]
    fn neighbouring_addresses_become_few_blocks() {
        let block = |text: &str| text.parse::<Cidr>().expect("a block");
        let hosts = (0..10_000u32).map(|n| Cidr::host(IpAddr::from((0x0a00_0000 + n).to_be_bytes())));
        assert!(merge_blocks(hosts).len() <= 6);
        let some =
            ["10.0.0.0/9", "10.128.0.0/9", "10.1.2.3/32", "192.0.2.1/32", "192.0.2.2/32", "fd00::/64", "fd00::1/128"];
        assert_eq!(
            merge_blocks(some.map(block)),
            BTreeSet::from(["10.0.0.0/8", "192.0.2.1/32", "192.0.2.2/32", "fd00::/64"].map(block))
        );
        assert_eq!(merge_blocks(["0.0.0.0/1", "128.0.0.0/1"].map(block)), BTreeSet::from([Cidr::ANY_V4]));
    }

    proptest! {
        #[test]
        fn merged_blocks_hold_the_same_addresses_and_do_not_overlap(
            blocks in proptest::collection::vec((any::<u8>(), 24u8..=32), 0..40)
        ) {
            let blocks: Vec<Cidr> =
                blocks.into_iter().map(|(last, prefix)| Cidr::around([192, 0, 2, last].into(), prefix)).collect();
            let merged = merge_blocks(blocks.iter().copied());
            for last in 0..=255u8 {
                let addr = IpAddr::from([192, 0, 2, last]);
                let before = blocks.iter().any(|block| block.contains(addr));
                prop_assert_eq!(merged.iter().filter(|block| block.contains(addr)).count(), usize::from(before));
            }
        }
    }
}
