//! Images: rows by the storage-manager, bytes through it. A project reads its own images and public ones; it changes its own alone.

use crate::{
    app::{
        App,
        catalog::{KEY_BYTES_MAX, image_find},
        idempotency::IdempotencyRecord,
        intent::Intent,
        plan::{Done, Plan},
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{
    ErrorKind, ImageId, Name, Problem, ProjectId,
    image::{DiskFormat, Image, ImageKind, Visibility},
};

use proto::{convert::image_from_pb, storage::v1 as pb};

/// The image that `key` means, which must be the project's own.
pub async fn find_own(app: &App, project_id: ProjectId, key: &str) -> Result<Image, ApiError> {
    if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
        return Err(Problem::invalid("image", "an id or a name is expected").into());
    }
    let image = image_find(app, project_id, key).await?;
    if image.project_id == project_id {
        return Ok(image);
    }
    Err(Problem::new(
        ErrorKind::PermissionDenied,
        "foreign_image",
        format!("image {} is a public image of another project: it can be used here, but not changed", image.name),
    )
    .with_hint("change it in the project that owns it, or create an image of your own")
    .into())
}

/// A new image whose form was checked.
pub struct ImageRequest {
    pub name: Name,
    pub kind: ImageKind,
    pub format: DiskFormat,
    pub cmdline: String,
    pub min_memory_mib: u64,
    pub visibility: Visibility,
}

/// Makes an image without bytes. Only system admins make public ones.
pub async fn create(
    app: &App,
    caller: &Caller,
    project_id: ProjectId,
    request: ImageRequest,
    intent: &Intent,
) -> Result<Done<Image>, ApiError> {
    let ImageRequest { name, kind, format, cmdline, min_memory_mib, visibility } = request;
    if visibility == Visibility::Public && !caller.system_admin() {
        return Err(Problem::new(
            ErrorKind::PermissionDenied,
            "permission_denied",
            "only a system administrator can create a public image, since every project can boot it",
        )
        .with_field("/visibility", "you may only create private images")
        .with_hint("leave visibility out, or ask an administrator to create it")
        .into());
    }
    let record = IdempotencyRecord::open(app, caller, intent, 1, async { Ok(vec![]) }).await?;
    let id = record.ids.first().map(|id| ImageId(*id)).ok_or_else(unexpected)?;
    let request = pb::CreateImageRequest {
        id: id.to_string(),
        project_id: project_id.to_string(),
        name: name.to_string(),
        visibility: visibility.as_str().to_owned(),
        kind: kind.as_str().to_owned(),
        format: format.as_str().to_owned(),
        cmdline,
        min_memory_mib,
    };
    let answer = app.storage().create_image(record.request(request)).await;
    let answer = answer.map_err(|status| record.refused(status))?.into_inner();
    if intent.dry_run {
        let parts: Vec<&str> = kind.parts().iter().map(|p| p.as_str()).collect();
        let summary = format!("image {name} would be created; its bytes follow as {}", parts.join(" and "));
        return Ok(Done::Plan(plan(summary, name.as_str(), id)));
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
    let ids = async { Ok(vec![find_own(app, project_id, key).await?.id.0]) };
    let record = IdempotencyRecord::open(app, caller, intent, 0, ids).await?;
    let id = record.ids.first().map(|id| ImageId(*id)).ok_or_else(unexpected)?;
    let request = pb::DeleteImageRequest {
        project_id: project_id.to_string(),
        image_id: id.to_string(),
        expected_generation: intent.expected_generation(),
    };
    app.storage().delete_image(record.request(request)).await.map_err(|status| record.refused(status))?;
    app.catalog().invalidate();
    if intent.dry_run {
        return Ok(Done::Plan(plan(format!("image {key} would be deleted"), key, id)));
    }
    Ok(Done::Change(()))
}

pub(super) fn plan(summary: String, name: &str, id: ImageId) -> Plan {
    Plan::of(summary, vec![format!("image {name} ({id})")])
}

pub(super) fn received(image: Option<pb::Image>) -> Result<Image, ApiError> {
    image_from_pb(image.ok_or_else(unexpected)?)
        .map_err(|error| ApiError::internal("the storage-manager's answer makes no sense", &error))
}

fn unexpected() -> ApiError {
    tracing::error!("the storage-manager answered without the object");
    Problem::internal().into()
}
