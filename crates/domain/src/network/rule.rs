//! Security rules. A group allows what one of its rules allows; what no rule of any of a port's groups allows is dropped. Replies
//! to allowed flows always pass.

use super::Cidr;
use crate::SecurityGroupId;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    #[error("the port range {first}-{last} is not from a lower to a higher port between 1 and 65535")]
    Ports { first: u16, last: u16 },
    #[error("the remote {cidr} is not of the rule's address family ({ethertype})")]
    Family { cidr: Cidr, ethertype: &'static str },
    #[error("{protocol} has no ports: give them with tcp, udp or sctp alone")]
    NoPorts { protocol: &'static str },
    #[error("{protocol} has no types: give a type with icmp alone")]
    NoTypes { protocol: &'static str },
    #[error("an ICMP code needs its type")]
    CodeWithoutType,
    #[error("protocol number {number} has a name: write {name}")]
    Named { number: u8, name: &'static str },
}

string_enum! {
    pub enum Direction {
        /// Traffic to the instance.
        Ingress = "ingress",
        /// Traffic from the instance.
        Egress = "egress",
    }
}

string_enum! {
    pub enum Ethertype {
        Ipv4 = "ipv4",
        Ipv6 = "ipv6",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    /// This is ICMP with IPv4 and ICMPv6 with IPv6.
    Icmp,
    /// A protocol by its number in the IP header; those above are always given by name.
    Number(u8),
}

impl Protocol {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Number(_) => "a protocol given by its number",
        }
    }

    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// What a rule matches above the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Every protocol.
    Any,
    Protocol {
        protocol: Protocol,
        /// Destination ports of tcp, udp and sctp; `None` matches all.
        ports: Option<PortRange>,
        /// The type of icmp; `None` matches all.
        icmp_type: Option<u8>,
        icmp_code: Option<u8>,
    },
}

/// The remote end: the source of ingress, the destination of egress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    Any,
    Cidr(Cidr),
    /// The addresses of the ports that are in this group.
    Group(SecurityGroupId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecurityRule {
    pub direction: Direction,
    pub ethertype: Ethertype,
    pub matches: Match,
    pub remote: Remote,
}

impl SecurityRule {
    pub fn validate(&self) -> Result<(), InvalidRule> {
        if let Remote::Cidr(cidr) = self.remote
            && cidr.v4() != (self.ethertype == Ethertype::Ipv4)
        {
            return Err(InvalidRule::Family { cidr, ethertype: self.ethertype.as_str() });
        }
        let Match::Protocol { protocol, ports, icmp_type, icmp_code } = self.matches else { return Ok(()) };
        if let Protocol::Number(number) = protocol
            && let Some(name) = [(1, "icmp"), (6, "tcp"), (17, "udp"), (58, "icmp"), (132, "sctp")]
                .into_iter()
                .find_map(|(n, name)| (n == number).then_some(name))
        {
            return Err(InvalidRule::Named { number, name });
        }
        if let Some(PortRange { first, last }) = ports {
            if !protocol.has_ports() {
                return Err(InvalidRule::NoPorts { protocol: protocol.as_str() });
            }
            if first == 0 || first > last {
                return Err(InvalidRule::Ports { first, last });
            }
        }
        if (icmp_type.is_some() || icmp_code.is_some()) && protocol != Protocol::Icmp {
            return Err(InvalidRule::NoTypes { protocol: protocol.as_str() });
        }
        if icmp_code.is_some() && icmp_type.is_none() {
            return Err(InvalidRule::CodeWithoutType);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matches: Match, remote: Remote) -> SecurityRule {
        SecurityRule { direction: Direction::Ingress, ethertype: Ethertype::Ipv4, matches, remote }
    }

    fn protocol(protocol: Protocol, ports: Option<(u16, u16)>, icmp_type: Option<u8>, icmp_code: Option<u8>) -> Match {
        let ports = ports.map(|(first, last)| PortRange { first, last });
        Match::Protocol { protocol, ports, icmp_type, icmp_code }
    }

    #[test]
    fn sense_passes_and_nonsense_is_named() {
        let v6 = "fd00::/64".parse().expect("cidr");
        let good = [
            rule(Match::Any, Remote::Any),
            rule(protocol(Protocol::Tcp, Some((22, 22)), None, None), Remote::Cidr(Cidr::ANY_V4)),
            rule(protocol(Protocol::Icmp, None, Some(8), Some(0)), Remote::Group(SecurityGroupId::new())),
            rule(protocol(Protocol::Number(47), None, None, None), Remote::Any),
        ];
        for rule in good {
            assert_eq!(rule.validate(), Ok(()));
        }
        let bad = [
            (rule(Match::Any, Remote::Cidr(v6)), "not of the rule's address family"),
            (rule(protocol(Protocol::Tcp, Some((30, 20)), None, None), Remote::Any), "30-20"),
            (rule(protocol(Protocol::Tcp, Some((0, 20)), None, None), Remote::Any), "0-20"),
            (rule(protocol(Protocol::Icmp, Some((1, 2)), None, None), Remote::Any), "no ports"),
            (rule(protocol(Protocol::Udp, None, Some(8), None), Remote::Any), "no types"),
            (rule(protocol(Protocol::Icmp, None, None, Some(1)), Remote::Any), "needs its type"),
            (rule(protocol(Protocol::Number(6), None, None, None), Remote::Any), "write tcp"),
        ];
        for (rule, says) in bad {
            let error = rule.validate().expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
