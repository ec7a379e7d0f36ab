//! Ports: with their addresses, and the instances whose NICs they are.

pub use api_types::{Port as PortView, PortTraffic as PortTrafficView};

use crate::{app::network::related::Related, auth::caller::SystemRole};
use api_types::SecurityGroupOfPort;
use domain::{
    SecurityGroupId,
    network::{FixedIp, Port, RateLimit},
};
use proto::resource::v1::ReadTrafficResponse;

#[must_use]
pub fn port_view(port: Port, related: &Related, role: SystemRole) -> PortView {
    let instance_id = port.owner.map(|owner| owner.instance_id);
    let group = |id: SecurityGroupId| SecurityGroupOfPort { id, name: related.security_groups.get(&id).cloned() };
    let RateLimit { to_instance_bps, from_instance_bps } = port.rate_limit;
    let fixed = |FixedIp { subnet_id, address }| api_types::FixedIp { subnet_id, address };
    PortView {
        id: port.id,
        project_id: port.project_id,
        network_id: port.network_id,
        network: related.network(port.network_id),
        name: port.name,
        mac: port.mac,
        addresses: port.fixed_ips.iter().map(|f| f.address).collect(),
        fixed_ips: port.fixed_ips.into_iter().map(fixed).collect(),
        floating_ips: related.floating_ips_of(port.id),
        allowed_addresses: port.allowed_addresses,
        security_groups: port.security_group_ids.into_iter().map(group).collect(),
        rate_limit: api_types::RateLimit { to_instance_bps, from_instance_bps },
        state: port.state,
        status: port.status,
        status_reason: port.status_reason,
        instance_id,
        instance: related.instance(instance_id),
        host_id: port.host_id.filter(|_| role == SystemRole::Admin),
        generation: port.generation,
        created_at: port.created_at,
    }
}

#[must_use]
pub fn port_traffic_view(read: ReadTrafficResponse) -> PortTrafficView {
    PortTrafficView {
        age_ms: read.age_ms,
        rx_bytes: read.rx_bytes,
        rx_packets: read.rx_packets,
        tx_bytes: read.tx_bytes,
        tx_packets: read.tx_packets,
        drops: read.drops.into_iter().collect(),
    }
}
