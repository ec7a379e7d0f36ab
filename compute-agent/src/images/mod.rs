//! The host's cache of image parts: each fetched once from the storage-manager, checked, and kept read-only.
//!
//! The problem: a hundred instances of one image start at once on a cold host; the connection breaks at 90 %; the disk is full; an
//! image is deleted or replaced while instances still lie on it. So parts are addressed by their SHA-256 and never change; a
//! download is shared by all who wait for it, goes on where it was cut, and counts only when the whole of it has the right sum.
//!
//! Letting QEMU read the object store directly was rejected: a running instance must not need the control plane.
//!
//! Invariants:
//! - A file without the ending `.part` is complete, verified and durable.
//! - A disk that lies on an image holds its own hard link to it ([`ImageCache::link_into`]), so eviction can't pull it away, whatever
//!   the ledger says; an image with more than one link isn't evicted, for that would free nothing.

pub mod evict;
mod fetch;

pub use fetch::{FetchError, group_of};

use self::evict::{Cached, plan_eviction};
use domain::image::ImagePart;
use parking_lot::Mutex;
use proto::storage::v1::storage_manager_client::StorageManagerClient;
use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Channel;

/// The state of a download.
#[derive(Debug, Clone)]
enum Flight {
    Running { done_bytes: u64, total_bytes: u64 },
    Landed,
    Failed(FetchError),
}

type InUse = dyn Fn() -> BTreeSet<String> + Send + Sync;

pub struct ImageCache {
    dir: PathBuf,
    limit_bytes: u64,
    reserve_bytes: u64,
    storage: StorageManagerClient<Channel>,
    flights: Mutex<HashMap<String, watch::Receiver<Flight>>>,
    /// Returns the SHA-256 of every part that an instance in the ledger needs.
    in_use: Box<InUse>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl ImageCache {
    /// Opens the cache and makes its directory. Downloads that a restart interrupted continue when they are needed.
    pub fn open(
        dir: PathBuf,
        limit_bytes: u64,
        reserve_bytes: u64,
        storage: Channel,
        in_use: impl Fn() -> BTreeSet<String> + Send + Sync + 'static,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> io::Result<Self> {
        // The instances' own users pass through this directory to read images.
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&dir)?;
        let storage = StorageManagerClient::new(storage)
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        let flights = Mutex::default();
        Ok(Self { dir, limit_bytes, reserve_bytes, storage, flights, in_use: Box::new(in_use), tasks, shutdown })
    }

