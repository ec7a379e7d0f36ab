//! Images: rows by the storage-manager, bytes through it. A project reads its own images and public ones; it changes its own alone.

use crate::{
    app::{App, catalog::image_find, idempotency::Ticket, instance::Done, instance_check::check_key},
    auth::scope::Caller,
    http::{intent::Intent, problem::ApiError},
    v1::view::{image::ImageCreate, plan::PlanView},
};
use domain::{
    ErrorKind, ImageId, Problem, ProjectId, Violations,
    image::{DiskFormat, Image, ImageKind, Visibility},
    validate,
};
use proto::{convert::image_from_pb, storage::v1 as pb};

/// The image that `key` means, which must be the project's own.
pub async fn find_own(app: &App, project_id: ProjectId, key: &str) -> Result<Image, ApiError> {
    let mut violations = Violations::default();
    check_key(&mut violations, "image", key);
    violations.finish()?;
    let image = image_find(app, project_id, key).await?;
    if image.project_id == project_id {
        return Ok(image);
    }
    Err(Problem::new(
        ErrorKind::PermissionDenied,
        "foreign_image",
        format!("image {} is a public one of another project: it can be used here, not changed", image.name),
    )
    .with_hint("ask in the project that owns it, or make an image of your own")
    .into())
}

/// What a request may say of a new image.
pub fn check_create(body: &ImageCreate) -> Result<(), Problem> {
    let mut violations = Violations::default();
    validate::name(&mut violations, "/name", &body.name);
    let formatted = body.kind == ImageKind::Disk || body.format.is_none();
    violations.unless(formatted, "/format", || "only disk images have one".to_owned());
    validate::image::cmdline(&mut violations, "/cmdline", body.kind, body.cmdline.as_deref().unwrap_or_default());
    let min_memory_mib = body.min_memory_mib.unwrap_or_default();
    validate::image::min_memory_mib(&mut violations, "/min_memory_mib", min_memory_mib);
    violations.finish()
}

/// Makes an image without bytes. Only system admins make public ones.
pub async fn create(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    body: &ImageCreate,
    intent: &Intent,
) -> Result<Done<Image>, ApiError> {
    check_create(body)?;
    let visibility = body.visibility.unwrap_or(Visibility::Private);
    if visibility == Visibility::Public && !caller.system_admin() {
        return Err(Problem::new(
            ErrorKind::PermissionDenied,
            "permission_denied",
            "a public image needs a system administrator: every project can boot it",
        )
        .with_field("/visibility", "private is what you may make")
        .with_hint("leave visibility out, or ask an administrator to publish it")
        .into());
    }
    let ticket = Ticket::open(app, caller, intent, async || Ok(vec![ImageId::new().0])).await?;
    let id = ticket.ids.first().map(|id| ImageId(*id)).ok_or_else(unexpected)?;
    let format = match body.kind {
        ImageKind::Disk => body.format.unwrap_or(DiskFormat::Qcow2),
        ImageKind::Kernel => DiskFormat::Raw,
    };
    let request = pb::CreateImageRequest {
        id: id.to_string(),
        project_id: project_id.to_string(),
        name: body.name.clone(),
        visibility: visibility.as_str().to_owned(),
        kind: body.kind.as_str().to_owned(),
        format: format.as_str().to_owned(),
        cmdline: body.cmdline.clone().unwrap_or_default(),
        min_memory_mib: body.min_memory_mib.unwrap_or_default(),
    };
    let answer = app.storage().create_image(ticket.request(request)).await;
    let answer = answer.map_err(|status| ticket.refused(status))?.into_inner();
    if intent.dry_run {
        let parts: Vec<&str> = body.kind.parts().iter().map(|p| p.as_str()).collect();
        let summary = format!("image {} would be made; its bytes follow as {}", body.name, parts.join(" and "));
        return Ok(Done::Plan(plan(summary, &body.name, id)));
    }
    received(answer.image).map(Done::Change)
}

/// Deletes an image that no instance uses.
pub async fn delete(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    key: &str,
    intent: &Intent,
) -> Result<Done<()>, ApiError> {
    let ids = async || Ok(vec![find_own(app, project_id, key).await?.id.0]);
    let ticket = Ticket::open(app, caller, intent, ids).await?;
    let id = ticket.ids.first().map(|id| ImageId(*id)).ok_or_else(unexpected)?;
    let request = pb::DeleteImageRequest {
        project_id: project_id.to_string(),
        image_id: id.to_string(),
        expected_generation: intent.expected_generation(),
    };
    app.storage().delete_image(ticket.request(request)).await.map_err(|status| ticket.refused(status))?;
    app.catalog().invalidate();
    if intent.dry_run {
        return Ok(Done::Plan(plan(format!("image {key} would be deleted"), key, id)));
    }
    Ok(Done::Change(()))
}

pub(super) fn plan(summary: String, name: &str, id: ImageId) -> PlanView {
    PlanView { summary, placement: None, quota_left: None, touches: vec![format!("image {name} ({id})")] }
}

pub(super) fn received(image: Option<pb::Image>) -> Result<Image, ApiError> {
    image_from_pb(image.ok_or_else(unexpected)?)
        .map_err(|error| ApiError::internal("the storage-manager's answer makes no sense", &error))
}

fn unexpected() -> ApiError {
    tracing::error!("the storage-manager answered without the object");
    Problem::internal().into()
}
