//! A storage-manager to talk to.

use bytes::Bytes;
use domain::{ImageId, OperationId, Problem, ProjectId, Timestamp, quota::QuotaAmounts};
use proto::{
    status::from_status,
    storage::v1::{self as pb, storage_manager_client::StorageManagerClient, upload_image_request::Message},
};
use service_kit::{context::CallContext, transport};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use storage_manager::{Config, Deps};
use store::{LeakKind, ProjectInsert, QuotaLimitPut, Unit, testing::TestStore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub struct World {
    pub store: TestStore,
    pub client: StorageManagerClient<Channel>,
    pub objects: PathBuf,
    pub project_id: ProjectId,
    _directory: tempfile::TempDir,
    shutdown: CancellationToken,
    served: JoinHandle<anyhow::Result<()>>,
}

/// GiB that the world's project may have.
pub const QUOTA_GIB: i64 = 100;

impl World {
    /// One on each database.
    pub async fn each() -> Vec<Self> {
        Self::each_with(Config::default()).await
    }

    pub async fn each_with(config: Config) -> Vec<Self> {
        let mut worlds = Vec::new();
        for store in TestStore::each().await {
            worlds.push(Self::on(store, config.clone()).await);
        }
        worlds
    }

    /// For what doesn't depend on the database.
    pub async fn one() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        Self::on(TestStore::sqlite().await, config).await
    }

    async fn on(store: TestStore, config: Config) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let objects = if config.directory.as_os_str().is_empty() {
            directory.path().join("images")
        } else {
            config.directory.clone()
        };
        // The machine's own disk may be almost full.
        let free_gib_min = if config.directory.as_os_str().is_empty() { 0 } else { config.free_gib_min };
        let config = Config { directory: objects.clone(), free_gib_min, ..config };
        let (listener, target) = transport::in_process();
        let shutdown = CancellationToken::new();
        let deps = Deps { store: store.store.clone(), listener };
        let served = tokio::spawn(storage_manager::serve(config, deps, shutdown.clone()));
        let client = StorageManagerClient::new(target.channel().expect("a channel"))
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX);
        let project_id = ProjectId::new();
        let mut world = Self { store, client, objects, project_id, _directory: directory, shutdown, served };
        world.project_id = world.project(QUOTA_GIB).await;
        world
    }

    /// Another project.
    pub async fn project(&self, disk_gib: i64) -> ProjectId {
        let id = ProjectId::new();
        let name = format!("p{}", id.0.simple());
        let unit = Unit::new()
            .op(ProjectInsert {
                id,
                name: name.parse().expect("a name"),
                description: String::new(),
                created_at: Timestamp::now(),
            })
            .op(QuotaLimitPut::new(id, &QuotaAmounts { disk_gib, images: 50, image_gib: 50, ..QuotaAmounts::NONE }, 0));
        self.store.commit(unit).await.expect("a project");
        id
    }

    /// Stops it, having checked that nothing leaked.
    pub async fn end(self) {
        let leaks = self.store.leak_report().await.expect("a report");
        // Disks here have no instances: only sums are looked at.
        let sums: Vec<_> =
            leaks.into_iter().filter(|l| matches!(l.kind, LeakKind::StorageUsage | LeakKind::ImageUsage)).collect();
        assert_eq!(sums, vec![], "usage must be the sum of what is held");
        self.shutdown.cancel();
        self.served.await.expect("no panic").expect("a clean end");
    }

    pub async fn used_gib(&self) -> i64 {
        self.store.quota_usage(self.project_id).await.expect("usage").disk_gib
    }

    pub async fn image(&self, id: ImageId) -> Option<domain::image::Image> {
        self.store.image_find(id).await.expect("a read")
    }

    pub async fn events_of(&self, object_id: &str) -> Vec<String> {
        let events = self.store.event_of_object(object_id, 0, 100).await.expect("events");
        events.into_iter().map(|e| e.kind).collect()
    }

    pub async fn create(&self, name: &str, kind: &str, format: &str) -> Result<pb::Image, Problem> {
        let id = ImageId::new();
        self.create_as(&context(), create_request(id, self.project_id, name, kind, format)).await
    }

    pub async fn create_as(
        &self,
        context: &CallContext,
        request: pb::CreateImageRequest,
    ) -> Result<pb::Image, Problem> {
        let answer = self.client.clone().create_image(context.request(request)).await.map_err(|s| from_status(&s))?;
        Ok(answer.into_inner().image.expect("an image"))
    }

    /// Uploads `content` in pieces, announcing its hash and size.
    pub async fn upload(&self, image: &pb::Image, part: &str, content: &[u8]) -> Result<pb::Image, Problem> {
        let open = self.open(image, part, &sha256(content), content.len() as u64);
        self.upload_as(&context(), open, content).await
    }

    pub fn open(&self, image: &pb::Image, part: &str, sha256: &str, size_bytes: u64) -> pb::UploadOpen {
        pb::UploadOpen {
            project_id: self.project_id.to_string(),
            image_id: image.id.clone(),
            part: part.to_owned(),
            sha256: sha256.to_owned(),
            size_bytes,
        }
    }

    pub async fn upload_as(
        &self,
        context: &CallContext,
        open: pb::UploadOpen,
        content: &[u8],
    ) -> Result<pb::Image, Problem> {
        let mut messages = vec![message(Message::Open(open))];
        messages.extend(content.chunks(100_000).map(|c| message(Message::Chunk(Bytes::copy_from_slice(c)))));
        let request = context.request(tokio_stream::iter(messages));
        let answer = self.client.clone().upload_image(request).await.map_err(|s| from_status(&s))?;
        Ok(answer.into_inner().image.expect("an image"))
    }

    pub async fn fetch(&self, sha256: &str, offset: u64) -> Result<(Vec<u8>, u64), Problem> {
        let request = pb::FetchObjectRequest { sha256: sha256.to_owned(), offset };
        let answer = self.client.clone().fetch_object(request).await.map_err(|s| from_status(&s))?;
        let (mut stream, mut bytes, mut total) = (answer.into_inner(), Vec::new(), 0);
        while let Some(message) = stream.message().await.map_err(|s| from_status(&s))? {
            assert!(message.chunk.len() <= 256 * 1024, "pieces stay small");
            bytes.extend_from_slice(&message.chunk);
            total = message.total_bytes;
        }
        Ok((bytes, total))
    }

    /// Files that uploads are writing.
    pub fn temporary_files(&self) -> usize {
        std::fs::read_dir(self.objects.join("tmp")).map_or(0, Iterator::count)
    }

    pub fn object_path(&self, sha256: &str) -> PathBuf {
        self.objects.join(&sha256[..2]).join(sha256)
    }
}

