//! Routers: a host gets them with the network.

use super::{Affected, Row, Topology, row::named_in_project};
use domain::{NetworkId, network::Router};

impl Topology {
    #[must_use]
    pub fn router_of(&self, network_id: NetworkId) -> Option<&Router> {
        self.router_of.get(&network_id).and_then(|id| self.router(*id))
    }
}

named_in_project!(Router);

impl Row for Router {
    fn index(&self, topology: &mut Topology) {
        topology.router_of.insert(self.network_id, self.id);
    }

    fn unindex(&self, topology: &mut Topology) {
        if topology.router_of.get(&self.network_id) == Some(&self.id) {
            topology.router_of.remove(&self.network_id);
        }
    }

    fn affected(&self, topology: &Topology) -> Vec<Affected> {
        topology.affected_by_network(self.network_id)
    }
}
