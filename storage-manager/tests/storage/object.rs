//! Bytes: fetched from any offset, swept when nothing names them, refused when the disk is full.

use crate::support::{World, context, eventually, message, noise, sha256};
use bytes::Bytes;
use domain::ErrorKind;
use proto::storage::v1::upload_image_request::Message;
use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};
use storage_manager::{
    Config,
    object::{ObjectDir, ObjectError},
    reconcile,
};

#[tokio::test]
async fn an_object_is_fetched_from_any_offset() {
    let world = World::one().await;
    let content = noise(1 << 20);
    let hash = sha256(&content);
    let image = world.create("raw", "disk", "raw").await.expect("made");
    world.upload(&image, "disk", &content).await.expect("uploaded");
    let total = content.len() as u64;
    for offset in [0, 1, 256 * 1024, 300_000, total - 1, total] {
        let rest = content[usize::try_from(offset).expect("small")..].to_vec();
        assert_eq!(world.fetch(&hash, offset).await, Ok((rest, total)), "from {offset}");
    }
    assert_eq!(world.fetch(&hash, total + 1).await.expect_err("behind the end").kind, ErrorKind::InvalidArgument);
    assert_eq!(world.fetch(&sha256(b"nothing"), 0).await.expect_err("unknown").kind, ErrorKind::NotFound);
    for bad in ["", "../../etc/passwd", &hash.to_uppercase()] {
        assert_eq!(world.fetch(bad, 0).await.expect_err(bad).kind, ErrorKind::InvalidArgument);
    }
    world.end().await;
}

/// Makes an object look as if it had been published so long ago.
fn age(path: &Path, by: Duration) {
    let file = std::fs::File::options().write(true).open(path).expect("the object");
    file.set_modified(SystemTime::now() - by).expect("the time is set");
}

#[tokio::test]
async fn what_no_image_names_is_swept_after_its_grace_and_nothing_else() {
    for world in World::each().await {
        let (kept, orphan, young) = (noise(512), noise(1024), noise(1536));
        let image = world.create("kept", "disk", "raw").await.expect("made");
        world.upload(&image, "disk", &kept).await.expect("uploaded");
        let objects = ObjectDir::open(&world.objects).await.expect("the store");
        for content in [&orphan, &young] {
            publish(&objects, content).await;
        }
        let (hour, cutoff) = (Duration::from_secs(3600), SystemTime::now() - Duration::from_secs(1800));
        age(&world.object_path(&sha256(&kept)), hour);
        age(&world.object_path(&sha256(&orphan)), hour);
        assert_eq!(reconcile::object::sweep_objects(&world.store, &objects, cutoff).await.expect("swept"), 1);
        assert!(world.object_path(&sha256(&kept)).exists(), "an image names it");
        assert!(!world.object_path(&sha256(&orphan)).exists(), "nobody names it");
        assert!(world.object_path(&sha256(&young)).exists(), "an upload may be about to name it");
        // Published again, an old one is young: a sweep that listed it before leaves it.
        age(&world.object_path(&sha256(&young)), hour);
        publish(&objects, &young).await;
        assert!(!objects.remove_older(&sha256(&young), cutoff).await.expect("looked at"));
        // Without its image, its bytes go.
        let image: domain::ImageId = image.id.parse().expect("an id");
        let row = world.image(image).await.expect("a row");
        world.store.commit(storage_manager::plan::removal(&row, 0)).await.expect("deleted");
        assert_eq!(reconcile::object::sweep_objects(&world.store, &objects, cutoff).await.expect("swept"), 1);
        assert!(!world.object_path(&sha256(&kept)).exists());
        world.end().await;
    }
}

async fn publish(objects: &ObjectDir, content: &[u8]) {
    let mut upload = objects.begin().await.expect("begun");
    upload.write(Bytes::copy_from_slice(content)).await.expect("written");
    objects.publish(upload.finish().await.expect("finished")).await.expect("published");
}

#[tokio::test]
async fn leftovers_of_a_killed_process_are_swept_and_uploads_in_progress_are_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let objects = ObjectDir::open(directory.path()).await.expect("the store");
    let mut upload = objects.begin().await.expect("begun");
    upload.write(Bytes::from_static(b"half")).await.expect("written");
    let leftover = directory.path().join("tmp/leftover");
    std::fs::write(&leftover, b"of a killed process").expect("written");
    let again = ObjectDir::open(directory.path()).await.expect("the store, opened by another process");
    assert!(!leftover.exists());
    upload.write(Bytes::from_static(b" and half")).await.expect("written");
    let staged = upload.finish().await.expect("still there");
    assert_eq!(staged.sha256, sha256(b"half and half"));
    drop(staged);
    assert_eq!(std::fs::read_dir(directory.path().join("tmp")).expect("listed").count(), 0, "dropped, it is gone");
    assert_eq!(again.list().await.expect("listed"), vec![]);
}

/// A small file system.
pub struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "iaas-test"]).arg(directory.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(directory)),
            other => {
                println!("not run: full disk: a tmpfs can't be mounted here (root is needed): {other:?}");
                None
            }
        }
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_room_for_what_fits() {
    let Some(disk) = TinyDisk::mount("1m") else { return };
    let directory = disk.path().join("images");
    let world = World::with(Config { directory: directory.clone(), ..Config::default() }).await;
    let image = world.create("large", "disk", "raw").await.expect("made");
    let full = world.upload(&image, "disk", &noise(4 << 20)).await.expect_err("no space");
    assert_eq!((full.kind, full.code.as_str()), (ErrorKind::Unavailable, "storage_full"));
    assert!(full.hint.is_some());
    eventually("its temporary file is gone", async || world.temporary_files() == 0).await;
    let small = noise(64 * 1024);
    world.upload(&image, "disk", &small).await.expect("a small one fits");
    assert_eq!(world.fetch(&sha256(&small), 0).await.expect("fetched").0, small);
    let objects = ObjectDir::open(&directory).await.expect("the store");
    let mut upload = objects.begin().await.expect("begun");
    let error = loop {
        if let Err(error) = upload.write(Bytes::from(noise(256 * 1024))).await {
            break error;
        }
    };
    assert!(matches!(error, ObjectError::StorageFull { .. }), "{error:?}");
    world.end().await;
}

#[tokio::test]
async fn too_many_uploads_are_asked_to_come_back() {
    let world = World::with(Config { uploads_max: 1, ..Config::default() }).await;
    let image = world.create("slow", "disk", "raw").await.expect("made");
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let mut client = world.client.clone();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let slow = tokio::spawn(async move { client.upload_image(context().request(stream)).await });
    sender.send(message(Message::Open(world.open(&image, "disk", "", 0)))).await.expect("taken");
    sender.send(message(Message::Chunk(Bytes::from(noise(512))))).await.expect("taken");
    eventually("the slow upload is in progress", async || world.temporary_files() == 1).await;
    let refused = world.upload(&image, "disk", &noise(512)).await.expect_err("one at a time");
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(refused.retry_after_secs.is_some());
    drop(sender);
    slow.await.expect("no panic").expect("the slow one ends well");
    world.end().await;
}
