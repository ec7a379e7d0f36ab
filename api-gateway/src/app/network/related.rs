//! What is shown beside network objects: names for their ids, and what belongs to them. It is read for a whole page with a fixed number of
//! queries; a name that isn't there belongs to something that was deleted a moment ago.

use crate::app::App;
use domain::{
    ExternalNetworkId, HostId, InstanceId, Name, NetworkId, PortId, SecurityGroupId, Timestamp,
    host::HostState,
    instance::Instance,
    network::{
        ExternalNetwork, FloatingIp, Network, Peering, Port, Remote, Router, SecurityGroup, SecurityGroupRule, Subnet,
    },
};
use std::{collections::HashMap, net::IpAddr};
use store::{Named, ReadError};

#[derive(Debug, Clone, Default)]
pub struct Related {
    pub networks: HashMap<NetworkId, Name>,
    pub external_networks: HashMap<ExternalNetworkId, Name>,
    pub instances: HashMap<InstanceId, Name>,
    pub security_groups: HashMap<SecurityGroupId, Name>,
    pub ports: HashMap<PortId, Port>,
    pub floating_ips: Vec<FloatingIp>,
    pub subnets: Vec<Subnet>,
    pub routers: Vec<Router>,
    pub peerings: Vec<Peering>,
    /// Hosts of instances that aren't there: in which state they are, and since when.
    pub hosts_away: HashMap<HostId, (HostState, Timestamp)>,
}

impl Related {
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

/// The ids, sorted and without repeats.
fn unique<T: Ord>(ids: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut ids: Vec<T> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

pub async fn networks(app: &App, networks: &[Network]) -> Result<Related, ReadError> {
    let store = app.store();
    let ids: Vec<NetworkId> = networks.iter().map(|n| n.id).collect();
    if ids.is_empty() {
        return Ok(Related::default());
    }
    let (subnets, routers, peerings) = futures::try_join!(
        store.subnet_load_many_of_networks(&ids),
        store.router_load_many_of_networks(&ids),
        store.peering_load_many_of_networks(&ids)
    )?;
    let outside = unique(routers.iter().map(|r| r.external_network_id));
    let peers = unique(peerings.iter().flat_map(|p| [p.network_id, p.peer_network_id]));
    let (external_networks, networks) = futures::try_join!(
        store.name_load_many(Named::ExternalNetwork, &outside),
        store.name_load_many(Named::Network, &peers)
    )?;
    Ok(Related { subnets, routers, peerings, external_networks, networks, ..Related::default() })
}

pub async fn subnets(app: &App, subnets: &[Subnet]) -> Result<Related, ReadError> {
    let ids = unique(subnets.iter().map(|s| s.network_id));
    let networks = app.store().name_load_many(Named::Network, &ids).await?;
    Ok(Related { networks, ..Related::default() })
}

pub async fn routers(app: &App, routers: &[Router]) -> Result<Related, ReadError> {
    let inside = unique(routers.iter().map(|r| r.network_id));
    let outside = unique(routers.iter().map(|r| r.external_network_id));
    let (networks, external_networks) = futures::try_join!(
        app.store().name_load_many(Named::Network, &inside),
        app.store().name_load_many(Named::ExternalNetwork, &outside)
    )?;
    Ok(Related { networks, external_networks, ..Related::default() })
}

pub async fn peerings(app: &App, peerings: &[Peering]) -> Result<Related, ReadError> {
    let ids = unique(peerings.iter().flat_map(|p| [p.network_id, p.peer_network_id]));
    let networks = app.store().name_load_many(Named::Network, &ids).await?;
    Ok(Related { networks, ..Related::default() })
}

fn owners<'a>(ports: impl IntoIterator<Item = &'a Port>) -> Vec<InstanceId> {
    unique(ports.into_iter().filter_map(|p| p.owner).map(|owner| owner.instance_id))
}

pub async fn ports(app: &App, ports: &[Port]) -> Result<Related, ReadError> {
    let store = app.store();
    let ids: Vec<PortId> = ports.iter().map(|p| p.id).collect();
    if ids.is_empty() {
        return Ok(Related::default());
    }
    let (networks, groups) = (
        unique(ports.iter().map(|p| p.network_id)),
        unique(ports.iter().flat_map(|p| p.security_group_ids.iter().copied())),
    );
    let instances = owners(ports);
    let (networks, security_groups, instances, floating_ips) = futures::try_join!(
        store.name_load_many(Named::Network, &networks),
        store.name_load_many(Named::SecurityGroup, &groups),
        store.name_load_many(Named::Instance, &instances),
        store.floating_ip_load_many_of_ports(&ids)
    )?;
    Ok(Related { networks, security_groups, instances, floating_ips, ..Related::default() })
}

pub async fn floating_ips(app: &App, floating_ips: &[FloatingIp]) -> Result<Related, ReadError> {
    let store = app.store();
    let outside = unique(floating_ips.iter().map(|f| f.external_network_id));
    let port_ids = unique(floating_ips.iter().filter_map(|f| f.port_id));
    let ports = if port_ids.is_empty() { Vec::new() } else { store.port_load_many(&port_ids).await? };
    let instances = owners(&ports);
    let (external_networks, instances) = futures::try_join!(
        store.name_load_many(Named::ExternalNetwork, &outside),
        store.name_load_many(Named::Instance, &instances)
    )?;
    let ports = ports.into_iter().map(|port| (port.id, port)).collect();
    Ok(Related { external_networks, instances, ports, ..Related::default() })
}

pub async fn security_groups(app: &App, groups: &[SecurityGroup]) -> Result<Related, ReadError> {
    rules(app, groups.iter().flat_map(|group| &group.rules)).await
}

pub async fn rules<'a>(
    app: &App,
    rules: impl IntoIterator<Item = &'a SecurityGroupRule>,
) -> Result<Related, ReadError> {
    let remotes = unique(rules.into_iter().filter_map(|rule| match rule.rule.remote {
        Remote::Group(id) => Some(id),
        Remote::Any | Remote::Cidr(_) => None,
    }));
    let security_groups = app.store().name_load_many(Named::SecurityGroup, &remotes).await?;
    Ok(Related { security_groups, ..Related::default() })
}

