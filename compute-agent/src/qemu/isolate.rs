//! Takes the host out of a QEMU's sight: its own mount, network and IPC namespaces.
//!
//! A QEMU that its guest has taken over has the rights of a user who owns nothing but that guest. Even so, on an ordinary host such a user
//! can read other guests' images, connect to whatever listens on the loopback device, and list every process. So QEMU starts where
//! there is no network device but an idle loopback, where the directories of instances contain its own files alone, and where
//! `/proc` shows its own processes. Its taps come as open files, its sockets are files, so it misses nothing.
//!
//! A root file system of its own (`pivot_root`) was rejected: QEMU loads firmware, modules and libraries from where the distribution put
//! them, and a list of these breaks with the next package.
//!
//! Mounts come in from the host (`MS_SLAVE`) and none goes out: a file system that the host unmounts isn't held by guests that don't use it.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// What a program sees of the host's files. Paths are absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Directories that look empty, but for what is visible below them.
    pub hidden: Vec<PathBuf>,
    /// Files and directories below the hidden ones that are there all the same.
    pub visible: Vec<PathBuf>,
}

/// Moves the calling process, which must have one thread, into namespaces of its own.
pub fn enter(isolation: &Isolation) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    // Opened while they are still in sight, and in this namespace: what was opened outside can't be mounted here.
    let visible = isolation.visible.iter().map(|path| Ok((path, open_path(path)?)));
    let visible: Vec<(&PathBuf, File)> = visible.collect::<io::Result<_>>()?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for dir in &isolation.hidden {
        mount(Some("none"), dir, Some("tmpfs"), plain, Some("mode=0711,size=64k,nr_inodes=64"))?;
    }
    for (path, file) in &visible {
        make_place(path, file)?;
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        mount(Some(source.as_str()), path.as_path(), none, MsFlags::MS_BIND, none)?;
    }
    for dir in &isolation.hidden {
        mount(none, dir, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | plain, none)?;
    }
    if hides_processes() {
        mount(Some("proc"), "/proc", Some("proc"), plain, Some("hidepid=invisible"))?;
    }
    Ok(())
}

fn open_path(path: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Makes what is mounted over.
fn make_place(path: &Path, file: &File) -> io::Result<()> {
    let mut dirs = DirBuilder::new();
    dirs.recursive(true).mode(0o711);
    if file.metadata()?.is_dir() {
        return dirs.create(path);
    }
    dirs.create(path.parent().unwrap_or(Path::new("/")))?;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o400).open(path).map(drop)
}

/// Since Linux 5.8 each mount of `/proc` hides processes by itself; before, such a mount would have changed the host's.
fn hides_processes() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|text| text.trim().parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(8))
}
