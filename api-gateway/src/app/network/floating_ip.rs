//! Floating IPs: addresses of the outside that stand for a port's. The port is named, or an instance, whose first NIC that the outside can
//! reach is taken.

use super::find::{self, in_field};
use super::kind::{NetworkKind, common, on_page, own_id};
use crate::{
    app::{App, instance},
    failure::ApiError,
};
use domain::{
    ErrorKind, ExternalNetworkId, FloatingIpId, PortId, Problem, ProjectId,
    instance::Instance,
    network::{Change, FloatingIp, FloatingIpPatch, FloatingTarget, NewFloatingIp},
};
use std::net::IpAddr;
use store::Page;
use uuid::Uuid;

/// What a request names as the target. Keys in it are still to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetRequest {
    Nothing,
    Port { key: String, fixed_ip: Option<IpAddr> },
    Instance { key: String, fixed_ip: Option<IpAddr> },
}

pub async fn target(
    app: &App,
    project_id: ProjectId,
    external_network_id: ExternalNetworkId,
    requested: TargetRequest,
) -> Result<FloatingTarget, ApiError> {
    match requested {
        TargetRequest::Nothing => Ok(FloatingTarget::Nothing),
        TargetRequest::Port { key, fixed_ip } => {
            let port = in_field("/port", find::port(app, project_id, &key)).await?;
            Ok(FloatingTarget::Port { port_id: port.id, fixed_ip })
        }
        TargetRequest::Instance { key, fixed_ip } => {
            let instance = in_field("/instance", instance::find(app, project_id, &key)).await?;
            let port_id = reachable(app, &instance, external_network_id, fixed_ip).await?;
            Ok(FloatingTarget::Port { port_id, fixed_ip })
        }
    }
}

/// The first NIC with an IPv4 address (or with this address) whose network has a router to the external network. Without one it is the first
/// NIC with such an address, and the resource-manager says what is missing.
async fn reachable(
    app: &App,
    instance: &Instance,
    external_network_id: ExternalNetworkId,
    fixed_ip: Option<IpAddr>,
) -> Result<PortId, ApiError> {
    let fits = |address: &IpAddr| fixed_ip.map_or(address.is_ipv4(), |requested| *address == requested);
    let nics: Vec<_> = instance.spec.nics.iter().filter(|nic| nic.addresses.iter().any(fits)).collect();
    let Some(first) = nics.first() else {
        let name = &instance.name;
        let (detail, hint) = if instance.spec.nics.is_empty() {
            (
                format!("instance {name} has no NIC, so a floating IP can't stand for it"),
                format!("attach one: `iaasctl instance nic add {name} --network NETWORK`"),
            )
        } else {
            let which = fixed_ip.map_or_else(|| "IPv4 address".to_owned(), |ip| format!("NIC with the address {ip}"));
            (format!("instance {name} has no {which}"), format!("`iaasctl instance show {name}` shows its addresses"))
        };
        return Err(Problem::new(ErrorKind::InvalidState, "no_address", detail).with_hint(hint).into());
    };
    if nics.len() == 1 {
        return Ok(first.port_id);
    }
    let networks: Vec<_> = nics.iter().map(|nic| nic.network_id).collect();
    let routers = app.store().router_load_many_of_networks(&networks).await?;
    let leads_out = |nic: &&&domain::instance::Nic| {
        routers.iter().any(|r| r.network_id == nic.network_id && r.external_network_id == external_network_id)
    };
    Ok(nics.iter().find(leads_out).unwrap_or(first).port_id)
}

pub struct FloatingIpCreate {
    /// None: the default one.
    pub external_network: Option<String>,
    pub address: Option<IpAddr>,
    pub description: String,
    pub target: TargetRequest,
}

pub struct FloatingIpChange {
    pub description: Option<String>,
    /// None: stays.
    pub target: Option<TargetRequest>,
}

/// The objects, by id or name, that a list of floating IPs is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct FloatingIpsOf {
    pub port: Option<String>,
    pub instance: Option<String>,
}

impl NetworkKind for FloatingIp {
    type Owner = ProjectId;
    type Filter = FloatingIpsOf;
    type Create = FloatingIpCreate;
    type Change = FloatingIpChange;

    common!(floating_ips);

    async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Self, ApiError> {
        find::floating_ip(app, project_id, key).await
    }

    async fn list(app: &App, project_id: ProjectId, filter: &FloatingIpsOf, page: Page) -> Result<Vec<Self>, ApiError> {
        let port = match &filter.port {
            Some(key) => Some(find::port(app, project_id, key).await?.id),
            None => None,
        };
        let ports = match &filter.instance {
            Some(key) => {
                let instance = instance::find(app, project_id, key).await?;
                let ids = instance.spec.nics.iter().map(|nic| nic.port_id);
                Some(ids.filter(|id| port.is_none_or(|port| port == *id)).collect())
            }
            None => port.map(|id| vec![id]),
        };
        Ok(match ports {
            Some(ids) => on_page(app.store().floating_ip_load_many_of_ports(&ids).await?, &page),
            None => app.store().floating_ip_list(project_id, page).await?,
        })
    }

    async fn create(
        app: &App,
        project_id: ProjectId,
        ids: &[Uuid],
        request: FloatingIpCreate,
    ) -> Result<Change, ApiError> {
        let FloatingIpCreate { external_network, address, description, target } = request;
        let external_network_id = find::external_network_or_default(app, external_network.as_deref()).await?.id;
        let target = self::target(app, project_id, external_network_id, target).await?;
        let id = FloatingIpId(own_id(ids)?);
        Ok(Change::create::<Self>(NewFloatingIp { id, external_network_id, address, description, target }))
    }

    async fn change(app: &App, project_id: ProjectId, id: Uuid, request: FloatingIpChange) -> Result<Change, ApiError> {
        let new_target = match request.target {
            Some(requested) => {
                let now = find::floating_ip(app, project_id, &id.to_string()).await?;
                Some(target(app, project_id, now.external_network_id, requested).await?)
            }
            None => None,
        };
        let patch = FloatingIpPatch { description: request.description, target: new_target };
        Ok(Change::update::<Self>(FloatingIpId(id), patch))
    }
}
