//! Routers: how networks reach the outside.

use super::kind::{self, KindRoutes, OfNetworkParams, Texts};
use crate::{
    app::{
        App,
        network::{related::Related, router},
    },
    auth::caller::SystemRole,
    v1::{
        check,
        scope::{InProject, Read, Write},
        view::router::{RouterView, router_view},
    },
};
use api_types::{RouterChange, RouterCreate};
use domain::{
    Problem,
    network::{Router, RouterPatch},
};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    kind::routes::<Router>()
}

impl KindRoutes for Router {
    const TEXTS: Texts = Texts {
        path: "/v1/routers",
        tag: "routers",
        param: "router",
        key: "Id or name.",
        list: "Lists the project's routers, or the one of a network.",
        create: "Creates a router, by which a network reaches the outside. It runs on every host that has the network.",
        show: "Shows a router.",
        change: Some("Changes name or source NAT."),
        delete: "Deletes a router that no floating IP needs. Its network then can't reach the outside.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = OfNetworkParams;
    type View = RouterView;
    type CreateBody = RouterCreate;
    type ChangeBody = RouterChange;

    fn check_create(body: RouterCreate) -> Result<router::RouterCreate, Problem> {
        check::network::router(body)
    }

    fn check_change(body: RouterChange) -> Result<RouterPatch, Problem> {
        check::network::router_change(body)
    }

    fn view(self, related: &Related, _: SystemRole) -> RouterView {
        router_view(self, related)
    }
}
