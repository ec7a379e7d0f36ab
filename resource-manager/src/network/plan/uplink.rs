//! Uplinks: a network's own addresses on an external network, one of each family per host that has the network.
//!
//! They follow from what there is: a router, a port of its network that is bound to the host, and the host's being wired to the external
//! network. Nobody requests them.

use super::{Plan, Planner, planner::scoped};
use crate::network::topology::{RowChange, RowKey, Topology, bound_to};
use domain::{
    HostId, NetworkId,
    network::{ExternalNetwork, MacAddr, Port, Router},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use store::{AddressOwner, UplinkDelete, UplinkPut, UplinkRow};

/// How an uplink is named as an address's owner.
#[must_use]
pub fn owner(network_id: NetworkId, host_id: HostId) -> String {
    format!("{network_id}/{host_id}")
}

/// Its addresses without their prefix lengths.
pub fn addresses(uplink: &UplinkRow) -> impl Iterator<Item = IpAddr> + '_ {
    uplink.addresses.iter().filter_map(|text| text.split('/').next()?.parse().ok())
}

/// What is to be done about an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Add { network_id: NetworkId, host_id: HostId },
    Remove { network_id: NetworkId, host_id: HostId },
}

/// Whose uplinks may not be as they should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Networks(BTreeSet<NetworkId>),
    All,
}

impl Default for Scope {
    fn default() -> Self {
        Self::Networks(BTreeSet::new())
    }
}

impl Scope {
    pub fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) | (_, Self::All) => *self = Self::All,
            (Self::Networks(these), Self::Networks(those)) => these.extend(those),
        }
    }

    /// What a change that memory is about to take in puts into question.
    #[must_use]
    pub fn of(topology: &Topology, change: &RowChange) -> Self {
        let one = |id: NetworkId| Self::Networks(BTreeSet::from([id]));
        let moves = |old: Option<&Port>, new: Option<&Port>| {
            let port = old.or(new).filter(|_| old.and_then(bound_to) != new.and_then(bound_to));
            port.map_or_else(Self::default, |port| one(port.network_id))
        };
        match change {
            RowChange::ExternalNetwork(_) | RowChange::Host(_) => Self::All,
            RowChange::Port(port) => moves(topology.port(port.id), Some(port)),
            RowChange::Router(router) => one(router.network_id),
            RowChange::Uplink(uplink) => one(uplink.network_id),
            RowChange::Network(_)
            | RowChange::Subnet(_)
            | RowChange::Peering(_)
            | RowChange::SecurityGroup(_)
            | RowChange::FloatingIp(_) => Self::default(),
            RowChange::Gone(key) => match *key {
                RowKey::ExternalNetwork(_) | RowKey::Host(_) => Self::All,
                RowKey::Port(id) => moves(topology.port(id), None),
                RowKey::Router(id) => topology.router(id).map_or_else(Self::default, |r| one(r.network_id)),
                RowKey::Network(id) | RowKey::Uplink((id, _)) => one(id),
                RowKey::Subnet(_) | RowKey::Peering(_) | RowKey::SecurityGroup(_) | RowKey::FloatingIp(_) => {
                    Self::default()
                }
            },
        }
    }
}

/// The uplinks that should be in the scope, and those that are: the difference.
#[must_use]
pub fn steps(topology: &Topology, scope: &Scope) -> Vec<Step> {
    let mut needed: BTreeMap<(NetworkId, HostId), &Router> = BTreeMap::new();
    let routers: Vec<&Router> = match scope {
        Scope::Networks(networks) => networks.iter().filter_map(|id| topology.router_of(*id)).collect(),
        Scope::All => topology.routers().collect(),
    };
    for router in routers {
        let Some(external) = topology.external_network(router.external_network_id) else { continue };
        for host_id in topology.hosts_of(router.network_id) {
            let wired = topology.host(host_id).is_some_and(|host| wired_to(&host.external_networks, external));
            if wired {
                needed.insert((router.network_id, host_id), router);
            }
        }
    }
    let correct = |uplink: &UplinkRow| {
        let router = needed.get(&(uplink.network_id, uplink.host_id));
        router.is_some_and(|router| router.external_network_id == uplink.external_network_id)
    };
    let uplinks: Vec<&UplinkRow> = match scope {
        Scope::Networks(networks) => networks.iter().flat_map(|id| topology.uplinks_of(*id)).collect(),
        Scope::All => topology.uplinks().collect(),
    };
    let existing: BTreeSet<(NetworkId, HostId)> = uplinks.iter().map(|u| (u.network_id, u.host_id)).collect();
    let obsolete = uplinks.into_iter().filter(|uplink| !correct(uplink));
    let mut steps: Vec<Step> =
        obsolete.map(|u| Step::Remove { network_id: u.network_id, host_id: u.host_id }).collect();
    let missing = needed.keys().filter(|key| !existing.contains(key));
    steps.extend(missing.map(|(network_id, host_id)| Step::Add { network_id: *network_id, host_id: *host_id }));
    steps
}

fn wired_to(names: &[String], external: &ExternalNetwork) -> bool {
    names.iter().any(|name| name == external.name.as_str())
}

impl Planner<'_> {
    /// The plan of a step. None: it isn't needed any more, or (for an uplink to add) no address is free.
    #[must_use]
    pub fn uplink(self, step: &Step) -> Option<Plan> {
        let planned = self.finish_with(|planner| match *step {
            Step::Remove { network_id, host_id } => {
                let uplink = planner.topology.uplink((network_id, host_id)).ok_or(())?;
                planner.remove_uplink(uplink);
                Ok(())
            }
            Step::Add { network_id, host_id } => planner.add_uplink(network_id, host_id).ok_or(()),
        });
        planned.ok().map(|(plan, ())| plan)
    }

    fn add_uplink(&mut self, network_id: NetworkId, host_id: HostId) -> Option<()> {
        let external_network_id = self.topology.router_of(network_id)?.external_network_id;
        let external = self.topology.external_network(external_network_id)?;
        let mut addresses = Vec::new();
        for v4 in [true, false] {
            if !external.subnets.iter().any(|subnet| subnet.cidr.v4() == v4) {
                continue;
            }
            let claimed = self.ipam.claim_any(external.id.0, |pool| pool.cidr().v4() == v4, self.context.now);
            let (_, address) = claimed.ok()?;
            let at = scoped(external.id.0, address);
            self.plan.claimed.push(at);
            self.take_external(external, address, AddressOwner::Uplink, owner(network_id, host_id)).ok()?;
            let prefix = external.subnets.iter().find(|subnet| subnet.cidr.contains(address)).map(|s| s.cidr.prefix());
            addresses.push(format!("{address}/{}", prefix.unwrap_or(if v4 { 32 } else { 128 })));
        }
        let [a, b, c, d, e, ..] = (self.rng)().to_be_bytes();
        let mac = MacAddr::port([a, b, c, d, e]);
        self.op(UplinkPut { network_id, host_id, external_network_id, addresses: addresses.clone(), mac });
        self.put(UplinkRow { network_id, host_id, external_network_id, addresses, mac });
        Some(())
    }

    /// The network leaves by this host no longer; its addresses there are quarantined.
    pub(super) fn remove_uplink(&mut self, uplink: &UplinkRow) {
        let (network_id, host_id) = (uplink.network_id, uplink.host_id);
        self.op(UplinkDelete { network_id, host_id });
        for address in addresses(uplink) {
            let at = scoped(uplink.external_network_id.0, address);
            self.release(at, owner(network_id, host_id), self.context.quarantine_secs);
        }
        self.gone::<UplinkRow>((network_id, host_id));
    }
}
