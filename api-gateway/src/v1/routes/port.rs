//! Ports: attachment points of networks, with their addresses.

use super::kind::{self, KindRoutes, ListQuery, Texts};
use crate::{
    app::{
        App,
        network::{kind::OfNetwork, port, related::Related},
    },
    auth::caller::SystemRole,
    http::{
        page::{ListParams, list_params},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        check,
        scope::{InProject, Read, Write},
        view::port::{PortTrafficView, PortView, port_traffic_view, port_view},
    },
};
use api_types::{PortChange, PortCreate};
use axum::extract::State;
use domain::{Problem, network::Port};
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    kind::routes::<Port>().routes(routes!(traffic))
}

list_params! {
    PortListParams {
        /// Only of this network: id or name.
        network: Option<String>,
        /// Only of this instance: id or name.
        instance: Option<String>,
        /// Only in this security group: id or name.
        security_group: Option<String>,
    }
}

impl ListQuery for PortListParams {
    type Filter = port::PortsOf;

    fn split(self) -> (ListParams, Self::Filter) {
        let params = self.common();
        let Self { network, instance, security_group, .. } = self;
        (params, port::PortsOf { network: OfNetwork(network), instance, security_group })
    }
}

impl KindRoutes for Port {
    const TEXTS: Texts = Texts {
        path: "/v1/ports",
        tag: "ports",
        param: "port",
        key: "Id or name.",
        list: "Lists the project's ports, those of instances included.",
        create: "Creates a port that can be attached to an instance and outlives it.",
        show: "Shows a port.",
        change: Some("Changes name, security groups, allowed addresses or rate limit."),
        delete: "Deletes a port that no instance uses and no floating IP leads to. Nobody else gets its addresses for a minute.",
    };
    type Reading = InProject<Read>;
    type Writing = InProject<Write>;
    type Query = PortListParams;
    type View = PortView;
    type CreateBody = PortCreate;
    type ChangeBody = PortChange;

    fn check_create(body: PortCreate) -> Result<port::PortCreate, Problem> {
        check::network::port(body)
    }

    fn check_change(body: PortChange) -> Result<port::PortChangeRequest, Problem> {
        check::network::port_change(body)
    }

    fn view(self, related: &Related, role: SystemRole) -> PortView {
        port_view(self, related, role)
    }
}

/// What passed through a port, and what was dropped at it and why.
#[utoipa::path(get, path = "/v1/ports/{port}/traffic", tag = "ports",
    params(("port" = String, Path, description = "Id or name."), ProjectParams),
    responses((status = 200, body = PortTrafficView)))]
async fn traffic(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let read = port::traffic(&app, scope.id(), &key).await?;
    reply::json(StatusCode::OK, &port_traffic_view(read))
}
