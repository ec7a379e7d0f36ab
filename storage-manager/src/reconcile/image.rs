//! Images whose parts never came, and images whose deletion was begun.

use super::SweepError;
use crate::plan;
use domain::{
    Timestamp,
    event::NewEvent,
    image::{Image, ImageState},
};
use store::{CommitError, EventInsert, Guard, Store, Unit};

/// Deletes queued images past their deadline. The number that went.
pub async fn sweep_overdue(store: &Store, now: Timestamp) -> Result<u64, SweepError> {
    let due = store.image_deadline_passed(now).await.map_err(SweepError::Read)?;
    remove(store, due.into_iter().filter(|image| image.state == ImageState::Queued), |image| {
        format!("the image {} was deleted: its parts did not come in time", image.name)
    })
    .await
}

/// Deletes images in `deleting` that nothing uses any more. The number that went.
pub async fn sweep_deleting(store: &Store) -> Result<u64, SweepError> {
    let deleting = store.image_deleting().await.map_err(SweepError::Read)?;
    remove(store, deleting.into_iter(), |image| format!("the image {} was deleted", image.name)).await
}

async fn remove(
    store: &Store,
    images: impl Iterator<Item = Image>,
    message: impl Fn(&Image) -> String,
) -> Result<u64, SweepError> {
    let mut gone = 0;
    for image in images {
        let message = message(&image);
        tracing::info!(image_id = %image.id, "{message}");
        let found = store.image_reservation_find(image.id).await.map_err(SweepError::Read)?;
        let Some(reserved) = found else { continue };
        match store.commit(removal(&image, reserved.reserved_gib, message)).await {
            Ok(()) => gone += 1,
            // It was uploaded to, used or deleted meanwhile.
            Err(CommitError::Guard(Guard::ImageGeneration | Guard::ImageInUse)) => {}
            Err(error) => return Err(SweepError::Commit(error)),
        }
    }
    Ok(gone)
}

fn removal(image: &Image, reserved_gib: u64, message: String) -> Unit {
    let event = NewEvent {
        at: Timestamp::now(),
        project_id: Some(image.project_id),
        kind: "image.deleted".to_owned(),
        object_kind: "image".to_owned(),
        object_id: image.id.to_string(),
        message,
        request_id: String::new(),
        data: serde_json::json!({ "deadline_at": image.deadline_at }),
    };
    let mut unit = Unit::new().op(EventInsert(event));
    plan::push_removal(&mut unit, image, reserved_gib);
    unit
}
