//! The object store on a local directory. What another kind (S3) has to offer is exactly this type's public methods.

use super::{CHUNK_BYTES, ObjectError, Staged, Upload, parse_sha256};
use bytes::{Bytes, BytesMut};
use std::{
    fs::{self, File},
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Directory of temporary files, beside the 256 of the objects.
const TMP: &str = "tmp";
const LOCK: &str = "lock";

/// A directory of objects. A cheap handle.
#[derive(Debug, Clone)]
pub struct ObjectDir {
    root: Arc<PathBuf>,
}

/// One object as the sweep sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub sha256: String,
    pub published_at: SystemTime,
    pub size_bytes: u64,
}

impl ObjectDir {
    /// Opens (and creates) the store at `root`, and removes what uploads left behind when their process died.
    pub async fn open(root: &Path) -> Result<Self, ObjectError> {
        let this = Self { root: Arc::new(root.to_owned()) };
        let opened = this.clone();
        blocking(move || {
            use std::os::unix::fs::DirBuilderExt;
            let tmp = opened.tmp();
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&tmp)
                .map_err(|e| ObjectError::io("create", &tmp, e))?;
            opened.sweep_leftovers()
        })
        .await?;
        Ok(this)
    }

    /// Refuses to fill the disk: `incoming_bytes` must leave `kept_bytes` of it free, or 1/20 of a smaller disk.
    pub async fn check_space(&self, incoming_bytes: u64, kept_bytes: u64) -> Result<(), ObjectError> {
        let root = Arc::clone(&self.root);
        blocking(move || {
            let stat = rustix::fs::statvfs(root.as_path())
                .map_err(|errno| ObjectError::io("look at the free space of", root.as_path(), errno.into()))?;
            let available_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
            metrics::gauge!("iaas_storage_free_bytes").set(available_bytes as f64);
            let kept_bytes = kept_bytes.min(stat.f_blocks.saturating_mul(stat.f_frsize) / 20);
            if available_bytes < incoming_bytes.saturating_add(kept_bytes) {
                let (available_mib, kept_mib) = (available_bytes >> 20, kept_bytes >> 20);
                return Err(ObjectError::LowSpace { path: root.as_path().to_owned(), available_mib, kept_mib });
            }
            Ok(())
        })
        .await
    }

    /// Starts an upload. Dropped before [`Upload::finish`] and [`Self::publish`], it leaves nothing.
    pub async fn begin(&self) -> Result<Upload, ObjectError> {
        Upload::create(self.tmp()).await
    }

    /// Puts a finished upload in its place, durably. The same bytes published twice are one object, and its age starts again.
    pub async fn publish(&self, staged: Staged) -> Result<(), ObjectError> {
        let this = self.clone();
        blocking(move || {
            let target = this.path(&staged.sha256);
            let parent = this.root.join(&staged.sha256[..2]);
            fs::create_dir_all(&parent).map_err(|e| ObjectError::io("create", &parent, e))?;
            staged.file.sync_all().map_err(|e| ObjectError::io("sync", &target, e))?;
            let locked = this.lock()?;
            staged
                .file
                .set_modified(SystemTime::now())
                .and_then(|()| fs::rename(staged.path.as_path(), &target))
                .map_err(|e| ObjectError::io("rename", &target, e))?;
            drop(locked);
            staged.path.keep();
            for dir in [&parent, this.root.as_path()] {
                File::open(dir).and_then(|d| d.sync_all()).map_err(|e| ObjectError::io("sync", dir, e))?;
            }
            Ok(())
        })
        .await
    }

    /// Opens an object at `offset` (which may be its end).
    pub async fn read(&self, sha256: &str, offset: u64) -> Result<ObjectReader, ObjectError> {
        let path = self.path(parse_sha256(sha256)?);
        let failed = |e: io::Error| {
            if e.kind() == io::ErrorKind::NotFound {
                return ObjectError::Absent { sha256: sha256.to_owned() };
            }
            ObjectError::io("open", &path, e)
        };
        let mut file = tokio::fs::File::open(&path).await.map_err(failed)?;
        let total_bytes = file.metadata().await.map_err(failed)?.len();
        file.set_max_buf_size(CHUNK_BYTES);
        file.seek(SeekFrom::Start(offset.min(total_bytes))).await.map_err(failed)?;
        Ok(ObjectReader { file, path, total_bytes })
    }

    /// All objects.
    pub async fn list(&self) -> Result<Vec<StoredObject>, ObjectError> {
        let this = self.clone();
        blocking(move || {
            let mut objects = Vec::new();
            for shelf in read_dir(&this.root)? {
                if shelf.file_name().len() != 2 {
                    continue;
                }
                for entry in read_dir(&shelf.path())? {
                    let Ok(sha256) = entry.file_name().into_string() else { continue };
                    if parse_sha256(&sha256).is_err() {
                        continue;
                    }
                    let found = entry.metadata().and_then(|m| Ok((m.modified()?, m.len())));
                    match found {
                        Ok((published_at, size_bytes)) => {
                            objects.push(StoredObject { sha256, published_at, size_bytes });
                        }
                        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                        Err(e) => return Err(ObjectError::io("read", entry.path(), e)),
                    }
                }
            }
            objects.sort_by(|a, b| a.sha256.cmp(&b.sha256));
            Ok(objects)
        })
        .await
    }

    /// Removes an object if it was published before `cutoff`. True: it is gone.
    pub async fn remove_older(&self, sha256: &str, cutoff: SystemTime) -> Result<bool, ObjectError> {
        let path = self.path(parse_sha256(sha256)?);
        let this = self.clone();
        blocking(move || {
            let _locked = this.lock()?;
            let age = fs::metadata(&path).and_then(|m| m.modified());
            match age {
                Ok(published_at) if published_at < cutoff => {
                    fs::remove_file(&path).map(|()| true).map_err(|e| ObjectError::io("remove", &path, e))
                }
                Ok(_) => Ok(false),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
                Err(e) => Err(ObjectError::io("read", &path, e)),
            }
        })
        .await
    }

    fn tmp(&self) -> PathBuf {
        self.root.join(TMP)
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.root.join(&sha256[..2]).join(sha256)
    }

    /// It is held for a few system calls, and excludes other processes too.
    fn lock(&self) -> Result<File, ObjectError> {
        let path = self.root.join(LOCK);
        File::create(&path).and_then(|file| file.lock().map(|()| file)).map_err(|e| ObjectError::io("lock", &path, e))
    }

    fn sweep_leftovers(&self) -> Result<(), ObjectError> {
        for entry in read_dir(&self.tmp())? {
            let path = entry.path();
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() {
                tracing::info!(path = %path.display(), "removing what a cut upload left");
                fs::remove_file(&path).map_err(|e| ObjectError::io("remove", &path, e))?;
            }
        }
        Ok(())
    }
}

fn read_dir(path: &Path) -> Result<Vec<fs::DirEntry>, ObjectError> {
    fs::read_dir(path).and_then(Iterator::collect).map_err(|e| ObjectError::io("list", path, e))
}

/// Runs file work on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ObjectError> + Send + 'static,
) -> Result<T, ObjectError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ObjectError::WriterLost)?
}

/// An object being read.
#[derive(Debug)]
pub struct ObjectReader {
    file: tokio::fs::File,
    path: PathBuf,
    total_bytes: u64,
}

impl ObjectReader {
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The next bytes, at most [`CHUNK_BYTES`]; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ObjectError> {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        let failed = |e| ObjectError::io("read", &self.path, e);
        while buffer.len() < CHUNK_BYTES {
            if self.file.read_buf(&mut buffer).await.map_err(failed)? == 0 {
                break;
            }
        }
        buffer.truncate(buffer.len());
        Ok((!buffer.is_empty()).then(|| buffer.freeze()))
    }
}
