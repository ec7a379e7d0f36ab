//! Floating IPs: with the port and the instance that they lead to.

use crate::names::PortStatusName;
use domain::{ExternalNetworkId, FloatingIpId, InstanceId, Name, PortId, ProjectId, Timestamp, network::PortStatus};
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FloatingIp {
    #[schema(value_type = String, format = "uuid")]
    pub id: FloatingIpId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub address: IpAddr,
    pub description: String,
    #[schema(value_type = String, format = "uuid")]
    pub external_network_id: ExternalNetworkId,
    #[schema(value_type = Option<String>)]
    pub external_network: Option<Name>,
    /// The port that it leads to.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub port_id: Option<PortId>,
    /// Which of the port's addresses.
    #[schema(value_type = Option<String>)]
    pub fixed_ip: Option<IpAddr>,
    /// What the port's host last reported of the port.
    #[schema(value_type = Option<PortStatusName>)]
    pub port_status: Option<PortStatus>,
    #[schema(value_type = Option<String>, format = "uuid")]
    pub instance_id: Option<InstanceId>,
    #[schema(value_type = Option<String>)]
    pub instance: Option<Name>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FloatingIpCreate {
    /// Id or name. Unless given: the only external network, or the one named `public`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_network: Option<String>,
    /// Any free address unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Id or name of the port that it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Id or name of an instance, instead of a port: its first NIC that the external network can reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Which of the port's addresses; the first IPv4 address unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ip: Option<String>,
}

/// What isn't named stays. `"port": null` dissociates it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FloatingIpChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Id or name of the port that it leads to from now on; null: none.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub port: Option<Option<String>>,
    /// Id or name of an instance, instead of a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Which of the port's addresses; the first IPv4 address unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ip: Option<String>,
}

/// Tells `null` from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}
