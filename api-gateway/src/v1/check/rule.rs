//! A security rule from what people write. Pure.
//!
//! The address family comes from the remote block, or from the protocol (`icmpv6`), unless it is given; without any, it is IPv4. A protocol that
//! has a name may also be given by its number.

use crate::app::network::rule::{RemoteRequest, RuleRequest};
use api_types::SecurityRuleCreate;
use domain::{
    Violations,
    network::{Cidr, Ethertype, InvalidRule, Match, PortRange, Protocol},
};
use proto::convert::network::protocol_of;

/// `None`: something is wrong, and named in the violations. `at` is the pointer to the rule.
pub fn rule(violations: &mut Violations, at: &str, body: &SecurityRuleCreate) -> Option<RuleRequest> {
    let (mut bad, mut ok) = (|field: &str, detail: String| violations.add(format!("{at}/{field}"), detail), true);
    let mut refuse = |field: &str, detail: String| {
        ok = false;
        bad(field, detail);
    };
    let cidr = match body.remote_cidr.as_ref().map(|text| text.parse::<Cidr>()) {
        None => None,
        Some(Ok(cidr)) => Some(cidr),
        Some(Err(error)) => {
            refuse("remote_cidr", error.to_string());
            None
        }
    };
    if body.remote_cidr.is_some() && body.remote_group.is_some() {
        refuse("remote_group", "give remote_cidr or remote_group, not both".to_owned());
    }
    if body.remote_group.as_ref().is_some_and(|key| !(1..=64).contains(&key.len())) {
        refuse("remote_group", "an id or a name is expected".to_owned());
    }
    let protocol = match body.protocol.as_deref().map(protocol) {
        None => None,
        Some(Ok(named)) => named,
        Some(Err(detail)) => {
            refuse("protocol", detail);
            None
        }
    };
    let ports = match body.port_range.as_deref().map(port_range) {
        None => None,
        Some(Ok(ports)) => Some(ports),
        Some(Err(detail)) => {
            refuse("port_range", detail);
            None
        }
    };
    let family = protocol.and_then(|(_, family)| family);
    let inferred = cidr.map(|cidr| if cidr.v4() { Ethertype::Ipv4 } else { Ethertype::Ipv6 });
    let ethertype = body.ethertype.or(inferred).or(family).unwrap_or(Ethertype::Ipv4);
    if family.is_some_and(|family| family != ethertype) {
        refuse("protocol", format!("icmpv6 is not a protocol of {}", ethertype.as_str()));
    }
    let matches = match protocol {
        Some((protocol, _)) => {
            Match::Protocol { protocol, ports, icmp_type: body.icmp_type, icmp_code: body.icmp_code }
        }
        None => {
            if body.protocol.is_none() && body.port_range.is_some() {
                refuse("port_range", "ports need a protocol: give protocol tcp, udp or sctp too".to_owned());
            }
            if body.protocol.is_none() && (body.icmp_type.is_some() || body.icmp_code.is_some()) {
                refuse("icmp_type", "ICMP types need a protocol: give protocol icmp too".to_owned());
            }
            Match::Any
        }
    };
    let remote = match (cidr, &body.remote_group) {
        (Some(cidr), _) => RemoteRequest::Cidr(cidr),
        (None, Some(key)) => RemoteRequest::Group(key.clone()),
        (None, None) => RemoteRequest::Any,
    };
    let requested =
        RuleRequest { direction: body.direction, ethertype, matches, remote, description: body.description.clone() };
    if let Err(error) = requested.rule(None).validate() {
        let field = match &error {
            InvalidRule::Ports { .. } | InvalidRule::NoPorts { .. } => "port_range",
            InvalidRule::Family { .. } => "remote_cidr",
            InvalidRule::NoTypes { .. } => "icmp_type",
            InvalidRule::CodeWithoutType => "icmp_code",
            InvalidRule::Named { .. } => "protocol",
        };
        refuse(field, error.to_string());
    }
    ok.then_some(requested)
}

/// A protocol by name or number, and the only family that has it. `any` is none.
fn protocol(text: &str) -> Result<Option<(Protocol, Option<Ethertype>)>, String> {
    let known = match text {
        "any" | "all" => return Ok(None),
        "tcp" => (Protocol::Tcp, None),
        "udp" => (Protocol::Udp, None),
        "sctp" => (Protocol::Sctp, None),
        "icmp" => (Protocol::Icmp, None),
        "icmpv6" | "58" => (Protocol::Icmp, Some(Ethertype::Ipv6)),
        other => {
            let number = other.parse::<u8>().map_err(|_| {
                let shown: String = other.chars().take(32).collect();
                format!("`{shown}` is not tcp, udp, sctp, icmp, icmpv6, any or a number from 0 to 255")
            })?;
            (protocol_of(number), None)
        }
    };
    Ok(Some(known))
}

