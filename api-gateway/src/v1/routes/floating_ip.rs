//! Floating IPs: addresses of the outside that lead to a port.

use super::kind::{self, KindRoutes, ListQuery, Texts};
use crate::{
    app::{
        App,
        network::{floating_ip, related::Related},
    },
    auth::caller::SystemRole,
    http::page::{ListParams, list_params},
    v1::{
        check,
        scope::{InProject, Read, Write},
        view::floating_ip::{FloatingIpView, floating_ip_view},
    },
};
use api_types::{FloatingIpChange, FloatingIpCreate};
use domain::{Problem, network::FloatingIp};
use utoipa_axum::router::OpenApiRouter;

pub fn routes() -> OpenApiRouter<App> {
    kind::routes::<FloatingIp>()
}

list_params! {
    FloatingIpListParams {
        /// Only those that lead to this port: id or name.
        port: Option<String>,
        /// Only those that lead to a NIC of this instance: id or name.
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

impl KindRoutes for FloatingIp {
    const TEXTS: Texts = Texts {
        path: "/v1/floating-ips",
        tag: "floating IPs",
        param: "floating_ip",
        key: "Id or address.",
        list: "Lists the project's floating IPs.",
        create: "Allocates an address of an external network; with `port` or `instance`, it leads there at once.",
        show: "Shows a floating IP.",
        change: Some(
            "Moves a floating IP to another port or instance, dissociates it (`\"port\": null`), or changes its description.",
        ),
        delete: "Releases the address. Nobody else gets it for a minute.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = FloatingIpListParams;
    type View = FloatingIpView;
    type CreateBody = FloatingIpCreate;
    type ChangeBody = FloatingIpChange;

    fn check_create(body: FloatingIpCreate) -> Result<floating_ip::FloatingIpCreate, Problem> {
        check::network::floating_ip(body)
    }

    fn check_change(body: FloatingIpChange) -> Result<floating_ip::FloatingIpChange, Problem> {
        check::network::floating_ip_change(body)
    }

    fn view(self, related: &Related, _: SystemRole) -> FloatingIpView {
        floating_ip_view(self, related)
    }
}
