//! Peerings: two networks of a project whose instances may talk to each other.

use super::kind::{self, KindRoutes, OfNetworkParams, Texts};
use crate::{
    app::{
        App,
        network::{peering, related::Related},
    },
    auth::caller::SystemRole,
    v1::{
        check,
        scope::{InProject, Read, Write},
        view::peering::{PeeringView, peering_view},
    },
};
use api_types::{NoFields, PeeringCreate};
use domain::{Problem, network::Peering};
use std::convert::Infallible;
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    kind::routes::<Peering>()
}

impl KindRoutes for Peering {
    const TEXTS: Texts = Texts {
        path: "/v1/network-peerings",
        tag: "network peerings",
        param: "peering",
        key: "Id or name.",
        list: "Lists the project's peerings, or those of one network.",
        create: "Creates a peering, so that the instances of two networks can reach each other as their security groups allow. The ranges must not overlap.",
        show: "Shows a peering.",
        change: None,
        delete: "Deletes a peering: the two networks can no longer reach each other.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = OfNetworkParams;
    type View = PeeringView;
    type CreateBody = PeeringCreate;
    type ChangeBody = NoFields;

    fn check_create(body: PeeringCreate) -> Result<peering::PeeringCreate, Problem> {
        check::network::peering(body)
    }

    fn check_change(_: NoFields) -> Result<Infallible, Problem> {
        Err(Problem::invalid_state("a peering never changes"))
    }

    fn view(self, related: &Related, _: SystemRole) -> PeeringView {
        peering_view(self, related)
    }
}
