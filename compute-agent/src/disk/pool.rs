//! The shared pool: a directory that several hosts mount, so that an instance's disks outlive its host.
//!
//! ```text
//! <pool>/iaas-pool.json             the marker: which pool this is
//! <pool>/images/<sha256>            an image that disks lie on, copied there once by whoever needed it first
//! <pool>/disks/<instance>/          owned by root
//!     <role>-<seq>.qcow2            a disk, owned by the instance's user on the host that has it
//!     base-<role>-<seq>.img         a second name of the image that the disk lies on
//!     holder.json                   the host that has the disks, and the epoch in which it has them
//! ```
//!
//! **The problem.** A directory that isn't mounted looks like an empty one, and hosts that don't speak with each other write the same place: a host that was
//! lost comes back with a ledger that says that the disks are its own.
//!
//! **How it is.**
//! - Nothing is read or written where the marker isn't.
//! - A host writes down that it has an instance's disks before it makes or opens one of them. One that finds a later epoch there touches nothing.
//! - Files are removed only for a deletion that says that it ends the instance everywhere, and not where a later epoch is written down.
//! - QEMU locks a disk as long as it has it open. Whether another host does is asked before a start, so that the owner reads who it is; QEMU itself refuses in any case.
//! - The image that a disk lies on has a second name beside the disk, and the disk's header names it without a directory: hosts may mount the pool at different places.
//!   An image with no second name is on no disk, and goes.

use super::overlay::{DiskError, sync_dir};
use crate::images::group_of;
use domain::{HostId, InstanceId};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};
use uuid::Uuid;

pub const MARKER: &str = "iaas-pool.json";
const HOLDER: &str = "holder.json";
/// Where QEMU's raw driver locks an image: the bytes of its permissions, and of what it shares.
const LOCK_FIRST: i64 = 100;
const LOCK_BYTES: i64 = 200;

