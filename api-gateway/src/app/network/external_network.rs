//! External networks: the outside that hosts are wired to. They belong to no project.

use super::{
    find,
    noun::{Cloud, Noun, common, own_id},
};
use crate::{app::App, failure::ApiError};
use domain::{
    ExternalNetworkId, Name,
    network::{Change, ExternalNetwork, ExternalSubnet},
};
use store::Page;
use uuid::Uuid;

pub struct ExternalNetworkCreate {
    pub name: Name,
    pub description: String,
    pub subnets: Vec<ExternalSubnet>,
}

pub struct ExternalNetworkChange {
    pub description: Option<String>,
    pub subnets: Option<Vec<ExternalSubnet>>,
}

impl Noun for ExternalNetwork {
    type Owner = Cloud;
    type Filter = ();
    type Create = ExternalNetworkCreate;
    type Change = ExternalNetworkChange;

    common!(ExternalNetwork, ExternalNetworkId, ExternalNetworkDelete, external_networks);

    async fn find(app: &App, _: Cloud, key: &str) -> Result<Self, ApiError> {
        find::external_network(app, key).await
    }

    async fn list(app: &App, _: Cloud, (): &(), page: Page) -> Result<Vec<Self>, ApiError> {
        Ok(app.store().external_network_list(page).await?)
    }

    async fn create(_: &App, _: Cloud, ids: &[Uuid], request: ExternalNetworkCreate) -> Result<Change, ApiError> {
        let ExternalNetworkCreate { name, description, subnets } = request;
        Ok(Change::ExternalNetworkCreate { id: ExternalNetworkId(own_id(ids)?), name, description, subnets })
    }

    async fn change(_: &App, _: Cloud, id: Uuid, request: ExternalNetworkChange) -> Result<Change, ApiError> {
        let ExternalNetworkChange { description, subnets } = request;
        Ok(Change::ExternalNetworkUpdate { id: ExternalNetworkId(id), description, subnets })
    }
}
