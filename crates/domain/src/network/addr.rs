//! Addresses as types: a CIDR whose host bits are zero, a range whose ends are ordered, a MAC of one station, a VNI
//! that VXLAN can carry. Own types instead of a crate's, because their text is our API and their errors go to people.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A text that a person wrote isn't an address of the expected form; the message says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    #[error("`{text}` is not a CIDR (an address, `/` and a prefix length, such as 10.0.0.0/24 or fd00::/64)")]
    Cidr { text: String },
    #[error("the prefix of `{text}` is too long: IPv4 has at most /32, IPv6 /128")]
    Prefix { text: String },
    #[error("`{text}` has bits set after its prefix; did you mean `{meant}`?")]
    HostBits { text: String, meant: Cidr },
    #[error("`{text}` is not a MAC address (six pairs of hexadecimal digits, such as 02:00:5e:10:00:01)")]
    Mac { text: String },
    #[error("the MAC address {mac} is a multicast or an empty address: a port needs a unicast address")]
    MacNotUnicast { mac: MacAddr },
    #[error("`{text}` is not a range of addresses (FIRST-LAST, both of one family, the first not above the last)")]
    Range { text: String },
    #[error("{vni} is not a VNI: it is from 1 to 16777215")]
    Vni { vni: u32 },
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

/// A 24-bit VXLAN network identifier, not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Vni(u32);

impl Vni {
    pub const MAX: u32 = (1 << 24) - 1;

    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = InvalidAddress;

    fn try_from(vni: u32) -> Result<Self, InvalidAddress> {
        if (1..=Self::MAX).contains(&vni) { Ok(Self(vni)) } else { Err(InvalidAddress::Vni { vni }) }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> Self {
        vni.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// A locally administered unicast address from 40 bits of entropy: the first octet is 02.
    #[must_use]
    pub fn local(bits: [u8; 5]) -> Self {
        let [a, b, c, d, e] = bits;
        Self([0x02, a, b, c, d, e])
    }

    /// The address of a network's gateway: the same on every host, so that an instance that moves needs no new neighbour. No port has such an
    /// address.
    #[must_use]
    pub fn gateway(vni: Vni) -> Self {
        let [_, a, b, c] = vni.get().to_be_bytes();
        Self([0x02, 0x00, 0x00, a, b, c])
    }

    /// An address for a port or an uplink, from 39 bits of entropy; it is never a gateway's.
    #[must_use]
    pub fn port(bits: [u8; 5]) -> Self {
        let [a, b, c, d, e] = bits;
        Self([0x02, a | 0x80, b, c, d, e])
    }

    /// Accepts a single station's address: neither a group's (the lowest bit of the first octet) nor all zeros.
    pub fn unicast(self) -> Result<Self, InvalidAddress> {
        if self.0[0] & 1 == 1 || self.0 == [0; 6] { Err(InvalidAddress::MacNotUnicast { mac: self }) } else { Ok(self) }
    }

    /// The link-local address that SLAAC makes of it (modified EUI-64, RFC 4291 appendix A).
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0.map(u16::from);
        Ipv6Addr::new(0xfe80, 0, 0, 0, ((a ^ 2) << 8) | b, (c << 8) | 0xff, 0xfe00 | d, (e << 8) | f)
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let wrong = || InvalidAddress::Mac { text: shorten(text) };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

/// A block of addresses; the bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

impl Cidr {
    pub const ANY_V4: Self = Self { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };
    pub const ANY_V6: Self = Self { addr: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 };

    /// The block of `prefix` bits that `addr` lies in. Prefixes beyond the family's length are cut to it.
    #[must_use]
    pub fn around(addr: IpAddr, prefix: u8) -> Self {
        let prefix = prefix.min(width(addr));
        Self { addr: from_bits(addr, bits(addr) & mask(addr, prefix)), prefix }
    }

    /// The block of one address.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, prefix: width(addr) }
    }

    #[must_use]
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    #[must_use]
    pub fn v4(self) -> bool {
        self.addr.is_ipv4()
    }

    #[must_use]
    pub fn last(self) -> IpAddr {
        from_bits(self.addr, bits(self.addr) | !mask(self.addr, self.prefix) & full(self.addr))
    }

    #[must_use]
    pub fn contains(self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.v4() && bits(addr) & mask(addr, self.prefix) == bits(self.addr)
    }

    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.addr)
    }

    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The IPv4 netmask; all ones for IPv6, which has none.
    #[must_use]
    pub fn netmask_v4(self) -> Ipv4Addr {
        let prefix = u32::from(self.prefix.min(32));
        Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0))
    }
}

fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn full(addr: IpAddr) -> u128 {
    if addr.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX }
}

fn mask(addr: IpAddr, prefix: u8) -> u128 {
    let shift = u32::from(width(addr) - prefix.min(width(addr)));
    full(addr).checked_shl(shift).unwrap_or(0) & full(addr)
}

