//! The console's log file, which QEMU writes and the agent reads and keeps small.
//!
//! QEMU appends for ever, so a guest could fill the host's disk. Rotating by rename doesn't work (QEMU keeps its
//! descriptor), and truncating loses what is written between the copy and the cut. So old output is *punched out*: the
//! blocks in front are freed while the file's length, and with it every offset, stays. An offset into the console is
//! simply an offset into the file, for the instance's whole life; the kept part starts where the first data is.
//! Only on file systems without holes the file is truncated to nothing, and its offsets start at 0 again.
//!
//! The file lies in a directory that QEMU may write, and a QEMU that a guest has taken over may put anything in its place:
//! it is opened without following links, and only as a plain file with one name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, inotify, seek};
use rustix::io::Errno;
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::scan::{GuestUp, Scanner};
use crate::qemu::process::await_readable;

/// The block size in which old output is freed, which is a multiple of the block size of every file system we know.
const BLOCK_BYTES: u64 = 64 << 10;
const READ_BYTES: usize = 64 << 10;

#[derive(Debug, Error)]
pub enum LogError {
    #[error("the console log {path} can't be read")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the console log {path} is not the plain file that QEMU made")]
    NotPlain { path: PathBuf },
}

/// A part of the console's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The offset of the first byte. It is greater than the requested one where the older output is gone.
    pub offset: u64,
    pub bytes: Vec<u8>,
}

impl LogChunk {
    pub fn next_offset(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// The part of a console's output that exists, in offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub start: u64,
    pub end: u64,
}

#[derive(Debug, Clone)]
pub struct ConsoleLog {
    path: PathBuf,
}

impl ConsoleLog {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn io(&self) -> impl Fn(io::Error) -> LogError + '_ {
        |source| LogError::Io { path: self.path.clone(), source }
    }

    fn open(&self, write: bool) -> Result<File, LogError> {
        // Without NONBLOCK a FIFO in its place would block the agent.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let opened = OpenOptions::new().read(true).write(write).custom_flags(flags).open(&self.path);
        let file = match opened {
            Err(source) if source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(LogError::NotPlain { path: self.path.clone() });
            }
            opened => opened.map_err(self.io())?,
        };
        let meta = file.metadata().map_err(self.io())?;
        if !meta.is_file() || meta.nlink() != 1 {
            return Err(LogError::NotPlain { path: self.path.clone() });
        }
        Ok(file)
    }

    fn extent_of(&self, file: &File) -> Result<Extent, LogError> {
        let end = file.metadata().map_err(self.io())?.len();
        let start = match seek(file, SeekFrom::Data(0)) {
            Ok(start) => start,
            Err(Errno::NXIO) => end,
            Err(Errno::INVAL) => 0,
            Err(errno) => return Err(self.io()(errno.into())),
        };
        Ok(Extent { start: start.min(end), end })
    }

    pub fn extent(&self) -> Result<Extent, LogError> {
        self.extent_of(&self.open(false)?)
    }

    /// Reads at most `max` bytes (and at most 64 KiB) from `offset` on; none at the end. An offset beyond the end is taken for the start,
    /// because the file must have been truncated.
    pub fn read(&self, offset: u64, max: usize) -> Result<LogChunk, LogError> {
        let file = self.open(false)?;
        let extent = self.extent_of(&file)?;
        let offset = if offset > extent.end { extent.start } else { offset.max(extent.start) };
        let left = usize::try_from(extent.end - offset).unwrap_or(usize::MAX);
        let mut bytes = vec![0; max.min(READ_BYTES).min(left)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64).map_err(self.io())? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(LogChunk { offset, bytes })
    }

    /// Reads the last `max` bytes (at most 64 KiB), from the beginning of a line on if there is one.
    pub fn tail(&self, max: usize) -> Result<LogChunk, LogError> {
        let extent = self.extent()?;
        let from = extent.end.saturating_sub(max.min(READ_BYTES) as u64).max(extent.start);
        let mut chunk = self.read(from, max)?;
        if from > extent.start
            && let Some(newline) = chunk.bytes.iter().position(|&b| b == b'\n')
            && newline + 1 < chunk.bytes.len()
        {
            chunk.bytes.drain(..=newline);
            chunk.offset += newline as u64 + 1;
        }
        Ok(chunk)
    }

    /// Frees the oldest output if more than `max` bytes are kept, down to half of that. Returns what is left.
    pub fn trim(&self, max: u64) -> Result<Extent, LogError> {
        let file = self.open(true)?;
        let extent = self.extent_of(&file)?;
        if extent.end - extent.start <= max {
            return Ok(extent);
        }
        let cut = (extent.end - max / 2) / BLOCK_BYTES * BLOCK_BYTES;
        if cut <= extent.start {
            return Ok(extent);
        }
        match fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, cut) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(0).map_err(self.io())?,
            Err(errno) => return Err(self.io()(errno.into())),
        }
        self.extent_of(&file)
    }

    /// Finds the last up line at or after `offset`. Adoption uses it with the offset at which the current boot began.
    pub fn find_guest_up(&self, offset: u64) -> Result<Option<GuestUp>, LogError> {
        let (mut scanner, mut found, mut at) = (Scanner::default(), None, offset);
        loop {
            let chunk = self.read(at, READ_BYTES)?;
            if chunk.bytes.is_empty() {
                return Ok(found);
            }
            at = chunk.next_offset();
            for line in chunk.bytes.split_inclusive(|&b| b == b'\n') {
                if let Some(up) = scanner.push(line) {
                    found = Some(up);
                    scanner.rearm();
                }
            }
        }
    }

    /// Follows the output from `offset` on. Needs a Tokio runtime with I/O.
    pub fn follow(&self, offset: u64) -> Result<Follower, LogError> {
        let watch = || -> io::Result<AsyncFd<OwnedFd>> {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            inotify::add_watch(&fd, &self.path, inotify::WatchFlags::MODIFY | inotify::WatchFlags::DELETE_SELF)?;
            await_readable(fd)
        };
        Ok(Follower { log: self.clone(), offset, watch: watch().map_err(self.io())? })
    }
}

