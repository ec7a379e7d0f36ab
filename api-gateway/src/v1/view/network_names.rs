//! What views of networks say beside the object itself: names for its ids, and what belongs to it. Gathered for a whole page at once
//! (`app::network::look`); a name that isn't there belongs to something that was deleted a moment ago.

use domain::{
    ExternalNetworkId, InstanceId, Name, NetworkId, PortId, SecurityGroupId,
    network::{FloatingIp, Peering, Port, Router, Subnet},
};
use std::{collections::HashMap, net::IpAddr};

#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    pub networks: HashMap<NetworkId, Name>,
    pub external_networks: HashMap<ExternalNetworkId, Name>,
    pub instances: HashMap<InstanceId, Name>,
    pub security_groups: HashMap<SecurityGroupId, Name>,
    pub ports: HashMap<PortId, Port>,
    pub floating_ips: Vec<FloatingIp>,
    pub subnets: Vec<Subnet>,
    pub routers: Vec<Router>,
    pub peerings: Vec<Peering>,
}

impl Surroundings {
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<Name> {
        self.networks.get(&id).cloned()
    }

    #[must_use]
    pub fn external_network(&self, id: ExternalNetworkId) -> Option<Name> {
        self.external_networks.get(&id).cloned()
    }

    #[must_use]
    pub fn instance(&self, id: Option<InstanceId>) -> Option<Name> {
        self.instances.get(&id?).cloned()
    }

    /// The addresses that stand for a port's.
    #[must_use]
    pub fn floating_ips_of(&self, port_id: PortId) -> Vec<IpAddr> {
        self.floating_ips.iter().filter(|f| f.port_id == Some(port_id)).map(|f| f.address).collect()
    }
}
