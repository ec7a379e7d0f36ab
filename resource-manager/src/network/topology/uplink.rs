//! Uplinks: a host gets them with the network.

use super::{
    Affected, ObjectKey, Row, Topology,
    row::{Return, index, unindex},
};
use domain::NetworkId;
use store::UplinkRow;

impl Topology {
    pub fn uplinks_of(&self, network_id: NetworkId) -> impl Iterator<Item = &UplinkRow> {
        let hosts = self.uplinks_of.get(&network_id).into_iter().flatten();
        hosts.filter_map(move |host_id| self.uplink((network_id, *host_id)))
    }
}

impl Row for UplinkRow {
    const RETURN: Return = Return::Always;

    fn index(&self, topology: &mut Topology) {
        index(&mut topology.uplinks_of, self.network_id, self.host_id);
    }

    fn unindex(&self, topology: &mut Topology) {
        unindex(&mut topology.uplinks_of, self.network_id, &self.host_id);
    }

    fn affected(&self, _: &Topology) -> Vec<Affected> {
        vec![(self.host_id, ObjectKey::Network(self.network_id))]
    }
}
