//! Floating IPs: with the port and the instance that they lead to.

pub use api_types::FloatingIp as FloatingIpView;

use crate::app::network::related::Related;
use domain::network::FloatingIp;

#[must_use]
pub fn floating_ip_view(floating_ip: FloatingIp, related: &Related) -> FloatingIpView {
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
    FloatingIpView {
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
