//! What has passed its time goes, with a reason.

use crate::support::{World, context, create_request, noise};
use domain::{ImageId, Timestamp};
use storage_manager::{Config, reconcile};
use store::OperationTable;

#[tokio::test]
async fn an_image_without_its_parts_goes_after_its_deadline() {
    for world in World::each().await {
        let (never, active) = (
            world.create("never", "disk", "raw").await.expect("made"),
            world.create("active", "disk", "raw").await.expect("made"),
        );
        world.upload(&active, "disk", &noise(512)).await.expect("uploaded");
        let now = Timestamp::now();
        assert_eq!(reconcile::image::sweep_overdue(&world.store, now).await.expect("swept"), 0, "not yet");
        let later = now.plus_secs(4000);
        let (a, b) = tokio::join!(
            reconcile::image::sweep_overdue(&world.store, later),
            reconcile::image::sweep_overdue(&world.store, later),
        );
        assert_eq!(a.expect("swept") + b.expect("swept"), 1, "once, by one of two sweepers");
        assert!(world.image(never.id.parse().expect("an id")).await.is_none());
        assert!(world.image(active.id.parse().expect("an id")).await.is_some());
        let events = world.store.event_of_object(&never.id, 0, 10).await.expect("events");
        let last = events.last().expect("an event");
        assert_eq!(last.kind, "image.deleted");
        assert!(last.message.contains("did not come in time"), "{}", last.message);
        world.create("never", "disk", "raw").await.expect("its name is free");
        world.end().await;
    }
}

#[tokio::test]
async fn an_upload_extends_the_deadline() {
    let world = World::with(Config { image_deadline_secs: 3600, ..Config::default() }).await;
    let image = world.create("slow", "kernel", "").await.expect("made");
    let id: ImageId = image.id.parse().expect("an id");
    let row = world.image(id).await.expect("a row");
    let soon = store::ImageChange {
        id,
        expected_generation: row.generation,
        state: row.state,
        parts: row.parts,
        size_gib: 0,
        format: row.format,
        min_disk_gib: row.min_disk_gib,
        reason: row.reason,
        deadline_at: Some(Timestamp::now().plus_secs(60)),
    };
    world.store.commit(store::Unit::new().op(soon)).await.expect("almost over");
    world.upload(&image, "initrd", &crate::support::initrd()).await.expect("uploaded");
    let deadline = world.image(id).await.expect("a row").deadline_at.expect("it still waits for its kernel");
    assert!(deadline > Timestamp::now().plus_secs(3000), "an upload that began in time is not overtaken");
    world.end().await;
}

#[tokio::test]
async fn an_image_left_in_deleting_is_finished() {
    let world = World::one().await;
    let image = world.create("half", "disk", "raw").await.expect("made");
    let id: ImageId = image.id.parse().expect("an id");
    let row = world.image(id).await.expect("a row");
    let deleting = store::ImageChange {
        id,
        expected_generation: row.generation,
        state: domain::image::ImageState::Deleting,
        parts: row.parts,
        size_gib: 0,
        format: row.format,
        min_disk_gib: 0,
        reason: String::new(),
        deadline_at: None,
    };
    world.store.commit(store::Unit::new().op(deleting)).await.expect("deletion begun");
    // The running reconciler may be faster than this sweep: gone is what counts.
    reconcile::image::sweep_deleting(&world.store).await.expect("swept");
    assert_eq!(world.image(id).await, None);
    world.end().await;
}

#[tokio::test]
async fn the_running_reconciler_sweeps_what_is_due() {
    let world = World::with(Config { sweep_secs: 1, ..Config::default() }).await;
    let context = context();
    let request = create_request(ImageId::new(), world.project_id, "x", "disk", "raw");
    let image = world.create_as(&context, request).await.expect("made");
    let id: ImageId = image.id.parse().expect("an id");
    let row = world.image(id).await.expect("a row");
    let overdue = store::ImageChange {
        id,
        expected_generation: row.generation,
        state: row.state,
        parts: row.parts,
        size_gib: 0,
        format: row.format,
        min_disk_gib: 0,
        reason: row.reason,
        deadline_at: Some(Timestamp(1)),
    };
    world.store.commit(store::Unit::new().op(overdue)).await.expect("overdue");
    crate::support::eventually("the image is swept", async || world.image(id).await.is_none()).await;
    world.end().await;
}

#[tokio::test]
async fn outcomes_are_kept_for_a_day() {
    for world in World::each().await {
        let context = context();
        let request = create_request(ImageId::new(), world.project_id, "x", "disk", "raw");
        world.create_as(&context, request).await.expect("made");
        let operation = context.operation_id.expect("an operation");
        let find = async || world.store.operation_find(OperationTable::Storage, operation).await.expect("a read");
        reconcile::sweep_operations(&world.store, Timestamp::now(), 24 * 3600).await.expect("swept");
        assert!(find().await.is_some(), "a repeat may still come");
        let tomorrow = Timestamp::now().plus_secs(25 * 3600);
        reconcile::sweep_operations(&world.store, tomorrow, 24 * 3600).await.expect("swept");
        assert!(find().await.is_none());
        world.end().await;
    }
}
