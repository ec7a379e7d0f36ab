//! Floating IPs: addresses of the outside that stand for one of a port's.

use super::noun::{self, ListQuery, NounRoutes, Texts};
use crate::{
    app::{
        App,
        network::{
            check::{self, FloatingIpAsked},
            floating_ip,
            related::Related,
        },
    },
    auth::caller::SystemRole,
    http::page::{ListParams, list_params},
    v1::{
        scope::{InProject, Read, Write},
        view::floating_ip::{FloatingIpChange, FloatingIpCreate, FloatingIpView},
    },
};
use domain::{Problem, network::FloatingIp};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    noun::routes::<FloatingIp>()
}

list_params! {
    FloatingIpListParams {
        /// Only those that stand for this port: id or name.
        port: Option<String>,
        /// Only those that stand for a card of this instance: id or name.
        instance: Option<String>,
    }
}

impl ListQuery for FloatingIpListParams {
    type Filter = floating_ip::FloatingIpsOf;

    fn split(self) -> (ListParams, Self::Filter) {
        let (params, port, instance) = (self.common(), self.port, self.instance);
        (params, floating_ip::FloatingIpsOf { port, instance })
    }
}

impl NounRoutes for FloatingIp {
    const TEXTS: Texts = Texts {
        path: "/v1/floating-ips",
        tag: "floating IPs",
        param: "floating_ip",
        key: "Id or address.",
        list: "Lists the project's floating IPs.",
        create: "Takes an address of an external network; with `port` or `instance`, it stands for it at once.",
        show: "Shows a floating IP.",
        change: Some(
            "Moves a floating IP to another port or instance, dissociates it (`\"port\": null`), or describes it anew.",
        ),
        delete: "Gives the address back. Nobody gets it for a minute.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = FloatingIpListParams;
    type View = FloatingIpView;
    type CreateBody = FloatingIpCreate;
    type ChangeBody = FloatingIpChange;

    fn check_create(body: FloatingIpCreate) -> Result<floating_ip::FloatingIpCreate, Problem> {
        let FloatingIpAsked { address, target } = check::floating_ip(&body)?;
        let (external_network, description) = (body.external_network, body.description);
        Ok(floating_ip::FloatingIpCreate { external_network, address, description, target })
    }

    fn check_change(body: FloatingIpChange) -> Result<floating_ip::FloatingIpChange, Problem> {
        let target = check::floating_ip_change(&body)?;
        Ok(floating_ip::FloatingIpChange { description: body.description, target })
    }

    fn view(self, related: &Related, _: SystemRole) -> FloatingIpView {
        FloatingIpView::new(self, related)
    }
}
