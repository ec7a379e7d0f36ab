//! Flavors: named sizes. Everybody reads them; system admins make and delete them.

use crate::{
    app::{
        App,
        mutate::{self, Answer, Deed, OwnChange},
    },
    auth::scope::{Caller, SystemAdmin},
    http::{
        intent::{Change, Intent, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::{ApiError, ApiResult},
        query::{ProjectParams, Query},
        reply,
    },
    v1::view::{
        flavor::{FlavorCreate, FlavorView},
        plan::DryRun,
    },
};
use axum::extract::State;
use domain::{FlavorId, Problem, Timestamp, flavor::Flavor, limits};
use http::StatusCode;
use store::{FlavorDelete, FlavorInsert, Unit};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

/// Lists the flavors.
#[utoipa::path(get, path = "/v1/flavors", tag = "flavors", params(ListParams),
    responses((status = 200, body = List<FlavorView>)))]
async fn list(State(app): State<App>, _: Caller, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("flavors")?;
    let rows = app.store().flavor_list(page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), FlavorView::from)
}

/// Makes a flavor. System admins only.
#[utoipa::path(post, path = "/v1/flavors", tag = "flavors", params(MutationParams, MutationHeaders),
    request_body = FlavorCreate,
    responses((status = 201, body = FlavorView), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    Change { body, intent }: Change<FlavorCreate>,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        let size = body.size()?;
        if body.description.len() > limits::DESCRIPTION_BYTES {
            let detail = format!("more than {} bytes", limits::DESCRIPTION_BYTES);
            return Err(Problem::invalid("/description", detail).into());
        }
        if intent.dry_run && app.store().flavor_find_by_name(body.name.as_str()).await?.is_some() {
            return Err(Problem::already_exists("flavor", &body.name).into());
        }
        let flavor = Flavor {
            id: FlavorId::new(),
            name: body.name.clone(),
            size,
            pinning: body.pinning,
            description: body.description.clone(),
            generation: 1,
            created_at: Timestamp::now(),
        };
        let unit = Unit::new().op(FlavorInsert {
            id: flavor.id,
            name: flavor.name.clone(),
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            disk_gib: size.disk_gib,
            pinning: flavor.pinning,
            description: flavor.description.clone(),
            created_at: flavor.created_at,
        });
        let deed = deed("flavor.create", "flavor.created", "was created", &flavor);
        let answer = Answer::object(StatusCode::CREATED, flavor.generation, &FlavorView::from(flavor))?;
        Ok(OwnChange { unit, deed, answer, touches_identity: false })
    })
    .await
}

/// Shows a flavor.
#[utoipa::path(get, path = "/v1/flavors/{flavor}", tag = "flavors",
    params(("flavor" = String, Path, description = "Id or name.")), responses((status = 200, body = FlavorView)))]
async fn show(State(app): State<App>, _: Caller, Path(flavor): Path<String>, _: Query<ProjectParams>) -> ApiResult {
    let flavor = fetch(&app, &flavor).await?;
    reply::object(StatusCode::OK, flavor.generation, &FlavorView::from(flavor))
}

/// Deletes a flavor. Instances keep their size. System admins only.
#[utoipa::path(delete, path = "/v1/flavors/{flavor}", tag = "flavors",
    params(("flavor" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone.")))]
async fn delete(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    Path(flavor): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    mutate::own(&app, &caller, &intent, async || {
        let flavor = fetch(&app, &flavor).await?;
        intent.check_generation(flavor.generation)?;
        let unit = Unit::new().op(FlavorDelete { id: flavor.id });
        let deed = deed("flavor.delete", "flavor.deleted", "was deleted", &flavor);
        Ok(OwnChange { unit, deed, answer: Answer::none(), touches_identity: false })
    })
    .await
}

/// The flavor behind an id or a name.
pub async fn fetch(app: &App, key: &str) -> Result<Flavor, ApiError> {
    let found = match key.parse::<FlavorId>() {
        Ok(id) => app.store().flavor_find(id).await?,
        Err(_) => app.store().flavor_find_by_name(key).await?,
    };
    found.ok_or_else(|| Problem::not_found("flavor", key.chars().take(64).collect::<String>()).into())
}

fn deed(action: &'static str, event: &'static str, what: &str, flavor: &Flavor) -> Deed {
    Deed {
        action,
        event,
        object_kind: "flavor",
        object_id: flavor.id.to_string(),
        object_name: flavor.name.to_string(),
        project_id: None,
        message: format!("flavor {} {what}", flavor.name),
    }
}