/// `22` or `8000-8100`.
fn port_range(text: &str) -> Result<PortRange, String> {
    let invalid = || {
        let shown: String = text.chars().take(32).collect();
        format!("`{shown}` is not a port (22) or a range of ports (8000-8100) between 1 and 65535")
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(invalid);
    let range = PortRange { first: port(first)?, last: port(last)? };
    if range.first <= range.last { Ok(range) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::network::{Remote, SecurityRule};
    use serde_json::{Value, json};

    fn parse(body: Value) -> Result<SecurityRule, Vec<String>> {
        let body: SecurityRuleCreate = serde_json::from_value(body).expect("of the right shape");
        let mut violations = Violations::default();
        let rule = rule(&mut violations, "/rules/3", &body);
        match violations.finish() {
            Ok(()) => Ok(rule.expect("a rule").rule(None)),
            Err(problem) => {
                assert!(rule.is_none());
                Err(problem.errors.into_iter().map(|e| e.field).collect())
            }
        }
    }

    fn tcp(first: u16, last: u16) -> Match {
        Match::Protocol {
            protocol: Protocol::Tcp,
            ports: Some(PortRange { first, last }),
            icmp_type: None,
            icmp_code: None,
        }
    }

    #[test]
    fn what_people_write_becomes_a_rule() {
        let ssh = parse(json!({"direction": "ingress", "protocol": "tcp", "port": 22})).expect("a rule");
        assert_eq!((ssh.matches, ssh.ethertype, ssh.remote), (tcp(22, 22), Ethertype::Ipv4, Remote::Any));
        let range = json!({"direction": "egress", "protocol": 6, "port_range": "8000-8100", "remote_cidr": "fd00::/8"});
        let range = parse(range).expect("a rule");
        assert_eq!((range.matches, range.ethertype), (tcp(8000, 8100), Ethertype::Ipv6));
        let ping = parse(json!({"direction": "ingress", "protocol": "icmpv6"})).expect("a rule");
        assert_eq!(ping.ethertype, Ethertype::Ipv6);
        let all = parse(json!({"direction": "ingress", "protocol": "any"})).expect("a rule");
        assert_eq!(all.matches, Match::Any);
        let gre = parse(json!({"direction": "ingress", "protocol": "47"})).expect("a rule");
        assert!(matches!(gre.matches, Match::Protocol { protocol: Protocol::Number(47), .. }));
    }

    #[test]
    fn nonsense_is_named() {
        for (body, fields) in [
            (json!({"protocol": "tcp", "port_range": "90-80"}), vec!["/rules/3/port_range"]),
            (json!({"protocol": "tcp", "port_range": "0"}), vec!["/rules/3/port_range"]),
            (json!({"protocol": "tcp", "port_range": "http"}), vec!["/rules/3/port_range"]),
            (json!({"protocol": "tcp", "port_range": "1-70000"}), vec!["/rules/3/port_range"]),
            (json!({"port_range": "80"}), vec!["/rules/3/port_range"]),
            (json!({"protocol": "icmp", "port_range": "80"}), vec!["/rules/3/port_range"]),
            (json!({"protocol": "carrier-pigeon"}), vec!["/rules/3/protocol"]),
            (json!({"protocol": 300}), vec!["/rules/3/protocol"]),
            (json!({"protocol": "icmpv6", "ethertype": "ipv4"}), vec!["/rules/3/protocol"]),
            (json!({"protocol": "tcp", "icmp_type": 8}), vec!["/rules/3/icmp_type"]),
            (json!({"icmp_type": 8}), vec!["/rules/3/icmp_type"]),
            (json!({"protocol": "icmp", "icmp_code": 1}), vec!["/rules/3/icmp_code"]),
            (json!({"remote_cidr": "10.0.0.1/8"}), vec!["/rules/3/remote_cidr"]),
            (json!({"remote_cidr": "fd00::/8", "ethertype": "ipv4"}), vec!["/rules/3/remote_cidr"]),
            (json!({"remote_cidr": "10.0.0.0/8", "remote_group": "x"}), vec!["/rules/3/remote_group"]),
            (json!({"remote_group": ""}), vec!["/rules/3/remote_group"]),
            (
                json!({"protocol": "x", "remote_cidr": "x", "port_range": "x"}),
                vec!["/rules/3/remote_cidr", "/rules/3/protocol", "/rules/3/port_range"],
            ),
        ] {
            let mut whole = body.clone();
            whole["direction"] = json!("ingress");
            assert_eq!(parse(whole), Err(fields.into_iter().map(str::to_owned).collect()), "{body}");
        }
    }
}