#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    #[error("this host has no shared pool (compute.shared_pool)")]
    NotConfigured,
    #[error(
        "{dir} isn't a shared pool, or it isn't mounted: mount it, or make one of an empty file system with `iaasd host init-pool`"
    )]
    NoMarker { dir: PathBuf },
    #[error("the marker of the shared pool {dir} can't be read")]
    Unreadable {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{dir} isn't empty and no shared pool: a pool is made in an empty directory only")]
    NotEmpty { dir: PathBuf },
    #[error("the shared pool {dir} can't be made")]
    Make {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Why an instance's disks in the pool can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(transparent)]
    Pool(PoolError),
    #[error("its disks in the shared pool belong to host {host_name} since epoch {epoch}, and this is epoch {ours}")]
    Later { host_name: String, epoch: i64, ours: i64 },
    #[error("its disk is still held by {host_name}")]
    Held { host_name: String },
    #[error(transparent)]
    Disk(DiskError),
}

impl ClaimError {
    /// Whether somebody has to act before it can succeed. What another host holds it releases by itself, at the latest when it is fenced.
    #[must_use]
    pub fn fault(&self) -> bool {
        match self {
            Self::Held { .. } => false,
            Self::Pool(_) | Self::Later { .. } | Self::Disk(_) => true,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    id: Uuid,
}

/// Who has an instance's disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub epoch: i64,
    pub host_id: HostId,
    pub host_name: String,
    /// The host that had them before.
    #[serde(default)]
    pub before: String,
}

#[derive(Debug, Clone)]
pub struct SharedPool {
    dir: PathBuf,
}

/// Makes the pool in an empty directory. Answers its id, also where it was one already.
pub fn init(dir: &Path) -> Result<Uuid, PoolError> {
    let make = |source| PoolError::Make { dir: dir.to_path_buf(), source };
    let pool = SharedPool::new(dir.to_path_buf());
    match pool.id() {
        Err(PoolError::NoMarker { .. }) => {}
        known => return known,
    }
    let foreign = |entry: &io::Result<fs::DirEntry>| {
        !entry.as_ref().is_ok_and(|entry| {
            let name = entry.file_name();
            ["images", "disks", "lost+found"].iter().any(|ours| name == *ours)
                || name.to_string_lossy().starts_with(MARKER)
        })
    };
    if fs::read_dir(dir).map_err(make)?.any(|entry| foreign(&entry)) {
        return Err(PoolError::NotEmpty { dir: dir.to_path_buf() });
    }
    for name in ["images", "disks"] {
        DirBuilder::new().recursive(true).mode(0o711).create(dir.join(name)).map_err(make)?;
    }
    // The link makes it whole or not at all, and only once: of several that try, one decides which pool this is.
    let half = dir.join(format!("{MARKER}.{}", Uuid::new_v4().simple()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o644).open(&half)?;
        file.write_all(&serde_json::to_vec(&Marker { id: Uuid::new_v4() })?)?;
        file.sync_all()?;
        match fs::hard_link(&half, dir.join(MARKER)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::remove_file(&half)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(make)?;
    pool.id()
}

impl SharedPool {
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which pool it is; an error where there is none, most often because it isn't mounted.
    pub fn id(&self) -> Result<Uuid, PoolError> {
        let dir = || self.dir.clone();
        let text = match fs::read(self.dir.join(MARKER)) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(PoolError::NoMarker { dir: dir() });
            }
            Err(source) => return Err(PoolError::Unreadable { dir: dir(), source }),
        };
        let marker: Result<Marker, _> = serde_json::from_slice(&text);
        marker.map(|marker| marker.id).map_err(|e| PoolError::Unreadable { dir: dir(), source: e.into() })
    }

    #[must_use]
    pub fn instance_dir(&self, instance_id: InstanceId) -> PathBuf {
        self.dir.join("disks").join(instance_id.to_string())
    }

    fn images_dir(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// Who has the instance's disks; `None` if nobody ever had.
    pub fn holder(&self, instance_id: InstanceId) -> io::Result<Option<Holder>> {
        match fs::read(self.instance_dir(instance_id).join(HOLDER)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the instance's disks for this host and its user: those of `files` that exist are given to the user. Nobody else may have one open.
    pub fn claim(&self, instance_id: InstanceId, us: Holder, files: &[PathBuf], uid: u32) -> Result<(), ClaimError> {
        self.id().map_err(ClaimError::Pool)?;
        let dir = self.instance_dir(instance_id);
        let on = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ClaimError::Disk(DiskError::io(&path, source))
        };
        DirBuilder::new().recursive(true).mode(0o711).create(&dir).map_err(on(&dir))?;
        let holder = self.holder(instance_id).map_err(on(&dir))?;
        if let Some(Holder { epoch, host_name, .. }) = &holder
            && *epoch > us.epoch
        {
            return Err(ClaimError::Later { host_name: host_name.clone(), epoch: *epoch, ours: us.epoch });
        }
        let mut opened = Vec::new();
        for path in files {
            match open_disk(path) {
                Ok(file) => opened.push((path, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(on(path)(error)),
            }
        }
        for (path, file) in &opened {
            if locked(file).map_err(on(path))? {
                let host_name = holder.as_ref().map_or("another host".to_owned(), |holder| {
                    let ours = holder.host_id == us.host_id && !holder.before.is_empty();
                    format!("host {}", if ours { &holder.before } else { &holder.host_name })
                });
                return Err(ClaimError::Held { host_name });
            }
        }
        if holder.as_ref().is_none_or(|holder| (holder.epoch, holder.host_id) != (us.epoch, us.host_id)) {
            let before = holder.map_or(String::new(), |holder| holder.host_name);
            let text = serde_json::to_vec(&Holder { before, ..us }).map_err(|e| on(&dir)(e.into()))?;
            agent_kit::durable::replace(&dir, HOLDER, &text).map_err(on(&dir))?;
        }
        for (path, file) in &opened {
            fchown(file, Some(uid), Some(uid)).map_err(on(path))?;
        }
        Ok(())
    }

    /// Whether a deletion in this epoch may remove what the instance has in the pool.
    pub fn may_erase(&self, instance_id: InstanceId, epoch: i64) -> io::Result<bool> {
        Ok(self.holder(instance_id)?.is_none_or(|holder| holder.epoch <= epoch))
    }

    /// Gives the image a second name beside a disk; the image is copied to the pool if it isn't there.
    pub fn link_image(&self, cached: &Path, sha256: &str, base: &Path) -> io::Result<()> {
        let published = self.images_dir().join(sha256);
        let same = |a: &Path, b: &Path| -> io::Result<bool> {
            let (a, b) = (fs::metadata(a)?, fs::metadata(b)?);
            Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
        };
        loop {
            match fs::hard_link(&published, base) {
                Ok(()) => return sync_dir(base),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if same(&published, base)? {
                        return sync_dir(base);
                    }
                    fs::remove_file(base)?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            // It has its place beside the disk before it is one of the pool's images: an image without a second name would be taken for an unused one.
            let half = base.with_extension("new");
            copy_image(cached, sha256, &half)?;
            fs::rename(&half, base)?;
            match fs::hard_link(base, &published) {
                Ok(()) => {
                    sync_dir(base)?;
                    return sync_dir(&published);
                }
                // Another host was faster: its copy is the one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(base)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the images that no disk lies on.
    pub fn drop_unused_images(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.images_dir())? {
            let path = entry?.path();
            let unused = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.nlink() == 1);
            match if unused { fs::remove_file(&path) } else { Ok(()) } {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

fn open_disk(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// Whether anybody has the image open by QEMU's rules, on whichever host.
fn locked(file: &File) -> io::Result<bool> {
    use nix::fcntl::{FcntlArg, fcntl};
    let mut lock = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as i16,
        l_whence: nix::libc::SEEK_SET as i16,
        l_start: LOCK_FIRST,
        l_len: LOCK_BYTES,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != nix::libc::F_UNLCK)
}

fn copy_image(from: &Path, sha256: &str, to: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o400).open(to)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    // As in the cache: the group of this very image may read it.
    let mode = if fchown(&file, None, Some(group_of(sha256))).is_ok() { 0o440 } else { 0o444 };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rig {
        dir: tempfile::TempDir,
        pool: SharedPool,
        id: InstanceId,
    }

    fn rig() -> Rig {
        let dir = tempfile::tempdir().expect("dir");
        init(dir.path()).expect("made");
        Rig { pool: SharedPool::new(dir.path().to_path_buf()), dir, id: InstanceId::new() }
    }

    fn host(name: &str, epoch: i64) -> Holder {
        Holder { epoch, host_id: HostId::new(), host_name: name.into(), before: String::new() }
    }

    #[test]
    fn a_pool_is_made_once_and_only_of_an_empty_directory() {
        let dir = tempfile::tempdir().expect("dir");
        let pool = SharedPool::new(dir.path().to_path_buf());
        assert!(matches!(pool.id(), Err(PoolError::NoMarker { .. })));
        fs::write(dir.path().join("letter.txt"), "").expect("written");
        assert!(matches!(init(dir.path()), Err(PoolError::NotEmpty { .. })));
        fs::remove_file(dir.path().join("letter.txt")).expect("removed");
        let id = init(dir.path()).expect("made");
        assert_eq!((init(dir.path()).expect("known"), pool.id().expect("known")), (id, id));
        fs::write(dir.path().join(MARKER), "{").expect("written");
        assert!(matches!(pool.id(), Err(PoolError::Unreadable { .. })));
        assert!(init(dir.path()).is_err(), "what can't be read isn't replaced");
        assert!(matches!(SharedPool::new(dir.path().join("none")).id(), Err(PoolError::NoMarker { .. })));
    }

    #[test]
    fn a_later_epoch_keeps_the_host_that_had_the_disks_before_from_them() {
        let Rig { pool, id, dir: _dir } = rig();
        let uid = nix::unistd::geteuid().as_raw();
        pool.claim(id, host("one", 1), &[], uid).expect("nobody has them");
        let disk = pool.instance_dir(id).join("root-0.qcow2");
        fs::write(&disk, "").expect("written");
        pool.claim(id, host("two", 2), std::slice::from_ref(&disk), uid).expect("a later epoch");
        let holder = pool.holder(id).expect("readable").expect("written");
        assert_eq!((holder.host_name.as_str(), holder.before.as_str()), ("two", "one"));
        let refused = pool.claim(id, host("one", 1), std::slice::from_ref(&disk), uid).expect_err("an earlier epoch");
        assert!(matches!(refused, ClaimError::Later { epoch: 2, ours: 1, .. }) && refused.fault(), "{refused}");
        assert!(!pool.may_erase(id, 1).expect("readable") && pool.may_erase(id, 2).expect("readable"));
    }

    #[test]
    fn a_disk_that_is_open_elsewhere_is_not_taken_and_its_holder_is_named() {
        use nix::fcntl::{FcntlArg, fcntl};
        let Rig { pool, id, dir: _dir } = rig();
        let uid = nix::unistd::geteuid().as_raw();
        pool.claim(id, host("one", 1), &[], uid).expect("nobody has them");
        let disk = pool.instance_dir(id).join("root-0.qcow2");
        fs::write(&disk, "").expect("written");
        let running = open_disk(&disk).expect("opened");
        // As QEMU does: it shares nothing but its own writing.
        let lock = nix::libc::flock {
            l_type: nix::libc::F_RDLCK as i16,
            l_whence: nix::libc::SEEK_SET as i16,
            l_start: 101,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&running, FcntlArg::F_OFD_SETLK(&lock)).expect("locked");
        let claim = || pool.claim(id, host("two", 2), std::slice::from_ref(&disk), uid);
        let held = claim().expect_err("held");
        assert_eq!((held.to_string(), held.fault()), ("its disk is still held by host one".to_owned(), false));
        assert_eq!(pool.holder(id).expect("readable").expect("there").epoch, 1, "nothing was taken");
        drop(running);
        claim().expect("free");
    }

    #[test]
    fn an_image_is_in_the_pool_once_and_goes_with_the_last_disk_on_it() {
        let Rig { pool, dir, .. } = rig();
        let (sha, cached) = ("ab".repeat(32), dir.path().join("cached"));
        fs::write(&cached, "bytes").expect("written");
        let bases = [InstanceId::new(), InstanceId::new()].map(|id| {
            fs::create_dir_all(pool.instance_dir(id)).expect("made");
            pool.instance_dir(id).join("base-root-0.img")
        });
        for base in [&bases[0], &bases[1], &bases[1]] {
            pool.link_image(&cached, &sha, base).expect("linked");
        }
        let published = pool.images_dir().join(&sha);
        assert_eq!(fs::metadata(&published).expect("there").nlink(), 3);
        // A crash left a copy that isn't the pool's.
        fs::remove_file(&bases[1]).expect("removed");
        fs::write(&bases[1], "half").expect("written");
        pool.link_image(&cached, &sha, &bases[1]).expect("linked");
        assert_eq!(fs::read(&bases[1]).expect("readable"), b"bytes");
        for (base, left) in bases.iter().zip([true, false]) {
            fs::remove_file(base).expect("removed");
            pool.drop_unused_images().expect("swept");
            assert_eq!(published.exists(), left);
        }
    }
}