pub fn message(message: Message) -> pb::UploadImageRequest {
    pb::UploadImageRequest { message: Some(message) }
}

pub fn context() -> CallContext {
    CallContext {
        request_id: "req-test".into(),
        operation_id: Some(OperationId::new()),
        principal: "user:test".into(),
        principal_name: "ann".into(),
        dry_run: false,
    }
}

pub fn create_request(
    id: ImageId,
    project_id: ProjectId,
    name: &str,
    kind: &str,
    format: &str,
) -> pb::CreateImageRequest {
    pb::CreateImageRequest {
        id: id.to_string(),
        project_id: project_id.to_string(),
        name: name.to_owned(),
        visibility: "private".to_owned(),
        kind: kind.to_owned(),
        format: format.to_owned(),
        cmdline: String::new(),
        min_memory_mib: 0,
    }
}

pub fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// The smallest thing that is taken for a kernel; `salt` makes it another one.
pub fn kernel(salt: u8) -> Vec<u8> {
    let mut bytes = vec![salt; 4096];
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes
}

pub fn initrd() -> Vec<u8> {
    b"070701".repeat(1000)
}

/// Bytes that repeat nowhere soon.
pub fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// Runs `qemu-img`, which must succeed.
pub fn qemu_img(args: &[&str]) {
    let output =
        std::process::Command::new("qemu-img").args(args).output().expect("qemu-img is installed (./deploy/test)");
    assert!(output.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A qcow2 image with some data in it.
pub fn qcow2(directory: &Path, name: &str, size: &str, options: &[&str]) -> PathBuf {
    let path = directory.join(name);
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    args.extend_from_slice(options);
    let text = path.display().to_string();
    args.extend_from_slice(&[&text, size]);
    qemu_img(&args);
    path
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < limit, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
