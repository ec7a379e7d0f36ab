//! Subnets: blocks of addresses of a network.

use super::noun::{self, NounRoutes, OfNetworkParams, Texts};
use crate::{
    app::{
        App,
        network::{
            check::{self, SubnetAsked},
            related::Related,
            subnet,
        },
    },
    auth::caller::SystemRole,
    v1::{
        scope::{InProject, Read, Write},
        view::subnet::{SubnetChange, SubnetCreate, SubnetView},
    },
};
use domain::{
    Problem,
    network::{self, Subnet},
};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    noun::routes::<Subnet>()
}

impl NounRoutes for Subnet {
    const TEXTS: Texts = Texts {
        path: "/v1/subnets",
        tag: "subnets",
        param: "subnet",
        key: "Id or name.",
        list: "Lists the project's subnets, or those of one network.",
        create: "Makes a subnet: a block of addresses that the network's ports get theirs from.",
        show: "Shows a subnet.",
        change: Some(
            "Changes what guests are told: name, DNS, ranges, routes, DHCP. Guests learn of it when they renew their lease.",
        ),
        delete: "Deletes a subnet that nobody has an address of.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = OfNetworkParams;
    type View = SubnetView;
    type CreateBody = SubnetCreate;
    type ChangeBody = SubnetChange;

    fn check_create(body: SubnetCreate) -> Result<subnet::SubnetCreate, Problem> {
        let SubnetAsked { name, spec } = check::subnet(&body)?;
        Ok(subnet::SubnetCreate { network: body.network, name, spec, dhcp: body.dhcp.unwrap_or(true) })
    }

    fn check_change(body: SubnetChange) -> Result<network::SubnetPatch, Problem> {
        check::subnet_change(&body)
    }

    fn view(self, related: &Related, _: SystemRole) -> SubnetView {
        SubnetView::new(self, related)
    }
}
