//! What images take of their project's quota, and of the disk.

use crate::support::{World, context, create_request, eventually, initrd, kernel, message, noise, qcow2, sha256};
use bytes::Bytes;
use domain::{ErrorKind, ImageId, Problem, quota::QuotaAmounts};
use futures::future::join_all;
use proto::{
    status::from_status,
    storage::v1::{self as pb, upload_image_request::Message},
};
use service_kit::context::CallContext;
use storage_manager::{Config, reservation::ImageReservations};
use store::{ImageReserve, QuotaLimitPut, StorageUsageAdd, Unit};
use tokio::{sync::mpsc, task::JoinHandle};

impl World {
    async fn limit_images(&self, images: i64, image_gib: i64) {
        let limit = QuotaAmounts { images, image_gib, ..QuotaAmounts::NONE };
        self.store.commit(Unit::new().op(QuotaLimitPut::new(self.project_id, &limit, 0))).await.expect("set");
    }

    async fn create_many(&self, count: usize) -> Vec<Result<pb::Image, Problem>> {
        let names: Vec<String> = (0..count).map(|n| format!("i{n}")).collect();
        join_all(names.iter().map(|name| self.create(name, "disk", "raw"))).await
    }

    /// Images, and the GiB that they and uploads in progress take.
    async fn used_by_images(&self) -> (i64, i64) {
        let used = self.store.quota_usage(self.project_id).await.expect("usage");
        (used.images, used.image_gib)
    }

    /// An upload that has sent `first` and waits.
    async fn open_upload(&self, image: &pb::Image, size_bytes: u64, first: Vec<u8>) -> OpenUpload {
        let (sender, receiver) = mpsc::channel(4);
        let mut client = self.client.clone();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let call = tokio::spawn(async move {
            client.upload_image(context().request(stream)).await.map(|_| ()).map_err(|status| from_status(&status))
        });
        sender.send(message(Message::Open(self.open(image, "disk", "", size_bytes)))).await.expect("taken");
        sender.send(message(Message::Chunk(Bytes::from(first)))).await.expect("taken");
        OpenUpload { sender, call }
    }

    async fn delete(&self, image: &pb::Image) -> Result<(), Problem> {
        let request = pb::DeleteImageRequest {
            project_id: self.project_id.to_string(),
            image_id: image.id.clone(),
            expected_generation: 0,
        };
        let answer = self.client.clone().delete_image(context().request(request)).await;
        answer.map(|_| ()).map_err(|status| from_status(&status))
    }
}

struct OpenUpload {
    sender: mpsc::Sender<pb::UploadImageRequest>,
    call: JoinHandle<Result<(), Problem>>,
}

#[tokio::test]
async fn images_are_counted_exactly_and_released_on_deletion() {
    for world in World::each().await {
        world.limit_images(7, 10).await;
        let made = world.create_many(40).await;
        assert_eq!(made.iter().filter(|image| image.is_ok()).count(), 7);
        let refused = made.iter().find_map(|image| image.as_ref().err()).expect("one is refused");
        assert_eq!((refused.kind, refused.code.as_str()), (ErrorKind::QuotaExceeded, "quota_exceeded"));
        assert!(refused.detail.contains("images: 1 requested, 7 used, limit 7"), "{}", refused.detail);
        let dry = CallContext { dry_run: true, ..context() };
        let planned = world.create_as(&dry, create_request(ImageId::new(), world.project_id, "p", "disk", "raw")).await;
        assert_eq!(planned.expect_err("the plan says so too").kind, ErrorKind::QuotaExceeded);
        let first = made.into_iter().flatten().next().expect("made");
        world.upload(&first, "disk", &noise(512)).await.expect("uploaded");
        assert_eq!(world.used_by_images().await, (7, 1), "a part of a GiB counts as one");
        world.delete(&first).await.expect("deleted");
        assert_eq!(world.used_by_images().await, (6, 0));
        world.create("after", "disk", "raw").await.expect("there is room again");
        world.end().await;
    }
}

#[tokio::test]
async fn parts_of_one_image_are_rounded_up_together() {
    let world = World::one().await;
    let image = world.create("tiny", "kernel", "").await.expect("made");
    for (part, content) in [("kernel", kernel(1)), ("initrd", initrd())] {
        world.upload(&image, part, &content).await.expect("uploaded");
        world.upload(&image, part, &content).await.expect("a repeat takes nothing more");
        assert_eq!(world.used_by_images().await, (1, 1));
    }
    world.end().await;
}

