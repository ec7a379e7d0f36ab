//! Keeps what a QEMU writes small, also while no agent is there to read it: a process beside each QEMU, for as long as it lives.
//!
//! What QEMU prints and what its guest prints on the serial console end in files of the host. A guest can make QEMU print without end (each
//! wrong move of a virtio queue is a line), and a serial console is there to be printed on. The agent keeps both files small while it runs.
//! But it may be away for an upgrade, or for a night, and a guest would fill the disk that other tenants' guests write to.
//!
//! So QEMU's output is a socket whose other end is this process, which keeps the last lines of it, and the console's log is cut when it grows. A limit on
//! the size of files (`RLIMIT_FSIZE`) was rejected, for QEMU's disks are files too; a pipe that nobody reads would stop QEMU,
//! or lose its last words, which say why it ended; and a file system of its own for each instance would be one more mount to lose.
//!
//! It runs as the instance's user, in its control group and its namespaces, opens nothing but the console's log, and ends when QEMU does. While it lives
//! it holds a lock on the file of QEMU's output: who wants the last words waits for that lock ([`final_output`]).

use crate::console::ConsoleLog;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock, inotify},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How much of QEMU's output is kept at least, and at most twice as much.
pub const OUTPUT_KEPT: u64 = 64 << 10;
/// The console's log is looked at this often while it grows.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the last words are waited for, and how often it is looked whether they are there.
const FINAL_OUTPUT: Duration = Duration::from_secs(2);
const FINAL_OUTPUT_POLL: Duration = Duration::from_millis(2);
/// How much of them is shown.
const TAIL_BYTES: u64 = 4096;

/// The log of a serial console, and how large it may grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleBound {
    pub path: PathBuf,
    pub max_bytes: u64,
}

/// Keeps both small until QEMU closes its end of the output.
pub fn keep(output: &UnixStream, file: &mut File, console: Option<&ConsoleBound>) {
    let watch = console.and_then(|console| watch(&console.path).ok());
    let mut resume_at = Instant::now();
    let mut chunk = [0; 8 << 10];
    loop {
        // A log that was looked at a moment ago isn't watched until a while has passed: a guest that prints without end costs a look each time.
        let pause = resume_at.saturating_duration_since(Instant::now());
        let watched = watch.as_ref().filter(|_| pause.is_zero());
        let mut fds = vec![PollFd::new(output, PollFlags::IN)];
        fds.extend(watched.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = watch.as_ref().filter(|_| !pause.is_zero()).map(|_| Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(1),
            tv_nsec: pause.subsec_nanos().into(),
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            continue;
        }
        let (speaks, grows) = (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|fd| !fd.revents().is_empty()));
        if let (true, Some(watch), Some(console)) = (grows, &watch, console) {
            while rustix::io::read(watch, &mut chunk).is_ok_and(|n| n > 0) {}
            trim(console);
            resume_at = Instant::now() + LOOK_EVERY;
        }
        if speaks {
            match (&mut &*output).read(&mut chunk) {
                // On a full disk what can't be kept is dropped: QEMU must never wait for it.
                Ok(n) if n > 0 => drop(append(file, &chunk[..n])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
    }
    if let Some(console) = console {
        trim(console);
    }
}

fn watch(log: &Path) -> io::Result<OwnedFd> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    // QEMU makes the file later.
    let dir = log.parent().unwrap_or(Path::new("/"));
    inotify::add_watch(&fd, dir, inotify::WatchFlags::MODIFY)?;
    Ok(fd)
}

fn trim(console: &ConsoleBound) {
    // A log that isn't there yet has nothing to be freed.
    let _ = ConsoleLog::new(&console.path).trim(console.max_bytes);
}

/// Appends, and drops the older half when the file is as large as it may be.
fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let len = file.seek(SeekFrom::End(0))?;
    if len + bytes.len() as u64 > 2 * OUTPUT_KEPT {
        let mut kept = Vec::new();
        file.seek(SeekFrom::Start(len.saturating_sub(OUTPUT_KEPT)))?;
        file.read_to_end(&mut kept)?;
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(&kept)?;
    }
    file.write_all(bytes)
}

/// The last lines that QEMU wrote, at most 4 KiB; empty if there is no file.
pub fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).trim().to_owned()
}

/// The last lines of a QEMU that has ended, once they are all there.
pub async fn final_output(path: &Path) -> String {
    let until = Instant::now() + FINAL_OUTPUT;
    while Instant::now() < until {
        let written = || Ok::<_, io::Error>(flock(File::open(path)?, FlockOperation::NonBlockingLockShared)?);
        match written() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(FINAL_OUTPUT_POLL).await,
            Ok(()) | Err(_) => break,
        }
    }
    tail(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn the_final_output_of_any_flood_are_kept_and_no_more() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, log) = (dir.path().join("stderr"), dir.path().join("console.log"));
        let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&path).expect("made");
        flock(&file, FlockOperation::LockExclusive).expect("locked");
        let (mut qemu, ours) = UnixStream::pair().expect("a pair");
        let console = ConsoleBound { path: log.clone(), max_bytes: 256 << 10 };
        let keeper = std::thread::spawn(move || keep(&ours, &mut file, Some(&console)));
        let mut guest = File::options().create(true).append(true).open(&log).expect("made");
        for _ in 0..2_000 {
            qemu.write_all(&[b'x'; 4096]).expect("never held up");
            guest.write_all(&[b'y'; 4096]).expect("written");
        }
        qemu.write_all(b"\nthe end\n").expect("written");
        drop(qemu);
        assert!(final_output(&path).await.ends_with("the end"));
        keeper.join().expect("no panic");
        let kept = fs::metadata(&path).expect("there").len();
        assert!((OUTPUT_KEPT..=2 * OUTPUT_KEPT).contains(&kept), "{kept}");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&log).expect("there"));
        assert!(blocks * 512 <= 256 << 10, "{blocks} blocks");
        assert_eq!(tail(&dir.path().join("none")), "");
    }
}
