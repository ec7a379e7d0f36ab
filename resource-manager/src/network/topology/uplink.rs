//! Uplinks: a host gets them with the network.

use super::{Affected, ObjectKey, Row, Topology, row::Return};
use store::UplinkRow;

impl Row for UplinkRow {
    const RETURN: Return = Return::Always;

    fn affected(&self, _: &Topology) -> Vec<Affected> {
        vec![(self.host_id, ObjectKey::Network(self.network_id))]
    }
}
