//! Routers: how networks reach the outside.

use super::{
    find::{self, in_field},
    kind::{NetworkKind, OfNetwork, common, on_page, own_id},
};
use crate::{app::App, failure::ApiError};
use domain::{
    Name, ProjectId, RouterId,
    network::{Change, NewRouter, Router, RouterPatch},
};
use store::Page;
use uuid::Uuid;

pub struct RouterCreate {
    pub name: Name,
    pub network: String,
    /// None: the default one.
    pub external_network: Option<String>,
    pub source_nat: bool,
}

impl NetworkKind for Router {
    type Owner = ProjectId;
    type Filter = OfNetwork;
    type Create = RouterCreate;
    type Change = RouterPatch;

    common!(routers);

    async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Self, ApiError> {
        find::router(app, project_id, key).await
    }

    async fn list(app: &App, project_id: ProjectId, filter: &OfNetwork, page: Page) -> Result<Vec<Self>, ApiError> {
        Ok(match filter.id(app, project_id).await? {
            Some(id) => on_page(app.store().router_load_many_of_networks(&[id]).await?, &page),
            None => app.store().router_list(project_id, page).await?,
        })
    }

    async fn create(app: &App, project_id: ProjectId, ids: &[Uuid], request: RouterCreate) -> Result<Change, ApiError> {
        let RouterCreate { name, network, external_network, source_nat } = request;
        let network = in_field("/network", find::network(app, project_id, &network)).await?;
        let external = find::external_network_or_default(app, external_network.as_deref()).await?;
        let (network_id, external_network_id) = (network.id, external.id);
        let id = RouterId(own_id(ids)?);
        Ok(Change::create::<Self>(NewRouter { id, name, network_id, external_network_id, source_nat }))
    }

    async fn change(_: &App, _: ProjectId, id: Uuid, patch: RouterPatch) -> Result<Change, ApiError> {
        Ok(Change::update::<Self>(RouterId(id), patch))
    }
}
