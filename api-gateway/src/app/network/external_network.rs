//! External networks: the outside that hosts are wired to. They belong to no project.

use super::{
    find,
    kind::{Cloud, NetworkKind, common, own_id},
};
use crate::{app::App, failure::ApiError};
use domain::{
    ExternalNetworkId, Name,
    network::{Change, ExternalNetwork, ExternalNetworkPatch, ExternalSubnet, NewExternalNetwork},
};
use store::Page;
use uuid::Uuid;

pub struct ExternalNetworkCreate {
    pub name: Name,
    pub description: String,
    pub subnets: Vec<ExternalSubnet>,
}

impl NetworkKind for ExternalNetwork {
    type Owner = Cloud;
    type Filter = ();
    type Create = ExternalNetworkCreate;
    type Change = ExternalNetworkPatch;

    common!(external_networks);

    async fn find(app: &App, _: Cloud, key: &str) -> Result<Self, ApiError> {
        find::external_network(app, key).await
    }

    async fn list(app: &App, _: Cloud, (): &(), page: Page) -> Result<Vec<Self>, ApiError> {
        Ok(app.store().external_network_list(page).await?)
    }

    async fn create(_: &App, _: Cloud, ids: &[Uuid], request: ExternalNetworkCreate) -> Result<Change, ApiError> {
        let ExternalNetworkCreate { name, description, subnets } = request;
        let id = ExternalNetworkId(own_id(ids)?);
        Ok(Change::create::<Self>(NewExternalNetwork { id, name, description, subnets }))
    }

    async fn change(_: &App, _: Cloud, id: Uuid, patch: ExternalNetworkPatch) -> Result<Change, ApiError> {
        Ok(Change::update::<Self>(ExternalNetworkId(id), patch))
    }
}
