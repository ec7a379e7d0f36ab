use crate::fixture::{Lab, at, first, image_insert, instance_insert, name};
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
        deadline_at: Some(at(60)),
        ..image_insert(theirs, "tiny")
    };
    lab.one(tiny.clone()).await;
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
        format: DiskFormat::Raw,
        min_disk_gib: 3,
        reason: "ready".into(),
        deadline_at: None,
    };
    lab.one(change.clone()).await;
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
    let hashes = BTreeSet::from(["01".repeat(32), "02".repeat(32), "ab".repeat(32)]);
    assert_eq!(lab.image_hashes().await.unwrap(), hashes);

    let user = instance_insert(mine, None, own, "uses-it");
    lab.one(user.clone()).await;
    assert_eq!(lab.guard(ImageDelete { id: own }).await, Guard::ImageInUse);
    assert_eq!(lab.image_use_count(own).await.unwrap(), 1);
    assert!(lab.image_deleting().await.unwrap().is_empty());
    let there = lab.image_find(own).await.unwrap().unwrap();
    let deleting = ImageChange {
        id: own,
        expected_generation: 1,
        state: ImageState::Deleting,
        parts: there.parts,
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
    lab.one(ImageDelete { id: own }).await;
    let desired = lab.desired_load_many(&[user.id]).await.unwrap();
    assert_eq!(desired[0].image, None, "an instance that is being deleted outlives its image");
    assert_eq!(lab.guard(ImageDelete { id: own }).await, Guard::ImageInUse);
    lab.one(InstanceDelete { id: user.id, epoch: 1 }).await;
}
