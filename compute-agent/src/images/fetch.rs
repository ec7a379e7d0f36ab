//! Fetches one part: a download is resumed where it was interrupted, and checked as a whole.

use super::{Flight, ImageCache};
use domain::{ErrorKind, image::ImagePart};
use proto::storage::v1::FetchObjectRequest;
use service_kit::backoff::Backoff;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{PermissionsExt, fchown},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// The first of the groups that own images, and how many there are: a range that neither distributions nor systemd use.
const GROUP_FIRST: u32 = 1_879_048_192;
const GROUPS: u32 = 268_000_000;
/// The ending of the names of downloads that aren't complete.
pub const PART: &str = ".part";
/// After this many interruptions in a row without a single new byte, the fetch fails.
const FRUITLESS_TRIES: u32 = 4;
/// A stream that sends nothing for this long is ended.
const SILENCE: Duration = Duration::from_secs(20);

/// Why a part couldn't be fetched. All who waited for it get the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    #[error("`{sha256}` is not a SHA-256")]
    Name { sha256: String },
    #[error("the storage-manager has no object {sha256}: was the image deleted?")]
    Unknown { sha256: String },
    #[error("the image doesn't match its SHA-256: it should be {expected} and is {found}")]
    Mismatch { expected: String, found: String },
    #[error("the image has {found} bytes instead of {expected}")]
    Size { expected: u64, found: u64 },
    #[error("the storage-manager doesn't deliver the image: {detail}")]
    Unavailable { detail: String },
    #[error(
        "the image cache is full: {need_mib} MiB are needed, and instances use {in_use_mib} MiB of its {limit_gib} GiB \
         (compute.image_cache_gib)"
    )]
    CacheFull { need_mib: u64, in_use_mib: u64, limit_gib: u64 },
    #[error(
        "the host's disk is full: the image needs {need_mib} MiB in {path}, {free_mib} MiB are free, of which {reserve_mib} MiB are \
         reserved"
    )]
    DiskFull { path: PathBuf, need_mib: u64, free_mib: u64, reserve_mib: u64 },
    #[error("{path} can't be written: {detail}")]
    Disk { path: PathBuf, detail: String },
    #[error("the agent is shutting down")]
    Cancelled,
}

impl FetchError {
    /// Whether somebody has to act; the other errors pass by themselves.
    #[must_use]
    pub fn fault(&self) -> bool {
        match self {
            Self::Name { .. }
            | Self::Unknown { .. }
            | Self::Mismatch { .. }
            | Self::Size { .. }
            | Self::CacheFull { .. }
            | Self::DiskFull { .. }
            | Self::Disk { .. } => true,
            Self::Unavailable { .. } | Self::Cancelled => false,
        }
    }
}

/// What has been written so far, and its hash.
struct Partial {
    file: File,
    sum: Sha256,
    bytes: u64,
}

impl ImageCache {
    pub(super) async fn fetch(
        self: &Arc<Self>,
        part: &ImagePart,
        progress: &watch::Sender<Flight>,
    ) -> Result<(), FetchError> {
        let path = self.path(&part.sha256);
        let half = self.dir.join(format!("{}{PART}", part.sha256));
        let disk = {
            let half = half.clone();
            move |source: io::Error| FetchError::Disk { path: half.clone(), detail: source.to_string() }
        };
        let (cache, sha256, size, open) = (Arc::clone(self), part.sha256.clone(), part.size_bytes, half.clone());
        let prepare = move || {
            let partial = open_partial(&open).map_err(|e| FetchError::Disk { path: open, detail: e.to_string() })?;
            cache.free_space(&sha256, size.saturating_sub(partial.bytes))?;
            Ok(partial)
        };
        let mut partial = blocking(prepare).await??;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut fruitless = 0;
        while partial.bytes < part.size_bytes {
            let before = partial.bytes;
            let received = self.receive(part, &mut partial, progress).await;
            let Err(error) = received else { break };
            if error.fault() {
                if matches!(error, FetchError::Size { .. }) {
                    let _ = fs::remove_file(&half);
                }
                return Err(error);
            }
            fruitless = if partial.bytes > before { 0 } else { fruitless + 1 };
            if fruitless >= FRUITLESS_TRIES {
                return Err(error);
            }
            tracing::info!(sha256 = part.sha256, bytes = partial.bytes, %error, "an image's download was interrupted and continues");
            tokio::time::sleep(backoff.next_delay()).await;
        }
        let Partial { file, sum, bytes } = partial;
        let found = hex::encode(sum.finalize());
        if bytes != part.size_bytes || found != part.sha256 {
            // Nothing of it can be trusted, so the next try starts from the beginning.
            fs::remove_file(&half).map_err(&disk)?;
            return Err(if bytes == part.size_bytes {
                FetchError::Mismatch { expected: part.sha256.clone(), found }
            } else {
                FetchError::Size { expected: part.size_bytes, found: bytes }
            });
        }
        let (dir, sum) = (self.dir.clone(), found);
        let publish = move || {
            file.sync_data()?;
            close_to_others(&file, &sum)?;
            fs::rename(&half, &path)?;
            File::open(dir)?.sync_all()
        };
        blocking(publish).await?.map_err(disk)
    }