/// A reader that waits for more output.
#[derive(Debug)]
pub struct Follower {
    log: ConsoleLog,
    offset: u64,
    watch: AsyncFd<OwnedFd>,
}

impl Follower {
    /// Returns the next output as soon as there is some. A reader that is too slow misses what is trimmed in the meantime, which shows in the
    /// offset. It is an error if the file is gone.
    pub async fn next(&mut self) -> Result<LogChunk, LogError> {
        loop {
            let chunk = self.log.read(self.offset, READ_BYTES)?;
            self.offset = chunk.next_offset();
            if !chunk.bytes.is_empty() {
                return Ok(chunk);
            }
            let mut ready = self.watch.readable().await.map_err(self.log.io())?;
            let mut events = [0; 1024];
            // The events themselves don't matter, because the file is read again.
            while rustix::io::read(ready.get_inner(), &mut events).is_ok_and(|n| n > 0) {}
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;

    fn log() -> (tempfile::TempDir, ConsoleLog, File) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("console.log");
        let file = OpenOptions::new().create_new(true).append(true).open(&path).expect("made");
        (dir, ConsoleLog::new(path), file)
    }

    #[test]
    fn offsets_stay_when_old_output_is_freed() {
        let (_dir, log, mut file) = log();
        let line = |n: u64| format!("{n:015}\n");
        let lines = 40_000;
        file.write_all((0..lines).map(line).collect::<String>().as_bytes()).expect("written");
        let max = 256 << 10;
        let kept = log.trim(max).expect("trimmed");
        assert_eq!(kept.end, lines * 16);
        assert!(kept.start > 0 && kept.end - kept.start <= max, "{kept:?}");
        assert!(file.metadata().expect("there").blocks() * 512 <= max, "the blocks are free");
        file.write_all(line(lines).as_bytes()).expect("appended at the end");
        assert_eq!(log.read(lines * 16, 100).expect("readable").bytes, line(lines).as_bytes());
        let first = log.read(0, 16).expect("readable");
        assert_eq!((first.offset, first.bytes), (kept.start, line(kept.start / 16).into_bytes()));
        assert_eq!(log.trim(max).expect("trimmed").start, kept.start, "nothing to do");
    }

    #[test]
    fn reading_by_offset_and_tail() {
        let (_dir, log, mut file) = log();
        assert_eq!(log.read(0, 10).expect("readable"), LogChunk { offset: 0, bytes: vec![] });
        file.write_all(b"one\ntwo\nthree\n").expect("written");
        assert_eq!(log.read(4, 3).expect("readable").bytes, b"two");
        assert_eq!(log.read(14, 10).expect("readable").bytes, b"");
        assert_eq!(log.read(99, 3).expect("readable"), LogChunk { offset: 0, bytes: b"one".into() });
        assert_eq!(log.tail(8).expect("readable"), LogChunk { offset: 8, bytes: b"three\n".into() });
        assert_eq!(log.tail(100).expect("readable").offset, 0);
    }

    #[test]
    fn the_last_up_line_after_an_offset_is_found() {
        let (_dir, log, mut file) = log();
        file.write_all(b"iaas-guest: up a 1.0\nx\niaas-guest: up b 2.0\n").expect("written");
        let up = |offset| log.find_guest_up(offset).expect("readable").map(|up| up.hostname);
        assert_eq!((up(0), up(21), up(40)), (Some("b".into()), Some("b".into()), None));
    }

    #[test]
    fn what_a_bad_qemu_could_put_in_its_place_is_not_read() {
        let (dir, log, _file) = log();
        std::fs::hard_link(log.path(), dir.path().join("second")).expect("linked");
        assert!(matches!(log.read(0, 1), Err(LogError::NotPlain { .. })));
        std::fs::remove_file(log.path()).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", log.path()).expect("linked");
        assert!(matches!(log.trim(1), Err(LogError::NotPlain { .. })));
        std::fs::remove_file(log.path()).expect("removed");
        assert!(matches!(log.extent(), Err(LogError::Io { .. })));
    }

    #[tokio::test]
    async fn following_gets_what_exists_and_what_comes() {
        let (_dir, log, mut file) = log();
        file.write_all(b"old").expect("written");
        let mut follower = log.follow(1).expect("followed");
        assert_eq!(follower.next().await.expect("readable"), LogChunk { offset: 1, bytes: b"ld".into() });
        let (chunk, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), follower.next()), async {
            tokio::task::yield_now().await;
            file.write_all(b"new").expect("written");
        });
        assert_eq!(chunk.expect("in time").expect("readable"), LogChunk { offset: 3, bytes: b"new".into() });
    }
}