/// Reads what is related to instances: to their NICs, and which of their hosts aren't there. The latter is a join and no write: a host that goes away would
/// otherwise be a write for each of its instances.
pub async fn instances<'a>(app: &App, instances: impl IntoIterator<Item = &'a Instance>) -> Result<Related, ReadError> {
    let instances: Vec<&Instance> = instances.into_iter().collect();
    let hosts = unique(instances.iter().filter_map(|instance| instance.host_id));
    let (hosts, related) = futures::try_join!(app.store().host_states(&hosts), nics(app, &instances))?;
    let away = hosts.into_iter().filter(|host| matches!(host.state, HostState::Disconnected | HostState::Lost));
    let hosts_away = away.map(|host| (host.id, (host.state, host.state_changed_at))).collect();
    Ok(Related { hosts_away, ..related })
}

async fn nics(app: &App, instances: &[&Instance]) -> Result<Related, ReadError> {
    let nics: Vec<_> = instances.iter().flat_map(|instance| &instance.spec.nics).collect();
    if nics.is_empty() {
        return Ok(Related::default());
    }
    let networks = unique(nics.iter().map(|nic| nic.network_id));
    let ports = unique(nics.iter().map(|nic| nic.port_id));
    let (networks, floating_ips) = futures::try_join!(
        app.store().name_load_many(Named::Network, &networks),
        app.store().floating_ip_load_many_of_ports(&ports)
    )?;
    Ok(Related { networks, floating_ips, ..Related::default() })
}

/// Nothing is shown beside external networks.
pub async fn external_networks(_: &App, _: &[ExternalNetwork]) -> Result<Related, ReadError> {
    Ok(Related::default())
}
