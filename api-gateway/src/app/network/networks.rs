//! Networks: isolated from each other, whose ranges may overlap.

use super::{
    find,
    kind::{NetworkKind, common, own_id},
};
use crate::{app::App, failure::ApiError};
use domain::{
    Name, NetworkId, ProjectId,
    network::{Change, Network, NetworkPatch, NewNetwork},
};
use store::Page;
use uuid::Uuid;

pub struct NetworkCreate {
    pub name: Name,
    pub description: String,
    pub mtu: Option<u32>,
}

impl NetworkKind for Network {
    type Owner = ProjectId;
    type Filter = ();
    type Create = NetworkCreate;
    type Change = NetworkPatch;

    common!(networks);

    async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Self, ApiError> {
        find::network(app, project_id, key).await
    }

    async fn list(app: &App, project_id: ProjectId, (): &(), page: Page) -> Result<Vec<Self>, ApiError> {
        Ok(app.store().network_list(project_id, page).await?)
    }

    async fn create(_: &App, _: ProjectId, ids: &[Uuid], request: NetworkCreate) -> Result<Change, ApiError> {
        let NetworkCreate { name, description, mtu } = request;
        let id = NetworkId(own_id(ids)?);
        Ok(Change::create::<Self>(NewNetwork { id, name, description, mtu }))
    }

    async fn change(_: &App, _: ProjectId, id: Uuid, patch: NetworkPatch) -> Result<Change, ApiError> {
        Ok(Change::update::<Self>(NetworkId(id), patch))
    }
}
