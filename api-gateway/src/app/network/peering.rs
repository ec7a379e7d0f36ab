//! Peerings: two networks of a project whose instances may talk to each other.

use super::{
    find::{self, in_field},
    kind::{NetworkKind, OfNetwork, common, on_page, own_id},
};
use crate::{app::App, failure::ApiError};
use domain::{
    Name, PeeringId, Problem, ProjectId,
    network::{Change, NewPeering, Peering},
};
use std::convert::Infallible;
use store::Page;
use uuid::Uuid;

pub struct PeeringCreate {
    pub name: Name,
    pub network: String,
    pub peer_network: String,
}

impl NetworkKind for Peering {
    type Owner = ProjectId;
    type Filter = OfNetwork;
    type Create = PeeringCreate;
    /// A peering never changes.
    type Change = Infallible;

    common!(peerings);

    async fn find(app: &App, project_id: ProjectId, key: &str) -> Result<Self, ApiError> {
        find::peering(app, project_id, key).await
    }

    async fn list(app: &App, project_id: ProjectId, filter: &OfNetwork, page: Page) -> Result<Vec<Self>, ApiError> {
        Ok(match filter.id(app, project_id).await? {
            Some(id) => on_page(app.store().peering_load_many_of_networks(&[id]).await?, &page),
            None => app.store().peering_list(project_id, page).await?,
        })
    }

    async fn create(
        app: &App,
        project_id: ProjectId,
        ids: &[Uuid],
        request: PeeringCreate,
    ) -> Result<Change, ApiError> {
        let PeeringCreate { name, network, peer_network } = request;
        let network_id = in_field("/network", find::network(app, project_id, &network)).await?.id;
        let peer_network_id = in_field("/peer_network", find::network(app, project_id, &peer_network)).await?.id;
        if network_id == peer_network_id {
            return Err(Problem::invalid("/peer_network", "another network is expected").into());
        }
        let id = PeeringId(own_id(ids)?);
        Ok(Change::create::<Self>(NewPeering { id, name, network_id, peer_network_id }))
    }

    async fn change(_: &App, _: ProjectId, _: Uuid, never: Infallible) -> Result<Change, ApiError> {
        match never {}
    }
}