/// The address with these bits, of the same family as `like`.
fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    if like.is_ipv4() { IpAddr::V4(Ipv4Addr::from(bits as u32)) } else { IpAddr::V6(Ipv6Addr::from(bits)) }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let wrong = || InvalidAddress::Cidr { text: shorten(text) };
        let (addr, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let digits = !prefix.is_empty() && prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u16 = if digits { prefix.parse().map_err(|_| wrong())? } else { return Err(wrong()) };
        let prefix = u8::try_from(prefix).ok().filter(|p| *p <= width(addr));
        let prefix = prefix.ok_or_else(|| InvalidAddress::Prefix { text: shorten(text) })?;
        let cidr = Self::around(addr, prefix);
        if cidr.addr == addr { Ok(cidr) } else { Err(InvalidAddress::HostBits { text: shorten(text), meant: cidr }) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

/// Addresses from `first` to `last`, both included and of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpRange {
    first: IpAddr,
    last: IpAddr,
}

impl IpRange {
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, InvalidAddress> {
        if first.is_ipv4() == last.is_ipv4() && first <= last {
            Ok(Self { first, last })
        } else {
            Err(InvalidAddress::Range { text: format!("{first}-{last}") })
        }
    }

    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    #[must_use]
    pub fn last(self) -> IpAddr {
        self.last
    }

    #[must_use]
    pub fn contains(self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&addr)
    }

    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    #[must_use]
    pub fn within(self, cidr: Cidr) -> bool {
        cidr.contains(self.first) && cidr.contains(self.last)
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for IpRange {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let wrong = || InvalidAddress::Range { text: shorten(text) };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        Self::new(first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?).map_err(|_| wrong())
    }
}

impl TryFrom<String> for IpRange {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<IpRange> for String {
    fn from(range: IpRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cidrs_parse_or_say_what_is_wrong() {
        for good in ["10.0.0.0/24", "0.0.0.0/0", "10.1.2.3/32", "fd00::/64", "::/0", "::1/128"] {
            assert_eq!(good.parse::<Cidr>().expect(good).to_string(), good);
        }
        for bad in ["", "10.0.0.0", "10.0.0/24", "10.0.0.0/", "10.0.0.0/+8", "x/8", "10.0.0.0/24/2"] {
            assert!(matches!(bad.parse::<Cidr>(), Err(InvalidAddress::Cidr { .. })), "{bad}");
        }
        assert!(matches!("10.0.0.0/33".parse::<Cidr>(), Err(InvalidAddress::Prefix { .. })));
        assert!(matches!("fd00::/300".parse::<Cidr>(), Err(InvalidAddress::Prefix { .. })));
        let error = "10.0.0.7/24".parse::<Cidr>().expect_err("host bits");
        assert_eq!(error.to_string(), "`10.0.0.7/24` has bits set after its prefix; did you mean `10.0.0.0/24`?");
    }

    #[test]
    fn macs_parse_and_make_link_local_addresses() {
        let mac: MacAddr = "02:00:5E:10:00:01".parse().expect("mac");
        assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
        assert_eq!(mac.link_local().to_string(), "fe80::5eff:fe10:1");
        for bad in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "2:0:5e:10:0:1", "02-00-5e-10-00-01", "0g:00:00:00:00:00"]
        {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
        assert!("ff:ff:ff:ff:ff:ff".parse::<MacAddr>().expect("mac").unicast().is_err());
    }

    #[test]
    fn vnis_and_ranges_keep_their_bounds() {
        assert!(Vni::try_from(0).is_err() && Vni::try_from(1 << 24).is_err() && Vni::try_from(Vni::MAX).is_ok());
        let range: IpRange = "10.0.0.10-10.0.0.20".parse().expect("range");
        assert!(range.contains("10.0.0.20".parse().expect("ip")) && !range.contains("10.0.0.21".parse().expect("ip")));
        assert!("10.0.0.20-10.0.0.10".parse::<IpRange>().is_err() && "10.0.0.1-fd00::1".parse::<IpRange>().is_err());
    }

    proptest! {
        #[test]
        fn a_block_holds_its_ends_and_overlap_is_symmetric(a in any::<u32>(), p in 0u8..=32, b in any::<u32>(), q in 0u8..=32) {
            let one = Cidr::around(IpAddr::V4(a.into()), p);
            let two = Cidr::around(IpAddr::V4(b.into()), q);
            prop_assert!(one.contains(one.addr()) && one.contains(one.last()) && one.contains(IpAddr::V4(a.into())));
            prop_assert_eq!(one.overlaps(two), two.overlaps(one));
            prop_assert_eq!(one.overlaps(two), one.addr() <= two.last() && two.addr() <= one.last());
            prop_assert_eq!(one.to_string().parse::<Cidr>().expect("round trip"), one);
        }
    }
}
