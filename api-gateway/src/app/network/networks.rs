//! Networks: isolated from each other, whose ranges may overlap.

use super::{
    find,
    noun::{Noun, common, own_id},
};
use crate::{app::App, failure::ApiError};
use domain::{
    Name, NetworkId, ProjectId,
    network::{Change, Network},
};
use store::Page;
use uuid::Uuid;

pub struct NetworkCreate {
    pub name: Name,
    pub description: String,
    pub mtu: Option<u32>,
}

pub struct NetworkChange {
    pub name: Option<Name>,
    pub description: Option<String>,
}

impl Noun for Network {
    type Owner = ProjectId;
    type Filter = ();
    type Create = NetworkCreate;
    type Change = NetworkChange;

    common!(Network, NetworkId, NetworkDelete, networks);

    async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Self, ApiError> {
        find::network(app, project_id, key).await
    }

    async fn list(app: &App, project_id: ProjectId, (): &(), page: Page) -> Result<Vec<Self>, ApiError> {
        Ok(app.store().network_list(project_id, page).await?)
    }

    async fn create(_: &App, _: ProjectId, ids: &[Uuid], request: NetworkCreate) -> Result<Change, ApiError> {
        let NetworkCreate { name, description, mtu } = request;
        Ok(Change::NetworkCreate { id: NetworkId(own_id(ids)?), name, description, mtu })
    }

    async fn change(_: &App, _: ProjectId, id: Uuid, request: NetworkChange) -> Result<Change, ApiError> {
        let NetworkChange { name, description } = request;
        Ok(Change::NetworkUpdate { id: NetworkId(id), name, description })
    }
}
