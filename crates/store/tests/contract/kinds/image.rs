use crate::fixture::{Lab, at, first, image_end, image_insert, image_with_usage, instance_insert, name};
use domain::{
    ImageId, ProjectId,
    image::{DiskFormat, ImageKind, ImagePart, ImagePartKind, ImageState, Visibility},
    instance::InstanceState,
};
use std::collections::BTreeSet;
use store::*;

pub async fn walk(lab: &Lab) {
    let (mine, theirs) = (lab.project("image-mine").await, lab.project("image-theirs").await);
    let tiny = ImageInsert {
        visibility: Visibility::Public,
        kind: ImageKind::Kernel,
        format: DiskFormat::Raw,
        cmdline: "console=ttyS0".into(),
        state: ImageState::Queued,
        parts: Vec::new(),
        size_gib: 0,
        deadline_at: Some(at(60)),
        ..image_insert(theirs, "tiny")
    };
    lab.all(image_with_usage(tiny.clone())).await;
    reservations(lab, &tiny).await;
    let again = ImageInsert { id: ImageId::new(), ..tiny.clone() };
    assert_eq!(lab.constraint(again.clone()).await, Constraint::ImageName);
    let adrift = ImageInsert { project_id: ProjectId::new(), ..again };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::ImageProject));
    let same_id = ImageInsert { name: name("other"), ..tiny.clone() };
    assert_eq!(lab.constraint(same_id).await, Constraint::PrimaryKey(Table::Image));
    assert!(lab.image_deadline_passed(at(59)).await.unwrap().is_empty());
    assert_eq!(lab.image_deadline_passed(at(60)).await.unwrap()[0].id, tiny.id);

    let part = |kind, byte: &str| ImagePart { kind, sha256: byte.repeat(32), size_bytes: 5 };
    let parts = vec![part(ImagePartKind::Kernel, "01"), part(ImagePartKind::Initrd, "02")];
    let change = ImageChange {
        id: tiny.id,
        expected_generation: 1,
        state: ImageState::Active,
        parts: parts.clone(),
        size_gib: 1,
        format: DiskFormat::Raw,
        min_disk_gib: 3,
        reason: "ready".into(),
        deadline_at: None,
    };
    lab.all(Unit::new().op(change.clone()).op(StorageUsageAdd::image(theirs, 0, 1))).await;
    let late = Unit::new().op(ImageReserve { id: tiny.id, gib: 1 }).op(StorageUsageAdd::image(theirs, 0, 1));
    let late = lab.try_commit(late).await;
    assert!(matches!(late, Err(CommitError::Guard(Guard::ImageReservation))), "the image is complete: {late:?}");
    assert_eq!(lab.guard(change).await, Guard::ImageGeneration);
    let row = lab.image_find(tiny.id).await.unwrap().unwrap();
    assert_eq!((row.state, &row.parts, row.generation, row.deadline_at), (ImageState::Active, &parts, 2, None));
    assert_eq!((row.kind, row.cmdline.as_str(), row.min_disk_gib), (ImageKind::Kernel, "console=ttyS0", 3));
    assert_eq!(lab.image_find(ImageId::new()).await.unwrap(), None);

    let secret = lab.image(theirs, "secret").await;
    assert_eq!(lab.image_find_by_name(mine, "tiny").await.unwrap().unwrap().id, tiny.id, "a public one");
    assert_eq!(lab.image_find_by_name(mine, "secret").await.unwrap(), None, "another's private one");
    let own = lab.image(mine, "tiny").await;
    assert_eq!(lab.image_find_by_name(mine, "tiny").await.unwrap().unwrap().id, own, "one's own first");
    assert_eq!(lab.image_find_by_name(theirs, "tiny").await.unwrap().unwrap().id, tiny.id);
    let listed = |rows: Vec<domain::image::Image>| rows.iter().map(|i| i.id).collect::<Vec<_>>();
    assert_eq!(listed(lab.image_list(mine, first(9)).await.unwrap()), [tiny.id, own]);
    assert_eq!(listed(lab.image_list(theirs, first(9)).await.unwrap()), [tiny.id, secret]);
    let names = |image_id, byte: &str| ImageObjectPut { sha256: byte.repeat(32), image_id };
    let named = Unit::new().op(names(tiny.id, "01")).op(names(tiny.id, "02")).op(names(own, "ab"));
    lab.all(named.op(names(secret, "ab"))).await;
    lab.one(names(own, "ab")).await;
    let adrift = names(ImageId::new(), "ab");
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::ImageObjectImage));
    let hashes = BTreeSet::from(["01".repeat(32), "02".repeat(32), "ab".repeat(32)]);
    assert_eq!(lab.image_hashes().await.unwrap(), hashes);

    let (host, another) = (lab.host("image-host").await, lab.host("image-other").await);
    let user = instance_insert(mine, None, own, "uses-it");
    lab.one(user.clone()).await;
    let placed = instance_insert(mine, Some(host), tiny.id, "placed");
    lab.one(placed.clone()).await;
    let (of_tiny, of_own) = ("01".repeat(32), "ab".repeat(32));
    assert!(lab.image_object_used_on_host(&of_tiny, host).await.unwrap());
    assert!(!lab.image_object_used_on_host(&of_tiny, another).await.unwrap());
    assert!(!lab.image_object_used_on_host(&of_own, host).await.unwrap(), "nothing there is made of it");
    lab.one(InstanceDelete { id: placed.id, epoch: 1 }).await;
    assert!(lab.image_object_used(&of_own).await.unwrap() && !lab.image_object_used("cd").await.unwrap());
    assert_eq!(lab.guard(ImageDelete { id: own, reserved_gib: 0 }).await, Guard::ImageInUse);
    assert_eq!(lab.image_use_count(own).await.unwrap(), 1);
    assert!(lab.image_deleting().await.unwrap().is_empty());
    let there = lab.image_find(own).await.unwrap().unwrap();
    let deleting = ImageChange {
        id: own,
        expected_generation: 1,
        state: ImageState::Deleting,
        parts: there.parts,
        size_gib: 8,
        format: there.format,
        min_disk_gib: there.min_disk_gib,
        reason: String::new(),
        deadline_at: None,
    };
    lab.one(deleting).await;
    assert_eq!(lab.image_deleting().await.unwrap()[0].id, own);
    let row = lab.instance_find(None, user.id).await.unwrap().unwrap();
    let deleting = InstanceDesired { state: InstanceState::Deleting, image_id: None, ..crate::fixture::desired(&row) };
    let rebuilt = InstanceDesired { image_id: Some(ImageId::new()), ..deleting.clone() };
    assert_eq!(lab.guard(rebuilt).await, Guard::InstanceGeneration, "of an image that is gone");
    lab.one(deleting).await;
    assert_eq!(lab.image_use_count(own).await.unwrap(), 0);
    lab.all(image_end(mine, own, 8)).await;
    let desired = lab.desired_load_many(&[user.id]).await.unwrap();
    assert_eq!(desired[0].image, None, "an instance that is being deleted outlives its image");
    assert_eq!(lab.guard(ImageDelete { id: own, reserved_gib: 0 }).await, Guard::ImageInUse);
    lab.one(InstanceDelete { id: user.id, epoch: 1 }).await;
}