    /// Receives until the stream ends or is interrupted.
    async fn receive(
        &self,
        part: &ImagePart,
        partial: &mut Partial,
        progress: &watch::Sender<Flight>,
    ) -> Result<(), FetchError> {
        let unavailable = |detail: String| FetchError::Unavailable { detail };
        let refused = |status: &tonic::Status| {
            let problem = proto::status::from_status(status);
            if problem.kind == ErrorKind::NotFound {
                FetchError::Unknown { sha256: part.sha256.clone() }
            } else {
                FetchError::Unavailable { detail: problem.detail }
            }
        };
        let request = FetchObjectRequest { sha256: part.sha256.clone(), offset: partial.bytes };
        let silent = || unavailable(format!("no answer for {} s", SILENCE.as_secs()));
        let mut storage = self.storage.clone();
        let mut stream = tokio::time::timeout(SILENCE, storage.fetch_object(request))
            .await
            .map_err(|_| silent())?
            .map_err(|status| refused(&status))?
            .into_inner();
        loop {
            let message = tokio::time::timeout(SILENCE, stream.message()).await.map_err(|_| silent())?;
            let Some(message) = message.map_err(|status| refused(&status))? else {
                return if partial.bytes < part.size_bytes {
                    Err(unavailable("it ended early".into()))
                } else {
                    Ok(())
                };
            };
            let came = u64::try_from(message.chunk.len()).unwrap_or(u64::MAX);
            if partial.bytes.saturating_add(came) > part.size_bytes {
                return Err(FetchError::Size { expected: part.size_bytes, found: partial.bytes.saturating_add(came) });
            }
            let mut file = partial.file.try_clone().map_err(|e| self.disk(&e))?;
            let mut sum = std::mem::take(&mut partial.sum);
            let written = blocking(move || {
                sum.update(&message.chunk);
                file.write_all(&message.chunk).map(|()| sum)
            });
            partial.sum = written.await?.map_err(|e| self.disk(&e))?;
            partial.bytes += came;
            progress.send_replace(Flight::Running { done_bytes: partial.bytes, total_bytes: part.size_bytes });
        }
    }

    fn disk(&self, source: &io::Error) -> FetchError {
        FetchError::Disk { path: self.dir.clone(), detail: source.to_string() }
    }
}

/// Only root and the group of this very image may read it: an instance's QEMU is a member of the groups of the images that it needs. Where
/// the kernel knows no such group (in a container with few ids), everybody on the host may read.
fn close_to_others(file: &File, sha256: &str) -> io::Result<()> {
    let mode = match fchown(file, None, Some(group_of(sha256))) {
        Ok(()) => 0o440,
        Err(error) => {
            tracing::warn!(sha256, %error, "an image can't be given to a group of its own: every user of this host may read it");
            0o444
        }
    };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// The group of an image, which follows from its content: nothing records it, so nothing can disagree about it. Two images of one
/// group are so unlikely that nobody could find two to read one by the other.
#[must_use]
pub fn group_of(sha256: &str) -> u32 {
    let number = sha256.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
    GROUP_FIRST + number % GROUPS
}

/// Opens what an earlier download left, and hashes it.
fn open_partial(path: &std::path::Path) -> io::Result<Partial> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let (mut sum, mut bytes, mut chunk) = (Sha256::new(), 0_u64, vec![0; 1 << 20]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Partial { file, sum, bytes }),
            n => {
                sum.update(&chunk[..n]);
                bytes += n as u64;
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
    // The work is cancelled only when the runtime ends.
    tokio::task::spawn_blocking(work).await.map_err(|_| FetchError::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_content_has_a_group_of_its_own_that_is_nobody_elses() {
        let groups = ["00000000ff", "00000001ff", "ffffffff00", "fffffffe00"].map(group_of);
        for (at, group) in groups.iter().enumerate() {
            assert!((GROUP_FIRST..GROUP_FIRST + GROUPS).contains(group));
            assert!(!groups[..at].contains(group), "{groups:?}");
        }
        const { assert!(GROUP_FIRST + GROUPS < 2_147_352_576, "systemd uses the next range") };
    }
}
