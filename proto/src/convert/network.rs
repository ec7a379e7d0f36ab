//! Security rules on the wire, in both directions; the other objects of a network travel as they are declared, and are parsed by
//! whoever acts on them.

use super::{InvalidMessage, parse, unknown};
use crate::network::v1 as pb;
use domain::network::{Direction, Ethertype, Match, PortRange, Protocol, Remote, SecurityRule};

fn narrow<T: TryFrom<u32>>(field: &'static str, value: u32) -> Result<T, InvalidMessage> {
    T::try_from(value).map_err(|_| unknown(field, value))
}

/// Protocols by their number in the IP header; ICMP is 1 with both families.
#[must_use]
pub fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Icmp => 1,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
        Protocol::Number(number) => number,
    }
}

#[must_use]
pub fn protocol_of(number: u8) -> Protocol {
    match number {
        1 | 58 => Protocol::Icmp,
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        number => Protocol::Number(number),
    }
}

#[must_use]
pub fn rule_to_pb(id: &str, rule: &SecurityRule) -> pb::SecurityRule {
    let mut out = pb::SecurityRule {
        id: id.to_owned(),
        direction: rule.direction.as_str().to_owned(),
        ethertype: rule.ethertype.as_str().to_owned(),
        remote: match rule.remote {
            Remote::Any => None,
            Remote::Cidr(cidr) => Some(pb::security_rule::Remote::RemoteCidr(cidr.to_string())),
            Remote::Group(id) => Some(pb::security_rule::Remote::RemoteGroupId(id.to_string())),
        },
        ..Default::default()
    };
    if let Match::Protocol { protocol, ports, icmp_type, icmp_code } = rule.matches {
        out.protocol = Some(protocol_number(protocol).into());
        out.port_first = ports.map(|p| p.first.into());
        out.port_last = ports.map(|p| p.last.into());
        out.icmp_type = icmp_type.map(u32::from);
        out.icmp_code = icmp_code.map(u32::from);
    }
    out
}

/// Parsed and valid.
pub fn rule_from_pb(rule: &pb::SecurityRule) -> Result<SecurityRule, InvalidMessage> {
    let matches = match rule.protocol {
        None => Match::Any,
        Some(number) => Match::Protocol {
            protocol: protocol_of(narrow("rule.protocol", number)?),
            ports: match (rule.port_first, rule.port_last) {
                (None, None) => None,
                (Some(first), last) => Some(PortRange {
                    first: narrow("rule.port_first", first)?,
                    last: narrow("rule.port_last", last.unwrap_or(first))?,
                }),
                (None, Some(last)) => return Err(unknown("rule.port_last", last)),
            },
            icmp_type: rule.icmp_type.map(|t| narrow("rule.icmp_type", t)).transpose()?,
            icmp_code: rule.icmp_code.map(|c| narrow("rule.icmp_code", c)).transpose()?,
        },
    };
    let parsed = SecurityRule {
        direction: Direction::parse(&rule.direction).ok_or_else(|| unknown("rule.direction", &rule.direction))?,
        ethertype: Ethertype::parse(&rule.ethertype).ok_or_else(|| unknown("rule.ethertype", &rule.ethertype))?,
        matches,
        remote: match &rule.remote {
            None => Remote::Any,
            Some(pb::security_rule::Remote::RemoteCidr(cidr)) => Remote::Cidr(parse("rule.remote_cidr", cidr)?),
            Some(pb::security_rule::Remote::RemoteGroupId(id)) => Remote::Group(parse("rule.remote_group_id", id)?),
        },
    };
    parsed.validate().map_err(|e| InvalidMessage { field: "rule", detail: e.to_string() })?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_survive_the_wire_and_nonsense_does_not() {
        let ports = Some(PortRange { first: 80, last: 90 });
        let tcp = Match::Protocol { protocol: Protocol::Tcp, ports, icmp_type: None, icmp_code: None };
        let ping = Match::Protocol { protocol: Protocol::Icmp, ports: None, icmp_type: Some(8), icmp_code: None };
        for matches in [Match::Any, tcp, ping] {
            for remote in [
                Remote::Any,
                Remote::Cidr("10.0.0.0/8".parse().expect("cidr")),
                Remote::Group(domain::SecurityGroupId::new()),
            ] {
                let rule = SecurityRule { direction: Direction::Egress, ethertype: Ethertype::Ipv4, matches, remote };
                assert_eq!(rule_from_pb(&rule_to_pb("x", &rule)), Ok(rule));
            }
        }
        let good = rule_to_pb(
            "x",
            &SecurityRule {
                direction: Direction::Ingress,
                ethertype: Ethertype::Ipv4,
                matches: tcp,
                remote: Remote::Any,
            },
        );
        for bad in [
            pb::SecurityRule { protocol: Some(300), ..good.clone() },
            pb::SecurityRule { port_first: Some(70_000), ..good.clone() },
            pb::SecurityRule { direction: "sideways".into(), ..good.clone() },
            pb::SecurityRule { port_first: Some(99), ..good },
        ] {
            assert!(rule_from_pb(&bad).is_err(), "{bad:?}");
        }
    }
}
