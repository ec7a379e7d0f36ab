//! Room on the disk that is set apart for a ledger.
//!
//! On a full disk an agent must still be able to write down what it was told, above all deletions: they are what frees room. So a file
//! beside the ledger holds room that nothing else can take. When a write finds none, the file is shortened by a step and the write is tried
//! again. It is shortened by steps because others write to the same disk and take what becomes free; they stop when they find no
//! room, and the ledger, whose files mostly replace older ones of the same size, does not.

use rustix::fs::{FallocateFlags, fallocate};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

const NAME: &str = ".reserve";
/// How much is set apart: about a thousand entries of a ledger.
const BYTES: u64 = 4 << 20;
/// How much is released at once.
const STEP: u64 = 256 << 10;
/// The room is set apart again when the disk has so many times as much.
const REFILL_AT: u64 = 4;

/// Whether an error says that the disk is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    whole: AtomicBool,
}

impl Reserve {
    /// The reserve in the ledger's directory. On a disk that is full already it is as large as it was. Blocking.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        let path = dir.join(NAME);
        let whole = std::fs::metadata(&path).is_ok_and(|meta| meta.len() >= BYTES);
        let reserve = Self { path, whole: AtomicBool::new(whole) };
        reserve.refill();
        reserve
    }

    /// Whether none of it is in use. If it is, the disk is full.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Whether the disk has room for more than what is there: none of the reserve is in use, and there is as much again. Blocking, for a
    /// short time.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.refill();
        self.is_whole() && self.available() >= BYTES
    }

    fn available(&self) -> u64 {
        let dir = self.path.parent().unwrap_or(Path::new("/"));
        rustix::fs::statvfs(dir).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
    }

    /// Runs a write that may be repeated. While it finds no room, some of the reserve is released for it. Blocking.
    pub fn write<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match write() {
                Err(error) if is_full(&error) && self.release() => {}
                result => return result,
            }
        }
    }

    /// Releases a step; false when nothing is left.
    fn release(&self) -> bool {
        self.whole.store(false, Ordering::Relaxed);
        let shorten = || -> io::Result<bool> {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            let len = file.metadata()?.len();
            file.set_len(len.saturating_sub(STEP))?;
            Ok(len > 0)
        };
        shorten().unwrap_or(false)
    }

    /// Sets the room apart again, if the disk has it. Blocking, for a short time.
    pub fn refill(&self) {
        if self.is_whole() {
            return;
        }
        if self.available() < REFILL_AT * BYTES {
            return;
        }
        match self.allocate() {
            Ok(()) => self.whole.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "no room can be set apart for the ledger");
                // What came of it is given back.
                let _ = File::create(&self.path);
            }
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            Ok(()) => {}
            // Then the blocks come with the bytes.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                io::copy(&mut io::Read::take(io::repeat(0), BYTES), &mut &file)?;
            }
            Err(errno) => return Err(errno.into()),
        }
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn it_is_released_by_steps_while_there_is_no_room_and_no_further() {
        let dir = tempfile::tempdir().expect("dir");
        let reserve = Reserve::open(dir.path());
        assert!(reserve.is_whole());
        let len = || std::fs::metadata(dir.path().join(NAME)).expect("there").len();
        let failures = Cell::new(3);
        let write = || {
            if failures.get() == 0 {
                return Ok(7);
            }
            failures.set(failures.get() - 1);
            Err(io::ErrorKind::StorageFull.into())
        };
        assert_eq!(reserve.write(write).expect("in the end"), 7);
        assert_eq!((reserve.is_whole(), len()), (false, BYTES - 3 * STEP));
        let other = reserve.write(|| Err::<(), _>(io::ErrorKind::PermissionDenied.into())).expect_err("no cure");
        assert_eq!((other.kind(), len()), (io::ErrorKind::PermissionDenied, BYTES - 3 * STEP));
        let tries = Cell::new(0);
        let never = reserve.write(|| {
            tries.set(tries.get() + 1);
            Err::<(), _>(io::ErrorKind::StorageFull.into())
        });
        assert!(is_full(&never.expect_err("nothing is left")) && len() == 0);
        assert_eq!(tries.get() + 3, BYTES / STEP + 1);
        reserve.refill();
        assert_eq!((reserve.is_whole(), len()), (true, BYTES));
    }
}
