//! Uplinks: a network's own addresses on an external network, one of each family per host that has the network.
//!
//! They follow from what there is: a router, a port of its network that is bound to the host, and the host's being wired to the external
//! network. Nobody asks for them.

use super::{Draft, Plan};
use crate::network::topology::{Learned, Topology};
use domain::{
    HostId, NetworkId,
    network::{ExternalNetwork, MacAddr, Router},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use store::{AddressOwner, UplinkPut, UplinkRow};

/// How an uplink is named as an address's owner.
#[must_use]
pub fn owner(network_id: NetworkId, host_id: HostId) -> String {
    format!("{network_id}/{host_id}")
}

/// Without their prefix lengths.
pub fn addresses(uplink: &UplinkRow) -> impl Iterator<Item = IpAddr> + '_ {
    uplink.addresses.iter().filter_map(|text| text.split('/').next()?.parse().ok())
}

/// What is to be done about uplinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Add { network_id: NetworkId, host_id: HostId },
    Remove { network_id: NetworkId, host_id: HostId },
}

/// The uplinks that should be, and those that are: the difference.
#[must_use]
pub fn steps(topology: &Topology) -> Vec<Step> {
    let mut wanted: BTreeMap<(NetworkId, HostId), &Router> = BTreeMap::new();
    for router in topology.routers() {
        let Some(external) = topology.external_network(router.external_network_id) else { continue };
        for host_id in topology.hosts_of(router.network_id) {
            let wired = topology.host(host_id).is_some_and(|host| wired_to(&host.external_networks, external));
            if wired {
                wanted.insert((router.network_id, host_id), router);
            }
        }
    }
    let right = |uplink: &UplinkRow| {
        let router = wanted.get(&(uplink.network_id, uplink.host_id));
        router.is_some_and(|router| router.external_network_id == uplink.external_network_id)
    };
    let there: BTreeSet<(NetworkId, HostId)> = topology.uplinks().map(|u| (u.network_id, u.host_id)).collect();
    let wrong = topology.uplinks().filter(|uplink| !right(uplink));
    let mut steps: Vec<Step> = wrong.map(|u| Step::Remove { network_id: u.network_id, host_id: u.host_id }).collect();
    let missing = wanted.keys().filter(|key| !there.contains(key));
    steps.extend(missing.map(|(network_id, host_id)| Step::Add { network_id: *network_id, host_id: *host_id }));
    steps
}

fn wired_to(names: &[String], external: &ExternalNetwork) -> bool {
    names.iter().any(|name| name == external.name.as_str())
}

impl Draft<'_> {
    /// Makes a step a plan. None: it isn't needed any more, or (for an uplink to add) no address is free.
    #[must_use]
    pub fn uplink(mut self, step: &Step) -> Option<Plan> {
        match *step {
            Step::Remove { network_id, host_id } => {
                let gone = self.topology.uplink(network_id, host_id)?.clone();
                self.uplink_delete(&gone);
            }
            Step::Add { network_id, host_id } => {
                if !self.uplink_add(network_id, host_id) {
                    self.abandon();
                    return None;
                }
            }
        }
        Some(self.plan)
    }

    fn uplink_add(&mut self, network_id: NetworkId, host_id: HostId) -> bool {
        let Some(router) = self.topology.router_of(network_id) else { return false };
        let external_network_id = router.external_network_id;
        let Some(external) = self.topology.external_network(external_network_id) else { return false };
        let mut addresses = Vec::new();
        for v4 in [true, false] {
            if !external.subnets.iter().any(|subnet| subnet.cidr.v4() == v4) {
                continue;
            }
            let claimed = self.ipam.claim_any(external.id.0, |pool| pool.cidr().v4() == v4, self.ask.now);
            let Ok((_, address)) = claimed else { return false };
            let at = super::scoped(external.id.0, address);
            self.plan.claimed.push(at);
            self.take(at, None, AddressOwner::Uplink, owner(network_id, host_id));
            let prefix = external.subnets.iter().find(|subnet| subnet.cidr.contains(address)).map(|s| s.cidr.prefix());
            addresses.push(format!("{address}/{}", prefix.unwrap_or(if v4 { 32 } else { 128 })));
        }
        let [a, b, c, d, e, ..] = (self.dice)().to_be_bytes();
        let mac = MacAddr::port([a, b, c, d, e]);
        self.op(UplinkPut { network_id, host_id, external_network_id, addresses: addresses.clone(), mac });
        self.learn(Learned::Uplink(UplinkRow { network_id, host_id, external_network_id, addresses, mac }));
        true
    }
}