#[tokio::test]
async fn uploads_reserve_what_they_announce_before_their_bytes_come() {
    // One project alone may take half of the places.
    for mut world in World::each_with(Config { uploads_max: 128, ..Config::default() }).await {
        world.limit_images(40, 3).await;
        let made = world.create_many(40).await;
        let images: Vec<_> = made.into_iter().map(|image| image.expect("made")).collect();
        let mut uploads = Vec::new();
        for image in &images {
            uploads.push(world.open_upload(image, 1 << 30, noise(512)).await);
        }
        let refused = async || uploads.iter().filter(|upload| upload.call.is_finished()).count();
        eventually("all but three are refused", async || refused().await == 37).await;
        assert_eq!(world.used_by_images().await, (40, 3));
        assert_eq!(world.temporary_files(), 3, "what is refused takes no byte");
        let mut waiting = Vec::new();
        for upload in uploads {
            if !upload.call.is_finished() {
                waiting.push(upload);
                continue;
            }
            let problem = upload.call.await.expect("no panic").expect_err("refused");
            assert_eq!(problem.code, "quota_exceeded");
            assert!(problem.detail.contains("image_gib: 1 requested, 3 used, limit 3"), "{}", problem.detail);
        }
        // One ends with other bytes than it announced, one's caller goes away, and one's image is deleted.
        let [short, cut, deleted] = <[OpenUpload; 3]>::try_from(waiting).unwrap_or_else(|_| panic!("three wait"));
        drop(short.sender);
        assert_eq!(short.call.await.expect("no panic").expect_err("too short").code, "size_mismatch");
        assert_eq!(world.used_by_images().await, (40, 2), "it is released when the caller is answered");
        cut.call.abort();
        drop(cut.sender);
        eventually("it is released when the caller goes away", async || world.used_by_images().await == (40, 1)).await;
        let reserved = world.store.image_reservation_list().await.expect("a read");
        let image = images.iter().find(|image| image.id == reserved[0].id.to_string()).expect("one of them");
        world.delete(image).await.expect("an upload keeps no image");
        assert_eq!(world.used_by_images().await, (39, 0), "the deletion released it");
        drop(deleted.sender);
        deleted.call.await.expect("no panic").expect_err("its image is gone");
        assert_eq!(world.used_by_images().await, (39, 0), "and it isn't released twice");
        world.project_id = world.project(1).await;
        world.end().await;
    }
}

#[tokio::test]
async fn bytes_that_were_not_announced_are_reserved_as_they_come() {
    let world = World::one().await;
    world.limit_images(5, 0).await;
    let image = world.create("raw", "disk", "raw").await.expect("made");
    let unannounced = world.upload_as(&context(), world.open(&image, "disk", "", 0), &noise(512)).await;
    let problem = unannounced.expect_err("nothing is left");
    assert!(problem.detail.contains("image_gib: 1 requested, 0 used, limit 0"), "{}", problem.detail);
    assert!(!world.object_path(&sha256(&noise(512))).exists());
    eventually("the temporary file is gone", async || world.temporary_files() == 0).await;
    world.limit_images(5, 1).await;
    world.upload_as(&context(), world.open(&image, "disk", "", 0), &noise(512)).await.expect("uploaded");
    world.end().await;
}

#[tokio::test]
async fn a_refused_image_takes_nothing() {
    let files = tempfile::tempdir().expect("a directory");
    let world = World::one().await;
    let image = world.create("lie", "disk", "raw").await.expect("made");
    let content = std::fs::read(qcow2(files.path(), "x.qcow2", "10M", &[])).expect("the image");
    world.upload(&image, "disk", &content).await.expect_err("a qcow2 declared as raw");
    assert_eq!(world.used_by_images().await, (1, 0));
    world.end().await;
}

#[tokio::test]
async fn what_a_killed_process_had_reserved_is_released() {
    for world in World::each().await {
        let image = world.create("half", "disk", "raw").await.expect("made");
        let lost = world.create("lost", "disk", "raw").await.expect("made");
        let upload = world.open_upload(&image, 2 << 30, noise(512)).await;
        eventually("the upload has reserved", async || world.used_by_images().await == (2, 2)).await;
        let id: ImageId = lost.id.parse().expect("an id");
        let left = Unit::new().op(ImageReserve { id, gib: 5 }).op(StorageUsageAdd::image(world.project_id, 0, 5));
        world.store.commit(left).await.expect("as a killed process leaves it");
        eventually("what is left goes", async || world.used_by_images().await == (2, 2)).await;
        let standing = world.store.image_reservation_find(image.id.parse().expect("an id")).await.expect("a read");
        assert_eq!(standing.map(|row| row.reserved_gib), Some(2), "an upload in progress keeps its own");
        // The next process knows of no upload.
        assert_eq!(ImageReservations::new(world.store.clone()).sweep().await.expect("swept"), 1);
        assert_eq!(world.used_by_images().await, (2, 0));
        drop(upload.sender);
        upload.call.await.expect("no panic").expect_err("too short");
        assert_eq!(world.used_by_images().await, (2, 0), "what is gone isn't released twice");
        world.end().await;
    }
}

