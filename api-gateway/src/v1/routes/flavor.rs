//! Flavors: named sizes. Everybody reads them; system admins create and delete them.

use crate::{
    app::{App, flavor, intent::Intent},
    auth::caller::Caller,
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{answer, check, scope::SystemAdmin, view::plan::DryRun},
};
use api_types::{Flavor, FlavorCreate};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

/// Lists the flavors.
#[utoipa::path(get, path = "/v1/flavors", tag = "flavors", params(ListParams),
    responses((status = 200, body = List<Flavor>)))]
async fn list(State(app): State<App>, _: Caller, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("flavors")?;
    let rows = app.store().flavor_list(page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), Flavor::from)
}

/// Creates a flavor. System admins only.
#[utoipa::path(post, path = "/v1/flavors", tag = "flavors", params(MutationParams, MutationHeaders),
    request_body = FlavorCreate,
    responses((status = 201, body = Flavor), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    Change { body, intent }: Change<FlavorCreate>,
) -> ApiResult {
    let done = flavor::create(&app, &caller, check::flavor::create(body)?, &intent).await?;
    answer::object(StatusCode::CREATED, done, |flavor| flavor.generation, Flavor::from)
}

/// Shows a flavor.
#[utoipa::path(get, path = "/v1/flavors/{flavor}", tag = "flavors",
    params(("flavor" = String, Path, description = "Id or name.")), responses((status = 200, body = Flavor)))]
async fn show(State(app): State<App>, _: Caller, Path(key): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    let flavor = flavor::find(&app, &key).await?;
    reply::object(StatusCode::OK, flavor.generation, &Flavor::from(flavor))
}

/// Deletes a flavor. Instances keep their size. System admins only.
#[utoipa::path(delete, path = "/v1/flavors/{flavor}", tag = "flavors",
    params(("flavor" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone.")))]
async fn delete(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(flavor::delete(&app, &caller, &key, &intent).await?)
}