async fn reservations(lab: &Lab, image: &ImageInsert) {
    let reserve = |gib: i64| {
        let usage = StorageUsageAdd::image(image.project_id, 0, gib);
        Unit::new().op(ImageReserve { id: image.id, gib }).op(usage)
    };
    assert!(lab.image_reservation_list().await.unwrap().is_empty());
    let (a, b) = tokio::join!(lab.try_commit(reserve(3)), lab.try_commit(reserve(4)));
    a.and(b).expect("two uploads at once");
    let row = lab.image_reservation_find(image.id).await.unwrap().unwrap();
    assert_eq!((row.project_id, row.reserved_gib), (image.project_id, 7));
    assert_eq!(lab.image_reservation_list().await.unwrap(), [row]);
    let over = lab.try_commit(reserve(crate::fixture::LIMIT.image_gib)).await;
    assert!(matches!(over, Err(CommitError::Guard(Guard::StorageQuota))), "{over:?}");
    let stale = ImageDelete { id: image.id, reserved_gib: 6 };
    assert_eq!(lab.guard(stale).await, Guard::ImageInUse, "something else was reserved meanwhile");
    let more = lab.try_commit(reserve(-8)).await;
    assert!(matches!(more, Err(CommitError::Guard(Guard::ImageReservation))), "{more:?}");
    lab.all(reserve(-7)).await;
    assert!(lab.image_reservation_list().await.unwrap().is_empty());
    assert_eq!(lab.image_reservation_find(ImageId::new()).await.unwrap(), None);
}
