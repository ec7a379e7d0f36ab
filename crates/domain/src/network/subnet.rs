//! The rules for a subnet, by itself and together with the other subnets of its network.

use super::{Cidr, IpRange};
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Bytes that VXLAN adds to a packet: outer Ethernet of the inner frame, IP, UDP, VXLAN.
pub const VXLAN_OVERHEAD_V4: u32 = 50;
pub const VXLAN_OVERHEAD_V6: u32 = 70;
/// IPv6 requires an MTU of 1280 on every link.
pub const MTU_MIN: u32 = 1280;
pub const MTU_MAX: u32 = 9216;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubnet {
    #[error("{cidr} can't be used for a subnet: {why}")]
    Reserved { cidr: Cidr, why: &'static str },
    #[error("{cidr} is too small: an IPv4 subnet is at least a /29, an IPv6 subnet at least a /112")]
    TooSmall { cidr: Cidr },
    #[error("{cidr} is too large: an IPv4 subnet is at most a /8, an IPv6 subnet at most a /32")]
    TooLarge { cidr: Cidr },
    #[error("the gateway {gateway} is not an address of {cidr} that a host can have")]
    Gateway { gateway: IpAddr, cidr: Cidr },
    #[error("the allocation range {range} is not inside {cidr}")]
    RangeOutside { range: IpRange, cidr: Cidr },
    #[error("the allocation ranges {one} and {two} overlap")]
    RangesOverlap { one: IpRange, two: IpRange },
    #[error("the next hop {next_hop} of the host route to {destination} is not an address of {cidr}")]
    NextHop { destination: Cidr, next_hop: IpAddr, cidr: Cidr },
    #[error("{cidr} overlaps {other}, which the network already has")]
    Overlaps { cidr: Cidr, other: Cidr },
}

/// A route that is announced to guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostRoute {
    pub destination: Cidr,
    pub next_hop: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetSpec {
    pub cidr: Cidr,
    pub gateway: IpAddr,
    pub dns: Vec<IpAddr>,
    /// The ranges from which addresses are allocated when none is requested; an empty list means the whole subnet.
    pub allocation: Vec<IpRange>,
    pub host_routes: Vec<HostRoute>,
}

impl SubnetSpec {
    /// Checks the subnet by itself and against the network's other subnets.
    pub fn validate(&self, siblings: &[Cidr]) -> Result<(), InvalidSubnet> {
        let cidr = self.cidr;
        let (min, max) = if cidr.v4() { (8, 29) } else { (32, 112) };
        if let Some(why) = reserved(cidr) {
            return Err(InvalidSubnet::Reserved { cidr, why });
        }
        if cidr.prefix() > max {
            return Err(InvalidSubnet::TooSmall { cidr });
        }
        if cidr.prefix() < min {
            return Err(InvalidSubnet::TooLarge { cidr });
        }
        if !usable(cidr, self.gateway) {
            return Err(InvalidSubnet::Gateway { gateway: self.gateway, cidr });
        }
        for (at, range) in self.allocation.iter().enumerate() {
            if !range.within(cidr) {
                return Err(InvalidSubnet::RangeOutside { range: *range, cidr });
            }
            if let Some(two) = self.allocation[at + 1..].iter().find(|two| range.overlaps(**two)) {
                return Err(InvalidSubnet::RangesOverlap { one: *range, two: *two });
            }
        }
        for HostRoute { destination, next_hop } in self.host_routes.iter().copied() {
            if destination.v4() != cidr.v4() || !cidr.contains(next_hop) {
                return Err(InvalidSubnet::NextHop { destination, next_hop, cidr });
            }
        }
        match siblings.iter().find(|other| other.overlaps(cidr)) {
            Some(other) => Err(InvalidSubnet::Overlaps { cidr, other: *other }),
            None => Ok(()),
        }
    }
}

/// Whether a host can have the address: it is inside, and neither IPv4's network or broadcast address nor IPv6's subnet-router anycast.
fn usable(cidr: Cidr, addr: IpAddr) -> bool {
    cidr.contains(addr) && addr != cidr.addr() && !(cidr.v4() && addr == cidr.last())
}

fn reserved(cidr: Cidr) -> Option<&'static str> {
    let inside = |text: &str| text.parse::<Cidr>().is_ok_and(|block| block.overlaps(cidr));
    [
        ("0.0.0.0/8", "0.0.0.0/8 means `this network`"),
        ("127.0.0.0/8", "127.0.0.0/8 is every host's own"),
        ("169.254.0.0/16", "169.254.0.0/16 is link-local, and the metadata service's"),
        ("224.0.0.0/3", "from 224.0.0.0 on there is multicast and what is reserved"),
        ("fe80::/10", "fe80::/10 is link-local"),
        ("ff00::/8", "ff00::/8 is multicast"),
        ("::/8", "::/8 is reserved"),
    ]
    .into_iter()
    .find_map(|(block, why)| inside(block).then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(cidr: &str, gateway: &str) -> SubnetSpec {
        SubnetSpec {
            cidr: cidr.parse().expect("cidr"),
            gateway: gateway.parse().expect("gateway"),
            dns: vec![],
            allocation: vec![],
            host_routes: vec![],
        }
    }

    #[test]
    fn good_subnets_pass_and_each_fault_is_named() {
        let others: Vec<Cidr> = vec!["10.9.0.0/16".parse().expect("cidr")];
        assert_eq!(subnet("10.0.0.0/24", "10.0.0.1").validate(&others), Ok(()));
        assert_eq!(subnet("fd00::/64", "fd00::1").validate(&others), Ok(()));
        let with_ranges = |ranges: &[&str]| SubnetSpec {
            allocation: ranges.iter().map(|r| r.parse().expect("range")).collect(),
            ..subnet("10.0.0.0/24", "10.0.0.1")
        };
        let route = HostRoute { destination: Cidr::ANY_V4, next_hop: "10.1.0.1".parse().expect("ip") };
        let bad = [
            (subnet("169.254.0.0/24", "169.254.0.1"), "metadata"),
            (subnet("10.0.0.0/30", "10.0.0.1"), "too small"),
            (subnet("10.0.0.0/7", "10.0.0.1"), "too large"),
            (subnet("10.0.0.0/24", "10.0.1.1"), "gateway"),
            (subnet("10.0.0.0/24", "10.0.0.255"), "gateway"),
            (subnet("10.0.0.0/24", "fd00::1"), "gateway"),
            (with_ranges(&["10.0.0.5-10.0.1.5"]), "not inside"),
            (with_ranges(&["10.0.0.5-10.0.0.9", "10.0.0.9-10.0.0.20"]), "overlap"),
            (SubnetSpec { host_routes: vec![route], ..subnet("10.0.0.0/24", "10.0.0.1") }, "host route"),
            (subnet("10.9.3.0/24", "10.9.3.1"), "already has"),
        ];
        for (spec, says) in bad {
            let error = spec.validate(&others).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
