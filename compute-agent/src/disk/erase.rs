//! Erases a disk: it is freed, and unreadable by anyone, before its name is gone.
//!
//! Unlinking alone was rejected: whoever still has the file open, or a second link to it, could read on, and after a
//! crash the unlink may not have happened. So the file's whole range is punched out first, which frees its blocks and
//! makes every read through every descriptor give zeros, and that is made durable; then it is unlinked, and the
//! directory made durable.
//!
//! That freed blocks don't show up in another tenant's disk is the file system's promise: ext4, XFS, btrfs and ZFS never
//! hand out a block without it reading as zeros until it is written. Overwriting (minutes of writes for a large disk,
//! and none of the old cells on an SSD) would add nothing but wear there. Where a file system can't punch holes it may
//! be a network one that promises less: there the data is overwritten with zeros and then cut. Blocks reach
//! the device's own discard with the mount option `discard`, or by `fstrim`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::overlay::{DiskError, blocking, sync_dir};

const CHUNK_BYTES: usize = 1 << 20;

/// Erases and removes a disk's file. A file that doesn't exist is no error. No QEMU may have it open for writing.
pub async fn erase(path: &Path) -> Result<(), DiskError> {
    let path = path.to_path_buf();
    blocking(move || erase_now(&path).map_err(|source| DiskError::io(&path, source))).await
}

fn erase_now(path: &Path) -> io::Result<()> {
    let opened = OpenOptions::new().write(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let len = file.metadata()?.len();
    if len > 0 {
        match fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, len) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => overwrite(&file, len)?,
            Err(errno) => return Err(errno.into()),
        }
        file.sync_all()?;
        file.set_len(0)?;
    }
    std::fs::remove_file(path)?;
    sync_dir(path)
}

/// Writes zeros over everything that holds data.
fn overwrite(mut file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < len {
        // Holes need no zeros; a file system without holes reports that everything is data.
        at = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => seek(file, SeekFrom::Start(at))?,
            Err(errno) => return Err(errno.into()),
        };
        let n = zeros.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        file.write_all(&zeros[..n])?;
        at += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn what_was_on_the_disk_is_gone_even_for_who_holds_it_open() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, link) = (dir.path().join("disk"), dir.path().join("second-link"));
        std::fs::write(&path, b"secret".repeat(10_000)).expect("written");
        std::fs::hard_link(&path, &link).expect("linked");
        let mut open = File::open(&path).expect("open");
        erase(&path).await.expect("erased");
        assert!(!path.exists());
        let mut left = vec![];
        open.read_to_end(&mut left).expect("readable");
        left.extend(std::fs::read(&link).expect("readable"));
        assert!(left.iter().all(|&b| b == 0), "{} bytes left", left.len());
        erase(&path).await.expect("again is fine");
    }

    #[tokio::test]
    async fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (victim, path) = (dir.path().join("victim"), dir.path().join("disk"));
        std::fs::write(&victim, "keep").expect("written");
        std::os::unix::fs::symlink(&victim, &path).expect("linked");
        assert!(erase(&path).await.is_err());
        assert_eq!(std::fs::read(&victim).expect("readable"), b"keep");
    }

    #[test]
    fn overwriting_leaves_zeros_and_holes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("disk");
        let mut file = OpenOptions::new().create_new(true).write(true).open(&path).expect("made");
        let len = 3 * CHUNK_BYTES as u64 + 17;
        file.write_all(b"secret").expect("written");
        file.set_len(len).expect("grown");
        overwrite(&file, len).expect("overwritten");
        let content = std::fs::read(&path).expect("readable");
        assert_eq!(content.len() as u64, len);
        assert!(content.iter().all(|&b| b == 0));
    }
}
