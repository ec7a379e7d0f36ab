//! Subnets: a host gets them with the network.

use super::{
    Affected, Row, Topology,
    row::{index, named_in_project, unindex},
};
use domain::{NetworkId, network::Subnet};

impl Topology {
    /// All rows, by their ids.
    pub fn subnets_of(&self, network_id: NetworkId) -> impl Iterator<Item = &Subnet> {
        self.subnets_of.get(&network_id).into_iter().flatten().filter_map(|id| self.subnet(*id))
    }
}

named_in_project!(Subnet);

impl Row for Subnet {
    fn index(&self, topology: &mut Topology) {
        index(&mut topology.subnets_of, self.network_id, self.id);
    }

    fn unindex(&self, topology: &mut Topology) {
        unindex(&mut topology.subnets_of, self.network_id, &self.id);
    }

    fn affected(&self, topology: &Topology) -> Vec<Affected> {
        topology.affected_by_network(self.network_id)
    }
}
