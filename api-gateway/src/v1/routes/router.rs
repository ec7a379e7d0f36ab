//! Routers: how networks reach the outside.

use super::noun::{self, NounRoutes, OfNetworkParams, Texts};
use crate::{
    app::{
        App,
        network::{check, related::Related, router},
    },
    auth::caller::SystemRole,
    v1::{
        scope::{InProject, Read, Write},
        view::router::{RouterChange, RouterCreate, RouterView},
    },
};
use domain::{
    Problem,
    network::{Router, RouterPatch},
};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    noun::routes::<Router>()
}

impl NounRoutes for Router {
    const TEXTS: Texts = Texts {
        path: "/v1/routers",
        tag: "routers",
        param: "router",
        key: "Id or name.",
        list: "Lists the project's routers, or that of one network.",
        create: "Gives a network a way to the outside. It runs on every host that has the network.",
        show: "Shows a router.",
        change: Some("Changes name or source NAT."),
        delete: "Deletes a router, when no floating IP needs it: its network is then without a way out.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = OfNetworkParams;
    type View = RouterView;
    type CreateBody = RouterCreate;
    type ChangeBody = RouterChange;

    fn check_create(body: RouterCreate) -> Result<router::RouterCreate, Problem> {
        let name = check::router(&body)?;
        let RouterCreate { name: _, network, external_network, source_nat } = body;
        Ok(router::RouterCreate { name, network, external_network, source_nat: source_nat.unwrap_or(true) })
    }

    fn check_change(body: RouterChange) -> Result<RouterPatch, Problem> {
        let name = check::router_change(&body)?;
        Ok(RouterPatch { name, source_nat: body.source_nat })
    }

    fn view(self, related: &Related, _: SystemRole) -> RouterView {
        RouterView::new(self, related)
    }
}
