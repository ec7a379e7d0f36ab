//! External networks: the outside that hosts are wired to. Everybody sees them, system admins change them.

use super::noun::{self, NounRoutes, Texts};
use crate::{
    app::{
        App,
        network::{check, external_network, related::Related},
    },
    auth::caller::{Caller, SystemRole},
    http::page::ListParams,
    v1::{
        scope::SystemAdmin,
        view::external_network::{ExternalNetworkChange, ExternalNetworkCreate, ExternalNetworkView},
    },
};
use domain::{
    Problem,
    network::{ExternalNetwork, ExternalNetworkPatch},
};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    noun::routes::<ExternalNetwork>()
}

impl NounRoutes for ExternalNetwork {
    const TEXTS: Texts = Texts {
        path: "/v1/external-networks",
        tag: "external networks",
        param: "external_network",
        key: "Id or name.",
        list: "Lists the external networks.",
        create: "Declares an external network. Hosts are wired to it by their configuration. System admins only.",
        show: "Shows an external network.",
        change: Some("Changes description or subnets. System admins only."),
        delete: "Deletes an external network that no router leads to and no floating IP is of. System admins only.",
    };
    type Reading = Caller;
    type Writing = SystemAdmin;
    type Query = ListParams;
    type View = ExternalNetworkView;
    type CreateBody = ExternalNetworkCreate;
    type ChangeBody = ExternalNetworkChange;

    fn check_create(body: ExternalNetworkCreate) -> Result<external_network::ExternalNetworkCreate, Problem> {
        let (name, subnets) = check::external_network(&body)?;
        Ok(external_network::ExternalNetworkCreate { name, description: body.description, subnets })
    }

    fn check_change(body: ExternalNetworkChange) -> Result<ExternalNetworkPatch, Problem> {
        let subnets = check::external_network_change(&body)?;
        Ok(ExternalNetworkPatch { description: body.description, subnets })
    }

    fn view(self, _: &Related, _: SystemRole) -> ExternalNetworkView {
        ExternalNetworkView::from(self)
    }
}