#[tokio::test]
async fn other_bytes_for_a_part_that_is_there_are_refused_before_they_are_kept() {
    let world = World::one().await;
    let image = world.create("raw", "disk", "raw").await.expect("made");
    world.upload(&image, "disk", &noise(1024)).await.expect("uploaded");
    let other = vec![7u8; 1024];
    let longer = vec![7u8; 4096];
    for (content, size_bytes) in [(&other, 0), (&other, 1024), (&longer, 0), (&longer, 4096)] {
        let open = world.open(&image, "disk", "", size_bytes);
        let refused = world.upload_as(&context(), open, content).await.expect_err("the image has its disk");
        assert_eq!(refused.code, "part_exists");
        assert!(!world.object_path(&sha256(content)).exists(), "{size_bytes}: nothing was kept");
    }
    eventually("the temporary files are gone", async || world.temporary_files() == 0).await;
    assert_eq!(world.used_by_images().await, (1, 1));
    world.end().await;
}

#[tokio::test]
async fn two_uploads_of_one_part_at_once_keep_the_bytes_of_one() {
    let world = World::one().await;
    let image = world.create("raw", "disk", "raw").await.expect("made");
    let contents: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 1024]).collect();
    let uploads = contents.iter().map(|content| {
        let open = world.open(&image, "disk", "", 0);
        let world = &world;
        async move { world.upload_as(&context(), open, content).await }
    });
    let answers = join_all(uploads).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    let kept = contents.iter().filter(|content| world.object_path(&sha256(content)).exists()).count();
    assert_eq!(kept, 1, "only what the image names was published");
    assert_eq!(world.used_by_images().await, (1, 1));
    world.end().await;
}

#[tokio::test]
async fn uploads_leave_a_part_of_the_disk_free() {
    let Some(disk) = crate::object::TinyDisk::mount("100m") else { return };
    let directory = disk.path().join("images");
    let world = World::with(Config { directory, ..Config::default() }).await;
    let image = world.create("large", "disk", "raw").await.expect("made");
    let zeros = vec![0u8; 98 << 20];
    let announced = world.upload_as(&context(), world.open(&image, "disk", "", zeros.len() as u64), &zeros).await;
    let refused = announced.expect_err("it leaves too little");
    assert_eq!((refused.kind, refused.code.as_str()), (ErrorKind::Unavailable, "storage_full"));
    assert!(refused.detail.contains("leave 5 MiB free"), "{}", refused.detail);
    assert!(refused.hint.is_some_and(|hint| hint.contains("ask an administrator")));
    assert_eq!(world.temporary_files(), 0, "no byte was taken");
    // What others write while it comes counts as well.
    let upload = world.open_upload(&image, 0, vec![0; 1 << 20]).await;
    eventually("the upload is in progress", async || world.temporary_files() == 1).await;
    std::fs::write(disk.path().join("others"), vec![1u8; 94 << 20]).expect("there is room for it");
    for _ in 0..20 {
        // Refused in the middle, it takes no more.
        let _ = upload.sender.send(message(Message::Chunk(Bytes::from(vec![0u8; 1 << 20])))).await;
    }
    drop(upload.sender);
    assert_eq!(upload.call.await.expect("no panic").expect_err("no space is left").code, "storage_full");
    eventually("its temporary file is gone", async || world.temporary_files() == 0).await;
    std::fs::remove_file(disk.path().join("others")).expect("removed");
    world.upload(&image, "disk", &noise(1 << 20)).await.expect("a small one is taken");
    world.end().await;
}

#[tokio::test]
async fn deleting_an_image_frees_its_room_at_once_unless_another_needs_it() {
    for world in World::each().await {
        let content = noise(4096);
        let (one, two) = (world.create("one", "disk", "raw").await, world.create("two", "disk", "raw").await);
        let (one, two) = (one.expect("made"), two.expect("made"));
        for image in [&one, &two] {
            world.upload(image, "disk", &content).await.expect("uploaded");
        }
        let path = world.object_path(&sha256(&content));
        world.delete(&one).await.expect("deleted");
        assert!(path.exists(), "the other image has the same bytes");
        world.delete(&two).await.expect("deleted");
        assert!(!path.exists(), "no image names them");
        // Uploads and deletions of the same bytes at once: what an image names is there.
        for round in 0..10 {
            let old = world.create(&format!("old-{round}"), "disk", "raw").await.expect("made");
            let new = world.create(&format!("new-{round}"), "disk", "raw").await.expect("made");
            world.upload(&old, "disk", &content).await.expect("uploaded");
            let (deleted, uploaded) = tokio::join!(world.delete(&old), world.upload(&new, "disk", &content));
            deleted.expect("deleted");
            uploaded.expect("uploaded");
            assert!(path.exists(), "round {round}");
            world.delete(&new).await.expect("deleted");
        }
        world.end().await;
    }
}
