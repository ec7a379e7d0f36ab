//! External networks: the outside that hosts are connected to. Everybody sees them, system admins change them.

use super::kind::{self, KindRoutes, Texts};
use crate::{
    app::{
        App,
        network::{external_network, related::Related},
    },
    auth::caller::{Caller, SystemRole},
    http::page::ListParams,
    v1::{check, scope::SystemAdmin},
};
use api_types::{ExternalNetwork as ExternalNetworkView, ExternalNetworkChange, ExternalNetworkCreate};
use domain::{
    Problem,
    network::{ExternalNetwork, ExternalNetworkPatch},
};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    kind::routes::<ExternalNetwork>()
}

impl KindRoutes for ExternalNetwork {
    const TEXTS: Texts = Texts {
        path: "/v1/external-networks",
        tag: "external networks",
        param: "external_network",
        key: "Id or name.",
        list: "Lists the external networks.",
        create: "Declares an external network. The hosts' configuration connects them to it. System admins only.",
        show: "Shows an external network.",
        change: Some("Changes description or subnets. System admins only."),
        delete: "Deletes an external network that no router and no floating IP uses. System admins only.",
    };
    type Reading = Caller;
    type Writing = SystemAdmin;
    type Query = ListParams;
    type View = ExternalNetworkView;
    type CreateBody = ExternalNetworkCreate;
    type ChangeBody = ExternalNetworkChange;

    fn check_create(body: ExternalNetworkCreate) -> Result<external_network::ExternalNetworkCreate, Problem> {
        check::network::external_network(body)
    }

    fn check_change(body: ExternalNetworkChange) -> Result<ExternalNetworkPatch, Problem> {
        check::network::external_network_change(body)
    }

    fn view(self, _: &Related, _: SystemRole) -> ExternalNetworkView {
        ExternalNetworkView::from(self)
    }
}
