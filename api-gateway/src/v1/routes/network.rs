//! Networks (VPCs).

use super::kind::{self, KindRoutes, Texts};
use crate::{
    app::{
        App,
        network::{networks, related::Related},
    },
    auth::caller::SystemRole,
    http::page::ListParams,
    v1::{
        check,
        scope::{InProject, Read, Write},
        view::network::{NetworkView, network_view},
    },
};
use api_types::{NetworkChange, NetworkCreate};
use domain::{
    Problem,
    network::{Network, NetworkPatch},
};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    kind::routes::<Network>()
}

impl KindRoutes for Network {
    const TEXTS: Texts = Texts {
        path: "/v1/networks",
        tag: "networks",
        param: "network",
        key: "Id or name.",
        list: "Lists the project's networks, each with its subnets, its router and its peerings.",
        create: "Creates a network, isolated from all others, whose ranges it may overlap. Create its subnets next.",
        show: "Shows a network.",
        change: Some("Changes name or description."),
        delete: "Deletes a network and its subnets when no port, router or peering is left in it.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = ListParams;
    type View = NetworkView;
    type CreateBody = NetworkCreate;
    type ChangeBody = NetworkChange;

    fn check_create(body: NetworkCreate) -> Result<networks::NetworkCreate, Problem> {
        check::network::network(body)
    }

    fn check_change(body: NetworkChange) -> Result<NetworkPatch, Problem> {
        check::network::network_change(body)
    }

    fn view(self, related: &Related, role: SystemRole) -> NetworkView {
        network_view(self, related, role)
    }
}
