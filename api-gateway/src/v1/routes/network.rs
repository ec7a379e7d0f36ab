//! Networks (VPCs).

use super::noun::{self, NounRoutes, Texts};
use crate::{
    app::{
        App,
        network::{check, networks, related::Related},
    },
    auth::caller::SystemRole,
    http::page::ListParams,
    v1::{
        scope::{InProject, Read, Write},
        view::network::{NetworkChange, NetworkCreate, NetworkView},
    },
};
use domain::{
    Problem,
    network::{Network, NetworkPatch},
};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    noun::routes::<Network>()
}

impl NounRoutes for Network {
    const TEXTS: Texts = Texts {
        path: "/v1/networks",
        tag: "networks",
        param: "network",
        key: "Id or name.",
        list: "Lists the project's networks, each with its subnets, its router and its peerings.",
        create: "Makes a network: isolated from all others, whose ranges it may overlap. Give it subnets next.",
        show: "Shows a network.",
        change: Some("Changes name or description."),
        delete: "Deletes a network and its subnets, when no port, router or peering is left in it.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = ListParams;
    type View = NetworkView;
    type CreateBody = NetworkCreate;
    type ChangeBody = NetworkChange;

    fn check_create(body: NetworkCreate) -> Result<networks::NetworkCreate, Problem> {
        let name = check::network(&body)?;
        Ok(networks::NetworkCreate { name, description: body.description, mtu: body.mtu })
    }

    fn check_change(body: NetworkChange) -> Result<NetworkPatch, Problem> {
        let name = check::network_change(&body)?;
        Ok(NetworkPatch { name, description: body.description })
    }

    fn view(self, related: &Related, role: SystemRole) -> NetworkView {
        NetworkView::new(self, related, role)
    }
}
