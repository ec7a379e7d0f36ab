//! NICs of instances.

pub use api_types::Nic as NicView;

use crate::app::network::related::Related;
use domain::instance::Nic;

#[must_use]
pub fn nic_view(nic: Nic, related: &Related) -> NicView {
    let Nic { port_id, network_id, mac, addresses, security_group_ids: _ } = nic;
    let (network, floating_ips) = (related.network(network_id), related.floating_ips_of(port_id));
    NicView { port_id, network_id, network, mac, addresses, floating_ips }
}
