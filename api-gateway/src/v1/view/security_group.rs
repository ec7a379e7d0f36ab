//! Security groups and their rules.

pub use api_types::{SecurityGroup as SecurityGroupView, SecurityRule as SecurityRuleView};

use crate::app::network::related::Related;
use domain::network::{Match, PortRange, Protocol, Remote, SecurityGroup, SecurityGroupRule, SecurityRule};

#[must_use]
pub fn security_group_view(group: SecurityGroup, related: &Related) -> SecurityGroupView {
    let SecurityGroup { id, project_id, name, description, rules, generation, created_at } = group;
    let rules = rules.into_iter().map(|rule| security_rule_view(rule, related)).collect();
    SecurityGroupView { id, project_id, name, description, rules, generation, created_at }
}

#[must_use]
pub fn security_rule_view(rule: SecurityGroupRule, related: &Related) -> SecurityRuleView {
    let SecurityGroupRule { id, security_group_id: _, rule, description } = rule;
    let SecurityRule { direction, ethertype, matches, remote } = rule;
    let (protocol, ports, icmp_type, icmp_code) = match matches {
        Match::Any => (None, None, None, None),
        Match::Protocol { protocol, ports, icmp_type, icmp_code } => (Some(protocol), ports, icmp_type, icmp_code),
    };
    let (remote_cidr, remote_group_id) = match remote {
        Remote::Any => (None, None),
        Remote::Cidr(cidr) => (Some(cidr), None),
        Remote::Group(id) => (None, Some(id)),
    };
    SecurityRuleView {
        id,
        direction,
        ethertype,
        protocol: protocol.map(|protocol| match protocol {
            Protocol::Number(number) => number.to_string(),
            named @ (Protocol::Tcp | Protocol::Udp | Protocol::Sctp | Protocol::Icmp) => named.as_str().to_owned(),
        }),
        port_range: ports.map(
            |PortRange { first, last }| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            },
        ),
        icmp_type,
        icmp_code,
        remote_cidr,
        remote_group_id,
        remote_group: remote_group_id.and_then(|id| related.security_groups.get(&id).cloned()),
        description,
    }
}
