//! Backups of the database.

use crate::{
    app::{App, backup, intent::Intent, page::on_page},
    http::{
        intent::{MutationHeaders, MutationParams},
        page::{List, ListParams},
        problem::ApiResult,
        query::Query,
    },
    v1::{answer, scope::SystemAdmin},
};
use api_types::{Backup, DryRun};
use axum::extract::State;
use http::StatusCode;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create))
}

/// Lists the backups on the API's machine, the oldest first. System admins only.
#[utoipa::path(get, path = "/v1/backups", tag = "system", params(ListParams),
    responses((status = 200, body = List<Backup>)))]
async fn list(State(app): State<App>, _: SystemAdmin, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page("backups")?;
    let rows = on_page(backup::list(&app).await?, &page.store_page(), |backup| backup.name.clone());
    page.reply(rows, |backup| backup.name.clone(), view)
}

/// Copies the database (SQLite) to a file on the API's machine, whole and of one moment, and keeps the last few copies. System admins only.
#[utoipa::path(post, path = "/v1/backups", tag = "system", params(MutationParams, MutationHeaders),
    responses((status = 201, body = Backup), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    SystemAdmin(caller): SystemAdmin,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::plain(StatusCode::CREATED, backup::create(&app, &caller, &intent).await?, view)
}

fn view(backup: backup::Backup) -> Backup {
    let backup::Backup { name, path, size_bytes, sha256, created_at } = backup;
    Backup { name, path: path.display().to_string(), size_bytes, sha256, created_at }
}
