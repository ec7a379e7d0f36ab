//! Floating IPs: with the port and the instance that they lead to.

use super::names::PortStatusName;
use crate::app::network::related::Related;
use domain::{
    ExternalNetworkId, FloatingIpId, InstanceId, Name, PortId, ProjectId, Timestamp,
    network::{FloatingIp, PortStatus},
};
use serde::{Deserialize, Deserializer, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FloatingIp)]
pub struct FloatingIpView {
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

impl FloatingIpView {
    #[must_use]
    pub fn new(floating_ip: FloatingIp, related: &Related) -> Self {
        let FloatingIp {
            id,
            project_id,
            external_network_id,
            address,
            description,
            port_id,
            fixed_ip,
            generation,
            created_at,
        } = floating_ip;
        let port = port_id.and_then(|id| related.ports.get(&id));
        let instance_id = port.and_then(|port| port.owner).map(|owner| owner.instance_id);
        Self {
            id,
            project_id,
            address,
            description,
            external_network_id,
            external_network: related.external_network(external_network_id),
            port_id,
            fixed_ip,
            port_status: port.map(|port| port.status),
            instance_id,
            instance: related.instance(instance_id),
            generation,
            created_at,
        }
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FloatingIpCreate {
    /// Id or name. Unless given: the only external network, or the one named `public`.
    #[serde(default)]
    pub external_network: Option<String>,
    /// Any free address unless given.
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub description: String,
    /// Id or name of the port that it leads to.
    #[serde(default)]
    pub port: Option<String>,
    /// Id or name of an instance, instead of a port: its first NIC that the external network can reach.
    #[serde(default)]
    pub instance: Option<String>,
    /// Which of the port's addresses; the first IPv4 address unless given.
    #[serde(default)]
    pub fixed_ip: Option<String>,
}

/// What isn't named stays. `"port": null` dissociates it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FloatingIpChange {
    #[serde(default)]
    pub description: Option<String>,
    /// Id or name of the port that it leads to from now on; null: none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub port: Option<Option<String>>,
    /// Id or name of an instance, instead of a port.
    #[serde(default)]
    pub instance: Option<String>,
    /// Which of the port's addresses; the first IPv4 address unless given.
    #[serde(default)]
    pub fixed_ip: Option<String>,
}

/// Tells `null` from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}
