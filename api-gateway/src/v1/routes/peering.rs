//! Peerings: two networks of a project whose instances may talk to each other.

use super::noun::{self, NounRoutes, OfNetworkParams, Texts};
use crate::{
    app::{
        App,
        network::{check, peering, related::Related},
    },
    auth::caller::SystemRole,
    v1::{
        scope::{InProject, Read, Write},
        view::{
            instance_request::NoFields,
            peering::{PeeringCreate, PeeringView},
        },
    },
};
use domain::{Problem, network::Peering};
use std::convert::Infallible;
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    noun::routes::<Peering>()
}

impl NounRoutes for Peering {
    const TEXTS: Texts = Texts {
        path: "/v1/network-peerings",
        tag: "network peerings",
        param: "peering",
        key: "Id or name.",
        list: "Lists the project's peerings, or those of one network.",
        create: "Lets the instances of two networks talk to each other, as their security groups allow. Their ranges must not overlap.",
        show: "Shows a peering.",
        change: None,
        delete: "Ends a peering: the two networks don't see each other any more.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = OfNetworkParams;
    type View = PeeringView;
    type CreateBody = PeeringCreate;
    type ChangeBody = NoFields;

    fn check_create(body: PeeringCreate) -> Result<peering::PeeringCreate, Problem> {
        let name = check::peering(&body)?;
        Ok(peering::PeeringCreate { name, network: body.network, peer_network: body.peer_network })
    }

    fn check_change(_: NoFields) -> Result<Infallible, Problem> {
        Err(Problem::invalid_state("a peering never changes"))
    }

    fn view(self, related: &Related, _: SystemRole) -> PeeringView {
        PeeringView::new(self, related)
    }
}
