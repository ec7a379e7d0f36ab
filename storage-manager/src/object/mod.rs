//! Content-addressed objects: the bytes of images, each named by its SHA-256.
//!
//! Problem: an upload can be cut, repeated, or race with another of the same bytes and with the sweep of garbage, in this process or
//! in another one on the same directory; and none of it may lose an object that a row names, or leave bytes that nobody names.
//!
//! Rejected: reference counts. They are a second truth beside the image rows, wrong after any crash. The rows are the only truth:
//! an object that none of them names is garbage.
//!
//! Invariants:
//! - What stands under `ab/abcd…` is whole and has that SHA-256: it was hashed while it was written, synced, then renamed into place.
//! - An object is *published* (modification time: now) before the row that names it commits, and removed only when it was published
//!   longer than the grace ago and no row names it. The grace is longer than the longest commit, so a publication never meets its own
//!   removal: [`ObjectDir::publish`] and [`ObjectDir::remove_older`] take one file lock for the two system calls that each needs.
//! - The bytes of a deleted image go at once when no other image names them. Whoever publishes or so removes an object holds its hash meanwhile
//!   (`StorageService::naming`): one process serves the store.
//! - A temporary file is locked by its writer for as long as that lives. One that can be locked is a leftover.

pub mod child;
mod dir;
pub mod inspect;
pub mod qcow2;
pub mod qemu_img;
mod upload;

pub use dir::{ObjectDir, ObjectReader, StoredObject};
pub use upload::{Staged, Upload};

use domain::{ErrorKind, Problem};
use std::{io, path::PathBuf};

/// Bytes of one message of content.
pub const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The disk (or the quota on it) that holds the objects is full.
    #[error("no space is left for {path}")]
    StorageFull {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The disk isn't full, and uploads leave it so much.
    #[error("{available_mib} MiB are free for {path}, and uploads leave {kept_mib} MiB free")]
    LowSpace { path: PathBuf, available_mib: u64, kept_mib: u64 },
    #[error("there is no object {sha256}")]
    Absent { sha256: String },
    /// Neither 64 lower-case hex digits nor anything that could name an object.
    #[error("`{text}` is not a SHA-256 in lower-case hex")]
    InvalidHash { text: String },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The thread that wrote the object ended without an answer.
    #[error("the writer of an object ended early")]
    WriterLost,
}

impl ObjectError {
    /// Sorts an I/O error by kind: a full disk is kept apart from the rest, because people can do something about it.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::StorageFull { path, source };
        }
        Self::Io { action, path, source }
    }

    /// The problem for the caller. Paths and causes stay in our log.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::StorageFull { .. } => Problem::new(
                ErrorKind::Unavailable,
                "storage_full",
                "the disk that holds the images is full; nothing of this upload was kept",
            )
            .with_hint("delete images you don't need, or ask an administrator to give the image store more space"),
            Self::LowSpace { available_mib, kept_mib, .. } => Problem::new(
                ErrorKind::Unavailable,
                "storage_full",
                format!(
                    "the disk that holds the images has {available_mib} MiB free, and uploads leave {kept_mib} MiB free; nothing of \
                     this upload was kept"
                ),
            )
            .with_hint("delete images you don't need, or ask an administrator to give the image store more space"),
            Self::Absent { sha256 } => {
                Problem::new(ErrorKind::NotFound, "not_found", format!("there is no object {sha256}"))
            }
            Self::InvalidHash { .. } => Problem::invalid("sha256", "must be 64 lower-case hex digits"),
            Self::Io { .. } | Self::WriterLost => Problem::internal(),
        }
    }
}

/// Checks that `text` is a SHA-256 in lower-case hex, so that it can be part of a path.
pub fn parse_sha256(text: &str) -> Result<&str, ObjectError> {
    let valid = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if valid { Ok(text) } else { Err(ObjectError::InvalidHash { text: text.chars().take(80).collect() }) }
}
