//! Room on the database's disk for what must go on when it is full: a file of a fixed size beside the database, which is cut when room is needed.
//!
//! **The problem.** A full disk stops every commit, also the deletions that would free room, the logins of those who would delete, and the start
//! of the process itself. SQLite needs room even to delete: for its log.
//!
//! **What holds.**
//! 1. When the disk is full, the file is cut by a step, the log is folded into the database's file as far as there is room, and what makes
//!    nothing new is tried again. A log that is folded begins anew in the room that it has, so that deletions need no more of the reserve.
//! 2. While the file is shorter than it should be, what makes something new is refused ([`super::unit::Prepared::makes_new`]), though there may be
//!    room for it for a moment: that room is the reserve.
//! 3. The first refusal for room cuts the file as well, though deletions need no room yet: so the disk counts as full, also for readiness, until there
//!    is room for the whole reserve and not just for a page.
//! 4. The processes and roles that share a database share the file, and its length is what each of them goes by.
//! 5. The file is made whole again, of real blocks, when the disk has room for it and for as much again.
//!
//! **Rejected.** To rely on the file system's own reserve for root: not every file system has one, and not every iaasd runs as root.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The file is cut in so many steps.
const STEPS: u64 = 8;
/// The reserve takes at most this part of a small file system.
const PART_OF_DISK: u64 = 32;
/// Fold the log back each 32 MiB instead of each 4: a fold costs two more fsyncs inside some commit.
const LOG_PAGES: u64 = 8192;
const PAGE_BYTES: u64 = 4096;
/// How often a short reserve looks for room.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Reserve {
    path: PathBuf,
    /// What it should be; 0: there is none.
    target_bytes: u64,
    bytes: u64,
    looked_at: Option<Instant>,
}

/// Of the file system that `path` is on: all of it, and what is free.
fn space(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path.parent().unwrap_or(path))?;
    Ok((stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize)))
}

impl Reserve {
    /// The reserve of a database, as it was left. Nothing is allocated yet.
    pub(crate) fn find(database: &Path, target_bytes: u64) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-reserve");
        let path = PathBuf::from(path);
        let target_bytes = match space(&path) {
            Ok((total_bytes, _)) => target_bytes.min(total_bytes / PART_OF_DISK),
            Err(_) => target_bytes,
        };
        let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
        Self { path, target_bytes, bytes, looked_at: None }
    }

    fn step_bytes(&self) -> u64 {
        (self.target_bytes / STEPS).max(1)
    }

    /// How many pages the log may have, so that on a full disk half of the reserve is enough to fold it.
    pub(crate) fn log_pages(&self) -> u64 {
        if self.target_bytes == 0 { LOG_PAGES } else { (self.target_bytes / 2 / PAGE_BYTES).clamp(64, LOG_PAGES) }
    }

    /// Whether the disk has room for what is new. A reserve that is short is made whole first, when there is room.
    pub(crate) fn whole(&mut self) -> bool {
        if self.target_bytes == 0 || self.length() >= self.target_bytes {
            return true;
        }
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return false;
        }
        self.looked_at = Some(Instant::now());
        let missing = self.target_bytes - self.bytes;
        let free = space(&self.path).map_or(0, |(_, free)| free);
        if free < missing + self.target_bytes {
            return false;
        }
        match self.allocate() {
            Ok(()) => {
                self.bytes = self.target_bytes;
                self.looked_at = None;
                metrics::gauge!("iaas_store_reserve_missing_bytes").set(0.0);
                tracing::info!(bytes = self.bytes, "the database's disk has room; the reserve is whole");
                true
            }
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "the reserve for a full disk can't be allocated");
                self.cut_to(self.bytes);
                false
            }
        }
    }

    /// Frees a step of it. False: nothing is left.
    pub(crate) fn release_step(&mut self) -> bool {
        if self.length() == 0 {
            return false;
        }
        if self.bytes >= self.target_bytes {
            tracing::error!(
                path = %self.path.display(),
                "the disk of the database is full: nothing new is taken until there is room; deleting goes on from a reserve"
            );
        }
        let left = self.bytes.saturating_sub(self.step_bytes());
        self.cut_to(left)
    }

    /// What the file has now: another role of the same database may have cut it.
    fn length(&mut self) -> u64 {
        self.bytes = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        self.bytes
    }

    fn cut_to(&mut self, bytes: u64) -> bool {
        let cut = OpenOptions::new().write(true).open(&self.path).and_then(|file| file.set_len(bytes));
        let was = self.bytes;
        let is = self.length();
        metrics::gauge!("iaas_store_reserve_missing_bytes").set(self.target_bytes.saturating_sub(is) as f64);
        if let Err(error) = cut {
            tracing::error!(%error, path = %self.path.display(), "the reserve for a full disk can't be cut");
        }
        is < was
    }

    fn allocate(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.target_bytes) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.fill(file),
            Err(errno) => Err(errno.into()),
        }
    }

    /// For file systems that can't allocate ahead.
    fn fill(&self, mut file: File) -> io::Result<()> {
        use io::{Seek, Write};
        file.seek(io::SeekFrom::Start(self.bytes))?;
        let (zeros, mut left) = (vec![0u8; 1 << 20], self.target_bytes - self.bytes);
        while left > 0 {
            let some = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            file.write_all(&zeros[..some])?;
            left -= some as u64;
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_cut_step_by_step_and_made_whole_of_real_blocks() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().expect("a directory");
        let database = directory.path().join("iaas.db");
        let blocks = || std::fs::metadata(directory.path().join("iaas.db-reserve")).map_or(0, |m| m.blocks() * 512);
        let mut reserve = Reserve::find(&database, 8 << 16);
        assert!(reserve.whole(), "it is made");
        assert_eq!(blocks(), 8 << 16);
        let steps = std::iter::from_fn(|| reserve.release_step().then(&blocks));
        assert_eq!(steps.collect::<Vec<_>>(), (0..8).rev().map(|n| n << 16).collect::<Vec<u64>>());
        assert!(!reserve.release_step());
        let mut again = Reserve::find(&database, 8 << 16);
        assert!(again.whole());
        assert_eq!(blocks(), 8 << 16);
        let mut other = Reserve::find(&database, 8 << 16);
        assert!(other.release_step() && other.release_step());
        assert!(again.release_step(), "one that another role has cut is cut further");
        assert_eq!(blocks(), 5 << 16);
        let mut none = Reserve::find(&directory.path().join("other.db"), 0);
        assert!(none.whole() && !none.release_step());
        assert!(!directory.path().join("other.db-reserve").exists());
    }
}
