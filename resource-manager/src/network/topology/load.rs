//! From the database, at start.

use super::{Learned, Topology};
use store::{Page, ReadError, Store};

impl Topology {
    /// Everything there is. Parents are read first: a child that is committed meanwhile is learned by its own commit.
    pub async fn load(store: &Store) -> Result<Self, ReadError> {
        let mut topology = Self::default();
        let mut page = Page { after: None, limit: 1000 };
        loop {
            let found = store.external_network_list(page.clone()).await?;
            page.after = found.last().map(|n| n.id.to_string());
            let last = found.len() < page.limit as usize;
            topology.learn_all(found, Learned::ExternalNetwork);
            if last {
                break;
            }
        }
        topology.learn_all(store.network_host_load_all().await?, Learned::Host);
        topology.learn_all(store.network_load_all().await?, Learned::Network);
        topology.learn_all(store.subnet_load_all().await?, Learned::Subnet);
        topology.learn_all(store.router_load_all().await?, Learned::Router);
        topology.learn_all(store.peering_load_all().await?, Learned::Peering);
        topology.learn_all(store.security_group_load_all().await?, Learned::SecurityGroup);
        topology.learn_all(store.port_load_all().await?, Learned::Port);
        topology.learn_all(store.floating_ip_load_all().await?, Learned::FloatingIp);
        topology.learn_all(store.uplink_load_all().await?, Learned::Uplink);
        Ok(topology)
    }

    fn learn_all<T>(&mut self, rows: Vec<T>, learned: fn(T) -> Learned) {
        for row in rows {
            // Nobody is connected yet.
            let _ = self.learn(learned(row));
        }
    }
}
