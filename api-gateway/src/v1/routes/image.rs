//! Images: their rows, and their bytes part by part.

use crate::{
    app::{
        App,
        catalog::image_find,
        image,
        image_upload::{self, UploadTarget},
        intent::Intent,
    },
    http::{
        intent::{Change, MutationHeaders, MutationParams},
        page::{List, ListParams},
        path::Path,
        problem::ApiResult,
        query::{ProjectParams, Query},
        reply,
    },
    v1::{
        answer, check,
        scope::{InProject, Read, Write},
        view::{image::ImageBytes, plan::DryRun},
    },
};
use api_types::{Image, ImageCreate};
use axum::{body::Body, extract::State};
use domain::{Problem, image::ImagePartKind};
use http::{HeaderMap, StatusCode};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete)).routes(routes!(upload))
}

/// Lists the project's images and the public ones.
#[utoipa::path(get, path = "/v1/images", tag = "images", params(ListParams),
    responses((status = 200, body = List<Image>)))]
async fn list(State(app): State<App>, scope: InProject<Read>, Query(params): Query<ListParams>) -> ApiResult {
    let page = params.page(&format!("images of {}", scope.id()))?;
    let rows = app.store().image_list(scope.id(), page.store_page()).await?;
    page.reply(rows, |row| row.id.to_string(), Image::from)
}

/// Creates an image without bytes; it becomes active when all its parts are uploaded. Only system admins create public images.
#[utoipa::path(post, path = "/v1/images", tag = "images", params(MutationParams, MutationHeaders), request_body = ImageCreate,
    responses((status = 201, body = Image), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn create(
    State(app): State<App>,
    scope: InProject<Write>,
    _: Query<MutationParams>,
    Change { body, intent }: Change<ImageCreate>,
) -> ApiResult {
    let request = check::image::check_create(body)?;
    let done = image::create(&app, &scope.caller, scope.id(), request, &intent).await?;
    answer::object(StatusCode::CREATED, done, |image| image.generation, Image::from)
}

/// Shows an image.
#[utoipa::path(get, path = "/v1/images/{image}", tag = "images",
    params(("image" = String, Path, description = "Id, or name: the project's own, else a public one."), ProjectParams),
    responses((status = 200, body = Image)))]
async fn show(
    State(app): State<App>,
    scope: InProject<Read>,
    Path(key): Path<String>,
    _: Query<ProjectParams>,
) -> ApiResult {
    let image = image_find(&app, scope.id(), &key).await?;
    reply::object(StatusCode::OK, image.generation, &Image::from(image))
}

/// Deletes an image that no instance uses.
#[utoipa::path(delete, path = "/v1/images/{image}", tag = "images",
    params(("image" = String, Path, description = "Id or name."), MutationParams, MutationHeaders),
    responses((status = 204, description = "It is gone."), (status = 200, description = "With dry_run.", body = DryRun)))]
async fn delete(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(key): Path<String>,
    _: Query<MutationParams>,
    intent: Intent,
) -> ApiResult {
    answer::deleted(image::delete(&app, &scope.caller, scope.id(), &key, &intent).await?)
}

/// Uploads the bytes of one part. Nothing is kept of an upload that breaks off. The image becomes active when all its parts are uploaded.
#[utoipa::path(put, path = "/v1/images/{image}/parts/{part}", tag = "images",
    params(("image" = String, Path, description = "Id or name."),
        ("part" = inline(crate::v1::view::names::ImagePartName), Path, description = "disk; or kernel and initrd."),
        ("X-Content-Sha256" = Option<String>, Header, description = "The SHA-256 of the bytes in hex; it is checked."),
        MutationParams, MutationHeaders),
    request_body(content = ImageBytes, content_type = "application/octet-stream", description = "The bytes, streamed."),
    responses((status = 200, body = Image)))]
async fn upload(
    State(app): State<App>,
    scope: InProject<Write>,
    Path(path): Path<(String, String)>,
    _: Query<MutationParams>,
    headers: HeaderMap,
    intent: Intent,
    body: Body,
) -> ApiResult {
    let (key, part) = path;
    let part = ImagePartKind::parse(&part)
        .ok_or_else(|| Problem::invalid("part", "one of disk, kernel, initrd is expected"))?;
    let declared = check::image::declared(&headers)?;
    let target = UploadTarget { project_id: scope.id(), key: &key, part };
    let bytes = body.into_data_stream();
    let done = image_upload::upload(&app, &scope.caller, target, declared, &intent, bytes).await?;
    answer::object(StatusCode::OK, done, |image| image.generation, Image::from)
}
