//! Bytes on their way to become an object. One thread of the blocking pool hashes and writes; the caller feeds it through a short
//! queue, so that a slow disk slows the sender down instead of filling memory.

use super::{ObjectError, dir::blocking};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Chunks between the network and the disk.
const QUEUE: usize = 8;

/// Removes the temporary file when dropped.
#[derive(Debug)]
pub(super) struct TempPath(Option<PathBuf>);

impl TempPath {
    pub(super) fn as_path(&self) -> &Path {
        self.0.as_deref().unwrap_or_else(|| Path::new(""))
    }

    /// The file was renamed: there is nothing to remove.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a temporary file; the next start will");
        }
    }
}

/// An upload in progress.
#[derive(Debug)]
pub struct Upload {
    chunks: mpsc::Sender<Bytes>,
    writer: JoinHandle<Result<Staged, ObjectError>>,
}

/// All bytes of an upload, in a temporary file. Dropped, it is gone.
#[derive(Debug)]
pub struct Staged {
    pub(super) path: TempPath,
    pub(super) file: File,
    /// Lower-case hex, of what was written.
    pub sha256: String,
    pub size_bytes: u64,
}

impl Staged {
    /// The temporary file, for inspection.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path.as_path()
    }

    /// Another handle on it, for a child process.
    pub fn file(&self) -> Result<File, ObjectError> {
        File::open(self.path()).map_err(|e| ObjectError::io("open", self.path(), e))
    }

    /// The first bytes, at most `limit`.
    pub async fn head(&self, limit: usize) -> Result<Vec<u8>, ObjectError> {
        let (file, path) = (self.file()?, self.path().to_owned());
        blocking(move || {
            use std::io::Read;
            let mut head = Vec::new();
            file.take(limit as u64).read_to_end(&mut head).map_err(|e| ObjectError::io("read", &path, e))?;
            Ok(head)
        })
        .await
    }
}

impl Upload {
    pub(super) async fn create(tmp: PathBuf) -> Result<Self, ObjectError> {
        let (path, file) = blocking(move || {
            let path = tmp.join(uuid::Uuid::now_v7().to_string());
            // Readable by all inside a directory that only we may enter: the inspecting child runs as nobody, on our handle.
            let opened = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
            let guard = TempPath(Some(path));
            let file = opened.map_err(|e| ObjectError::io("create", guard.as_path(), e))?;
            file.lock().map_err(|e| ObjectError::io("lock", guard.as_path(), e))?;
            Ok((guard, file))
        })
        .await?;
        let (chunks, queue) = mpsc::channel(QUEUE);
        let writer = tokio::task::spawn_blocking(move || write_all(path, file, queue));
        Ok(Self { chunks, writer })
    }

    /// Takes more bytes. After an error the upload is over; nothing is left of it.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), ObjectError> {
        if self.chunks.send(chunk).await.is_ok() {
            return Ok(());
        }
        // The writer ended early: it alone knows why.
        match (&mut self.writer).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Err(ObjectError::WriterLost),
        }
    }

    /// The sender has sent everything.
    pub async fn finish(self) -> Result<Staged, ObjectError> {
        drop(self.chunks);
        self.writer.await.map_err(|_| ObjectError::WriterLost)?
    }
}

fn write_all(path: TempPath, mut file: File, mut queue: mpsc::Receiver<Bytes>) -> Result<Staged, ObjectError> {
    let mut hasher = Sha256::new();
    let mut size_bytes = 0u64;
    while let Some(chunk) = queue.blocking_recv() {
        file.write_all(&chunk).map_err(|e| ObjectError::io("write", path.as_path(), e))?;
        hasher.update(&chunk);
        size_bytes += chunk.len() as u64;
    }
    Ok(Staged { path, file, sha256: hex::encode(hasher.finalize()), size_bytes })
}
