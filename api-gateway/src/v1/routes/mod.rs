//! All routes, and the API's description that is made of them. One file per kind of object; how to add one: docs/how-to/add-a-route.md.

pub mod api_key;
pub mod audit;
pub mod auth;
pub mod backup;
mod capacity;
pub mod console;
pub mod events;
pub mod explain;
pub mod external_network;
pub mod flavor;
pub mod floating_ip;
pub mod host;
pub mod host_join;
pub mod host_token;
pub mod image;
pub mod instance;
pub mod instance_action;
mod kind;
pub mod manager;
pub mod member;
pub mod network;
pub mod peering;
pub(crate) mod placement_group;
pub(crate) mod placement_record;
pub mod port;
pub mod project;
pub mod quota;
mod recovery;
pub mod router;
pub mod security_group;
pub mod ssh_key;
pub mod subnet;
pub mod system;
pub mod user;
pub mod whoami;

use crate::{
    app::App,
    http::problem::{FieldErrorView, ProblemDocument},
};
use axum::Router;
use utoipa::{
    OpenApi, PartialSchema, ToSchema,
    openapi::{
        Content, Ref, RefOr, Response,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

/// Paths that need no token. Everything else does, and a test asks each without one.
pub const PUBLIC: &[&str] = &[
    "/v1/auth/login",
    "/v1/auth/refresh",
    "/v1/auth/logout",
    // Its one-use ticket is the credential.
    "/v1/console",
    // A host token's secret, or an admitted host's key, is the credential.
    "/v1/host-joins",
    "/.well-known/jwks.json",
    "/healthz",
    "/readyz",
    "/openapi.json",
];

#[derive(OpenApi)]
#[openapi(info(
    title = "iaas",
    version = "v1",
    description = "The REST API of the cloud. Errors are RFC 9457 problem documents; their codes are listed in docs/errors.md."
))]
struct Description;

fn all() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(auth::routes())
        .merge(whoami::routes())
        .merge(project::routes())
        .merge(member::routes())
        .merge(quota::routes())
        .merge(user::routes())
        .merge(api_key::routes())
        .merge(ssh_key::routes())
        .merge(flavor::routes())
        .merge(events::routes())
        .merge(audit::routes())
        .merge(backup::routes())
        .merge(manager::routes())
        .merge(console::routes())
        .merge(explain::routes())
        .merge(capacity::routes())
        .merge(host::routes())
        .merge(host_join::routes())
        .merge(host_token::routes())
        .merge(image::routes())
        .merge(instance::routes())
        .merge(instance_action::routes())
        .merge(external_network::routes())
        .merge(floating_ip::routes())
        .merge(network::routes())
        .merge(peering::routes())
        .merge(placement_group::routes())
        .merge(placement_record::routes())
        .merge(port::routes())
        .merge(recovery::routes())
        .merge(router::routes())
        .merge(security_group::routes())
        .merge(subnet::routes())
        .merge(system::routes())
}

/// The router, and the OpenAPI 3.1 document of its routes.
pub fn build() -> (Router<App>, utoipa::openapi::OpenApi) {
    let (router, mut api) = all().split_for_parts();
    describe_common(&mut api);
    (router, api)
}

/// The document as it is checked in: pretty, with a newline at the end.
pub fn openapi_text() -> Result<String, serde_json::Error> {
    build().1.to_pretty_json().map(|text| text + "\n")
}

/// What all routes share, so that no route can forget to say it: the token, and that every error is a problem document.
fn describe_common(api: &mut utoipa::openapi::OpenApi) {
    let components = api.components.get_or_insert_default();
    for (name, schema) in
        [(ProblemDocument::name(), ProblemDocument::schema()), (FieldErrorView::name(), FieldErrorView::schema())]
    {
        components.schemas.insert(name.into_owned(), schema);
    }
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An access token of POST /v1/auth/login, or an API key."))
        .build();
    components.security_schemes.insert("bearer".to_owned(), RefOr::T(SecurityScheme::Http(scheme)));
    for (path, item) in &mut api.paths.paths {
        let public = PUBLIC.contains(&path.as_str());
        let operations: [&mut Option<Operation>; 5] =
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            operation.security =
                Some(if public { Vec::new() } else { vec![SecurityRequirement::new("bearer", Vec::<String>::new())] });
            let mut problem = Response::new("What failed, and what to do about it.");
            problem.content.insert(
                "application/problem+json".to_owned(),
                RefOr::T(Content::new(Some(RefOr::<utoipa::openapi::Schema>::Ref(Ref::from_schema_name("Problem"))))),
            );
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem));
        }
    }
}
