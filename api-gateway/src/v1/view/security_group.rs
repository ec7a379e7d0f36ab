//! Security groups and their rules.

use super::names::{DirectionName, EthertypeName};
use crate::app::network::related::Related;
use domain::{
    Name, ProjectId, SecurityGroupId, SecurityRuleId, Timestamp,
    network::{
        Cidr, Direction, Ethertype, Match, PortRange, Protocol, Remote, SecurityGroup, SecurityGroupRule, SecurityRule,
    },
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Visitor},
};
use std::fmt;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityGroup)]
pub struct SecurityGroupView {
    #[schema(value_type = String, format = "uuid")]
    pub id: SecurityGroupId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    pub description: String,
    /// Only what one of the rules allows passes, and replies to it.
    pub rules: Vec<SecurityRuleView>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityRule)]
pub struct SecurityRuleView {
    #[schema(value_type = String, format = "uuid")]
    pub id: SecurityRuleId,
    #[schema(value_type = DirectionName)]
    pub direction: Direction,
    #[schema(value_type = EthertypeName)]
    pub ethertype: Ethertype,
    /// `tcp`, `udp`, `sctp`, `icmp` or a number; null: every protocol.
    pub protocol: Option<String>,
    /// `22` or `8000-8100`; null: every port.
    pub port_range: Option<String>,
    pub icmp_type: Option<u8>,
    pub icmp_code: Option<u8>,
    /// The addresses of the other side; null, and no group either: anybody.
    #[schema(value_type = Option<String>)]
    pub remote_cidr: Option<Cidr>,
    /// The other side is a port in this group.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub remote_group_id: Option<SecurityGroupId>,
    #[schema(value_type = Option<String>)]
    pub remote_group: Option<Name>,
    pub description: String,
}

impl SecurityGroupView {
    #[must_use]
    pub fn new(group: SecurityGroup, related: &Related) -> Self {
        let SecurityGroup { id, project_id, name, description, rules, generation, created_at } = group;
        let rules = rules.into_iter().map(|rule| SecurityRuleView::new(rule, related)).collect();
        Self { id, project_id, name, description, rules, generation, created_at }
    }
}

impl SecurityRuleView {
    #[must_use]
    pub fn new(rule: SecurityGroupRule, related: &Related) -> Self {
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
        Self {
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
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupCreate {
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// At most 200; others can be added later. Without it: all outgoing traffic is allowed, and incoming only replies. `[]`: nothing passes.
    #[serde(default)]
    pub rules: Option<Vec<SecurityRuleCreate>>,
}

/// What isn't named stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupChange {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
}

/// Traffic that may pass.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityRuleCreate {
    #[schema(value_type = DirectionName)]
    pub direction: Direction,
    /// Unless given: the family of `remote_cidr`, else `ipv4`.
    #[serde(default)]
    #[schema(value_type = Option<EthertypeName>)]
    pub ethertype: Option<Ethertype>,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number; every protocol unless given.
    #[serde(default, deserialize_with = "text_or_number")]
    pub protocol: Option<String>,
    /// `22` or `8000-8100`, with tcp, udp and sctp; every port unless given. `port` means the same.
    #[serde(default, alias = "port", deserialize_with = "text_or_number")]
    pub port_range: Option<String>,
    /// Only with icmp.
    #[serde(default)]
    pub icmp_type: Option<u8>,
    #[serde(default)]
    pub icmp_code: Option<u8>,
    /// The addresses of the other side, like `10.0.0.0/8`; anybody unless given.
    #[serde(default)]
    pub remote_cidr: Option<String>,
    /// Instead: the other side is a port in this group (id or name; a new group's own name means itself).
    #[serde(default)]
    pub remote_group: Option<String>,
    #[serde(default)]
    pub description: String,
}

/// A text, or a number that stands for one: `"tcp"`, `6`, `"8000-8100"`, `22`.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct TextOrNumber;
    impl<'de> Visitor<'de> for TextOrNumber {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number.to_string()))
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(TextOrNumber)
}
