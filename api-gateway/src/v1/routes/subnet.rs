//! Subnets: blocks of addresses of a network.

use super::kind::{self, KindRoutes, OfNetworkParams, Texts};
use crate::{
    app::{
        App,
        network::{related::Related, subnet},
    },
    auth::caller::SystemRole,
    v1::{
        check,
        scope::{InProject, Read, Write},
        view::subnet::{SubnetView, subnet_view},
    },
};
use api_types::{SubnetChange, SubnetCreate};
use domain::{
    Problem,
    network::{self, Subnet},
};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    kind::routes::<Subnet>()
}

impl KindRoutes for Subnet {
    const TEXTS: Texts = Texts {
        path: "/v1/subnets",
        tag: "subnets",
        param: "subnet",
        key: "Id or name.",
        list: "Lists the project's subnets, or those of one network.",
        create: "Creates a subnet: a block of addresses, of which the network's ports get theirs.",
        show: "Shows a subnet.",
        change: Some(
            "Changes name, DNS servers, ranges, routes or DHCP. Guests get the change when they renew their lease.",
        ),
        delete: "Deletes a subnet of which no address is in use.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = OfNetworkParams;
    type View = SubnetView;
    type CreateBody = SubnetCreate;
    type ChangeBody = SubnetChange;

    fn check_create(body: SubnetCreate) -> Result<subnet::SubnetCreate, Problem> {
        check::network::subnet(body)
    }

    fn check_change(body: SubnetChange) -> Result<network::SubnetPatch, Problem> {
        check::network::subnet_change(body)
    }

    fn view(self, related: &Related, _: SystemRole) -> SubnetView {
        subnet_view(self, related)
    }
}
