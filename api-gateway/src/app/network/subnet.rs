//! Subnets: blocks of addresses of a network.

use super::{
    find::{self, in_field},
    kind::{NetworkKind, OfNetwork, common, on_page, own_id},
};
use crate::{app::App, failure::ApiError};
use domain::{
    Name, ProjectId, SubnetId,
    network::{Change, NewSubnet, Subnet, SubnetPatch, SubnetSpec},
};
use store::Page;
use uuid::Uuid;

pub struct SubnetCreate {
    pub network: String,
    pub name: Name,
    pub spec: SubnetSpec,
    pub dhcp: bool,
}

impl NetworkKind for Subnet {
    type Owner = ProjectId;
    type Filter = OfNetwork;
    type Create = SubnetCreate;
    type Change = SubnetPatch;

    common!(subnets);

    async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Self, ApiError> {
        find::subnet(app, project_id, key).await
    }

    async fn list(app: &App, project_id: ProjectId, filter: &OfNetwork, page: Page) -> Result<Vec<Self>, ApiError> {
        Ok(match filter.id(app, project_id).await? {
            Some(id) => on_page(app.store().subnet_load_many_of_networks(&[id]).await?, &page),
            None => app.store().subnet_list(project_id, page).await?,
        })
    }

    async fn create(app: &App, project_id: ProjectId, ids: &[Uuid], request: SubnetCreate) -> Result<Change, ApiError> {
        let SubnetCreate { network, name, spec, dhcp } = request;
        let network = in_field("/network", find::network(app, project_id, &network)).await?;
        let (id, network_id) = (SubnetId(own_id(ids)?), network.id);
        Ok(Change::create::<Self>(NewSubnet { id, network_id, name, spec, dhcp }))
    }

    async fn change(_: &App, _: ProjectId, id: Uuid, patch: SubnetPatch) -> Result<Change, ApiError> {
        Ok(Change::update::<Self>(SubnetId(id), patch))
    }
}