    /// The path of a part, whether or not it is cached.
    #[must_use]
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256)
    }

    #[must_use]
    pub fn has(&self, part: &ImagePart) -> bool {
        valid_sha256(&part.sha256) && self.path(&part.sha256).is_file()
    }

    /// Returns when the part is in the cache. All who need a part share one download, which continues when a waiter leaves. `progress` is
    /// called with a text such as "12 %" from time to time.
    pub async fn ensure(
        self: &Arc<Self>,
        part: &ImagePart,
        mut progress: impl FnMut(String),
    ) -> Result<(), FetchError> {
        if !valid_sha256(&part.sha256) {
            return Err(FetchError::Name { sha256: part.sha256.clone() });
        }
        if self.has(part) {
            self.mark_used(&part.sha256);
            return Ok(());
        }
        let mut flight = self.join_flight(part);
        loop {
            let state = flight.borrow_and_update().clone();
            match state {
                Flight::Landed => return Ok(()),
                Flight::Failed(error) => return Err(error),
                Flight::Running { done_bytes, total_bytes } => {
                    if let Some(percent) = (done_bytes * 100).checked_div(total_bytes) {
                        progress(format!("{} %", percent.min(100)));
                    }
                }
            }
            if flight.changed().await.is_err() {
                return Err(FetchError::Cancelled);
            }
        }
    }

    fn join_flight(self: &Arc<Self>, part: &ImagePart) -> watch::Receiver<Flight> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&part.sha256) {
            return flight.clone();
        }
        let (progress, flight) = watch::channel(Flight::Running { done_bytes: 0, total_bytes: part.size_bytes });
        flights.insert(part.sha256.clone(), flight.clone());
        let (cache, part) = (Arc::clone(self), part.clone());
        self.tasks.spawn(async move {
            let shutdown = cache.shutdown.clone();
            let fetched = tokio::select! {
                fetched = cache.fetch(&part, &progress) => fetched,
                () = shutdown.cancelled() => Err(FetchError::Cancelled),
            };
            // The download is removed from the map before its outcome is published, so that a new request after a failure starts a new one.
            cache.flights.lock().remove(&part.sha256);
            metrics::counter!("iaas_image_fetches_total", "outcome" => if fetched.is_ok() { "ok" } else { "failed" })
                .increment(1);
            progress.send_replace(match fetched {
                Ok(()) => Flight::Landed,
                Err(error) => Flight::Failed(error),
            });
        });
        flight
    }

    /// Makes a hard link to a cached part, so that the part can be evicted without harm to the disk that lies on it.
    pub fn link_into(&self, sha256: &str, to: &Path) -> io::Result<()> {
        match fs::hard_link(self.path(sha256), to) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let (ours, theirs) = (fs::metadata(self.path(sha256))?, fs::metadata(to)?);
                if (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()) {
                    return Ok(());
                }
                fs::remove_file(to)?;
                fs::hard_link(self.path(sha256), to)
            }
            other => other,
        }
    }

    /// Records that a part is used now, so that others are evicted before it.
    fn mark_used(&self, sha256: &str) {
        let times = fs::FileTimes::new().set_modified(SystemTime::now());
        let marked = fs::File::open(self.path(sha256)).and_then(|file| file.set_times(times));
        if let Err(error) = marked {
            tracing::debug!(sha256, %error, "an image's time of use can't be recorded");
        }
    }

    /// Evicts parts until `need` bytes fit under the limit, and checks that the disk has them.
    fn free_space(&self, sha256: &str, need: u64) -> Result<(), FetchError> {
        let io = |source: io::Error| FetchError::Disk { path: self.dir.clone(), detail: source.to_string() };
        let needed = (self.in_use)();
        let mut cached = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(meta) = entry.metadata() else { continue };
            if name.strip_suffix(fetch::PART).unwrap_or(&name) == sha256 {
                continue;
            }
            let last_used = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            let in_use = meta.nlink() > 1 || needed.contains(name.strip_suffix(fetch::PART).unwrap_or(&name));
            let last_used = u64::try_from(last_used.as_millis()).unwrap_or(u64::MAX);
            cached.push(Cached { sha256: name, bytes: meta.len(), last_used, in_use });
        }
        let evicted = plan_eviction(&cached, need, self.limit_bytes).map_err(|no| FetchError::CacheFull {
            need_mib: need.div_ceil(1 << 20),
            in_use_mib: no.in_use_bytes.div_ceil(1 << 20),
            limit_gib: self.limit_bytes >> 30,
        })?;
        for name in evicted {
            tracing::info!(image = name, "evicted from the image cache");
            metrics::counter!("iaas_image_evictions_total").increment(1);
            fs::remove_file(self.dir.join(name)).map_err(io)?;
        }
        let space = crate::host::facts::disk_space(&self.dir)
            .map_err(|e| FetchError::Disk { path: self.dir.clone(), detail: e.source.to_string() })?;
        if space.available_bytes < need.saturating_add(self.reserve_bytes) {
            return Err(FetchError::DiskFull {
                path: self.dir.clone(),
                need_mib: need.div_ceil(1 << 20),
                free_mib: space.available_bytes >> 20,
                reserve_mib: self.reserve_bytes >> 20,
            });
        }
        Ok(())
    }
}

/// Whether the text is 64 lower-case hexadecimal digits. It becomes the name of a file, so nothing else is accepted.
fn valid_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
