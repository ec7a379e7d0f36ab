//! The unprivileged user that each instance has for itself.
//!
//! A single user for all instances was rejected: a QEMU that its guest has taken over would own every other tenant's disk. The user of an instance
//! is the owner of its console directory, and nothing else records it, so no crash can make the two disagree.

use super::layout;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::Path,
};

#[derive(Debug)]
pub struct Users {
    first: u32,
    count: u32,
    taken: Mutex<BTreeSet<u32>>,
}

impl Users {
    /// Reads which users are taken. The last one of the range belongs to the probe.
    pub fn open(state_dir: &Path, first: u32, count: u32) -> io::Result<Self> {
        let mut taken = BTreeSet::from([first + count - 1]);
        for entry in fs::read_dir(layout::instances_dir(state_dir))? {
            if let Ok(meta) = fs::symlink_metadata(entry?.path().join("console")) {
                taken.insert(meta.uid());
            }
        }
        Ok(Self { first, count, taken: Mutex::new(taken) })
    }

    /// The user that runs the probe guest.
    #[must_use]
    pub fn probe(&self) -> u32 {
        self.first + self.count - 1
    }

    /// Returns the instance's user. If it has none yet, a user is assigned and the instance's directories are made. `None` means that all
    /// users are taken.
    pub fn ensure(&self, paths: &layout::Paths) -> io::Result<Option<u32>> {
        let console = paths.console_dir();
        match fs::symlink_metadata(&console) {
            Ok(meta) if meta.uid() != 0 => return Ok(Some(meta.uid())),
            // The directory was made and has no owner yet, because a crash came in between.
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o711).create(&paths.dir)?;
                fs::DirBuilder::new().mode(0o700).create(&console)?;
            }
            Err(e) => return Err(e),
        }
        let uid = {
            let mut taken = self.taken.lock();
            let Some(uid) = (self.first..self.first + self.count).find(|uid| !taken.contains(uid)) else {
                return Ok(None);
            };
            taken.insert(uid);
            uid
        };
        if let Err(e) = chown(&console, Some(uid), Some(uid)) {
            self.release(uid);
            return Err(e);
        }
        Ok(Some(uid))
    }

    /// The instance's user, if it has one.
    #[must_use]
    pub fn find(&self, paths: &layout::Paths) -> Option<u32> {
        fs::symlink_metadata(paths.console_dir()).ok().map(|meta| meta.uid()).filter(|uid| *uid != 0)
    }

    /// Frees the user of an instance of which nothing is left.
    pub fn release(&self, uid: u32) {
        self.taken.lock().remove(&uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::InstanceId;

    #[test]
    fn each_has_its_own_and_keeps_it() {
        if !rustix::process::geteuid().is_root() {
            return println!("not run: giving directories away takes root");
        }
        let dir = tempfile::tempdir().expect("dir");
        fs::create_dir(layout::instances_dir(dir.path())).expect("made");
        let paths = || layout::Paths::new(dir.path(), dir.path(), InstanceId::new());
        let (a, b, c) = (paths(), paths(), paths());
        let users = Users::open(dir.path(), 700_000, 3).expect("opened");
        let (uid_a, uid_b) = (users.ensure(&a).expect("made"), users.ensure(&b).expect("made"));
        assert_eq!((uid_a, uid_b), (Some(700_000), Some(700_001)));
        assert_eq!(users.ensure(&c).expect("called"), None, "the last is the probe's");
        assert_eq!(users.ensure(&a).expect("there"), uid_a);
        let users = Users::open(dir.path(), 700_000, 3).expect("opened again");
        assert_eq!((users.find(&a), users.find(&b)), (uid_a, uid_b));
        fs::remove_dir_all(&a.dir).expect("removed");
        users.release(700_000);
        assert_eq!(users.ensure(&c).expect("made"), Some(700_000));
    }
}
