//! Ports: attachment points of networks, with their addresses.

use super::{
    find::{self, in_field},
    kind::{NetworkKind, OfNetwork, common, own_id},
};
use crate::{
    app::{App, instance},
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{
    Name, PortId, ProjectId, SecurityGroupId,
    network::{Change, Cidr, MacAddr, NewPort, Port, PortPatch, RateLimit},
};
use proto::resource::v1::{ReadTrafficRequest, ReadTrafficResponse};
use store::{Page, PortFilter};
use uuid::Uuid;

pub struct PortCreate {
    pub network: String,
    pub name: Name,
    pub mac: Option<MacAddr>,
    /// Addresses, or subnets by id or name.
    pub fixed_ips: Vec<String>,
    pub allowed_addresses: Vec<Cidr>,
    /// The caller may allow addresses from outside the network.
    pub any_address: bool,
    /// None: the project's group `default`.
    pub security_groups: Option<Vec<String>>,
    pub rate_limit: RateLimit,
}

/// A change whose security groups, if it names any, are still to be looked up.
pub struct PortChangeRequest {
    pub change: PortPatch,
    pub security_groups: Option<Vec<String>>,
}

/// The objects, by id or name, that a list of ports is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct PortsOf {
    pub network: OfNetwork,
    pub instance: Option<String>,
    pub security_group: Option<String>,
}

async fn security_groups(
    app: &App,
    project_id: ProjectId,
    keys: Option<Vec<String>>,
) -> Result<Option<Vec<SecurityGroupId>>, ApiError> {
    match keys {
        Some(keys) => Ok(Some(find::security_groups(app, project_id, "/security_groups", &keys).await?)),
        None => Ok(None),
    }
}

impl NetworkKind for Port {
    type Owner = ProjectId;
    type Filter = PortsOf;
    type Create = PortCreate;
    type Change = PortChangeRequest;

    common!(ports);

    async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Self, ApiError> {
        find::port(app, project_id, key).await
    }

    async fn list(app: &App, project_id: ProjectId, filter: &PortsOf, page: Page) -> Result<Vec<Self>, ApiError> {
        let network_id = filter.network.id(app, project_id).await?;
        let instance_id = match &filter.instance {
            Some(key) => Some(instance::find(app, project_id, key).await?.id),
            None => None,
        };
        let security_group_id = match &filter.security_group {
            Some(key) => Some(find::security_group(app, project_id, key).await?.id),
            None => None,
        };
        let filter = PortFilter { project_id, network_id, instance_id, security_group_id };
        Ok(app.store().port_list_filtered(&filter, page).await?)
    }

    fn create_as(caller: &Caller, request: PortCreate) -> PortCreate {
        PortCreate { any_address: caller.system_admin(), ..request }
    }

    fn change_as(caller: &Caller, mut request: PortChangeRequest) -> PortChangeRequest {
        request.change.any_address = caller.system_admin();
        request
    }

    async fn create(app: &App, project_id: ProjectId, ids: &[Uuid], request: PortCreate) -> Result<Change, ApiError> {
        let network = in_field("/network", find::network(app, project_id, &request.network)).await?;
        Ok(Change::create::<Self>(NewPort {
            id: PortId(own_id(ids)?),
            network_id: network.id,
            name: request.name,
            mac: request.mac,
            security_group_ids: security_groups(app, project_id, request.security_groups).await?,
            fixed_ips: find::fixed_ips(app, network.id, "/fixed_ips", &request.fixed_ips).await?,
            allowed_addresses: request.allowed_addresses,
            any_address: request.any_address,
            rate_limit: request.rate_limit,
        }))
    }

    async fn change(
        app: &App,
        project_id: ProjectId,
        id: Uuid,
        request: PortChangeRequest,
    ) -> Result<Change, ApiError> {
        let PortChangeRequest { mut change, security_groups: keys } = request;
        change.security_group_ids = security_groups(app, project_id, keys).await?;
        Ok(Change::update::<Self>(PortId(id), change))
    }
}

/// What passed through a port, and what was dropped at it and why.
pub async fn traffic(app: &App, project_id: ProjectId, key: &str) -> Result<ReadTrafficResponse, ApiError> {
    let port = find::port(app, project_id, key).await?;
    let request = ReadTrafficRequest { port_id: port.id.to_string() };
    Ok(app.resource().read_traffic(request).await?.into_inner())
}
