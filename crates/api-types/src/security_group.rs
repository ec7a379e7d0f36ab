//! Security groups and their rules.

use crate::names::{DirectionName, EthertypeName};
use domain::{
    Name, ProjectId, SecurityGroupId, SecurityRuleId, Timestamp,
    network::{Cidr, Direction, Ethertype},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Visitor},
};
use std::fmt;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityGroup {
    #[schema(value_type = String, format = "uuid")]
    pub id: SecurityGroupId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    pub description: String,
    /// Only what one of the rules allows passes, and replies to it.
    pub rules: Vec<SecurityRule>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecurityRule {
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

impl SecurityRule {
    /// Whether it lets somebody outside open TCP connections to `port`.
    #[must_use]
    pub fn opens_tcp(&self, port: u16) -> bool {
        let ports = self.port_range.as_deref().is_none_or(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
        });
        let protocol = self.protocol.as_deref().is_none_or(|protocol| protocol == "tcp");
        self.direction == Direction::Ingress && protocol && ports && self.remote_group_id.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupCreate {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// At most 200; others can be added later. Without it: all outgoing traffic is allowed, and incoming only replies. `[]`: nothing passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<SecurityRuleCreate>>,
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Traffic that may pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecurityRuleCreate {
    #[schema(value_type = DirectionName)]
    pub direction: Direction,
    /// Unless given: the family of `remote_cidr`, else `ipv4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<EthertypeName>)]
    pub ethertype: Option<Ethertype>,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number; every protocol unless given.
    #[serde(default, deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `22` or `8000-8100`, with tcp, udp and sctp; every port unless given. `port` means the same.
    #[serde(default, alias = "port", deserialize_with = "text_or_number", skip_serializing_if = "Option::is_none")]
    pub port_range: Option<String>,
    /// Only with icmp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// The addresses of the other side, like `10.0.0.0/8`; anybody unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_cidr: Option<String>,
    /// Instead: the other side is a port in this group (id or name; a new group's own name means itself).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_group: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
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
