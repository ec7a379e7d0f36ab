//! Network namespaces, each with a thread that lives in it.
//!
//! A namespace belongs to a thread. Entering and removed one on the executor's threads was rejected: a task that yields in between,
//! or an error on the way back, leaves a thread in a stranger's network. So each namespace has one thread that never leaves it and
//! does what it is sent: it holds the netlink socket, makes the sockets of the services, starts nft. The thread of the host's own
//! namespace works the same way.

use super::{netlink::Netlink, nfnetlink::Nfnetlink};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};
use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::oneshot;

/// The directory in which iproute2 keeps its names.
pub const SYSTEM_DIR: &str = "/run/netns";

#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("the network namespace {path} can't be {what}")]
    Namespace {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the thread of a network namespace has ended")]
    Gone,
}

/// What a job finds in its namespace.
pub struct Inside {
    pub netlink: Netlink,
    pub rules: Nfnetlink,
}

type Job = Box<dyn FnOnce(&mut Inside) + Send>;

/// A namespace and its thread. Dropping it ends the thread, not the namespace, and waits for the job that runs: a change that is
/// made after its owner thinks it gone would meet the next owner's.
#[derive(Debug)]
pub struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    namespace: Arc<OwnedFd>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Which namespace a thread is to live in.
enum Place {
    Current,
    Named(PathBuf),
    New(PathBuf),
}

impl Worker {
    /// In the namespace that this process is in.
    pub fn current() -> Result<Self, NetnsError> {
        Self::start("host".into(), Place::Current)
    }

    /// In the namespace that is mounted at `path`.
    pub fn enter(path: &Path) -> Result<Self, NetnsError> {
        Self::start(thread_name(path), Place::Named(path.into()))
    }

    /// In a new namespace, mounted at `path`.
    pub fn create(path: &Path) -> Result<Self, NetnsError> {
        Self::start(thread_name(path), Place::New(path.into()))
    }

    /// Another thread in this one's namespace: what takes it long doesn't hold up the first.
    pub fn second(&self, name: &str) -> Result<Self, NetnsError> {
        Self::start(name.into(), Place::Named(format!("/proc/self/fd/{}", self.namespace_fd()).into()))
    }

    fn start(name: String, place: Place) -> Result<Self, NetnsError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, entered) = mpsc::channel();
        let path = match &place {
            Place::Current => PathBuf::from("/proc/self/ns/net"),
            Place::Named(path) | Place::New(path) => path.clone(),
        };
        let failed = |what, source| NetnsError::Namespace { what, path: path.clone(), source };
        let work = move || {
            let (fd, mut inside) = match enter(&place) {
                Ok((fd, inside)) => (fd, inside),
                Err(e) => {
                    let _ = ready.send(Err(e));
                    return;
                }
            };
            let _ = ready.send(Ok(fd));
            while let Ok(job) = queue.recv() {
                job(&mut inside);
            }
        };
        let thread = thread::Builder::new().name(name).stack_size(1024 * 1024).spawn(work);
        let thread = thread.map_err(|e| failed("served", e))?;
        let fd = entered.recv().map_err(|_| NetnsError::Gone)?.map_err(|(what, e)| failed(what, e))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), namespace: Arc::new(fd) })
    }

    /// Does `job` in the namespace.
    pub async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Inside) -> R + Send + 'static,
    ) -> Result<R, NetnsError> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |inside| {
            let _ = done.send(job(inside));
        });
        self.jobs.as_ref().ok_or(NetnsError::Gone)?.send(job).map_err(|_| NetnsError::Gone)?;
        result.await.map_err(|_| NetnsError::Gone)
    }

    /// The same, for a thread that may wait.
    pub fn run_blocking<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Inside) -> R + Send + 'static,
    ) -> Result<R, NetnsError> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move |inside| {
            let _ = done.send(job(inside));
        });
        self.jobs.as_ref().ok_or(NetnsError::Gone)?.send(job).map_err(|_| NetnsError::Gone)?;
        result.recv().map_err(|_| NetnsError::Gone)
    }

    /// A descriptor of the namespace, for messages that name it.
    #[must_use]
    pub fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }

    #[must_use]
    pub fn namespace_fd(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }
}

fn thread_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The kernel shows 15 characters; the end of the name tells namespaces apart.
    name.chars().rev().take(15).collect::<Vec<_>>().into_iter().rev().collect()
}

fn enter(place: &Place) -> Result<(OwnedFd, Inside), (&'static str, io::Error)> {
    match place {
        Place::Current => {}
        Place::Named(path) => {
            let file = fs::File::open(path).map_err(|e| ("opened", e))?;
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| ("entered", e.into()))?;
        }
        Place::New(path) => {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| ("made", e.into()))?;
            mount_here(path).map_err(|e| ("mounted", e))?;
        }
    }
    let fd = fs::File::open("/proc/thread-self/ns/net").map_err(|e| ("opened", e))?;
    let netlink = Netlink::open().map_err(|e| ("configured", e))?;
    let rules = Nfnetlink::open().map_err(|e| ("configured", e))?;
    Ok((fd.into(), Inside { netlink, rules }))
}

/// Keeps the calling thread's namespace alive under a name, as iproute2 does.
pub fn mount_here(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|e| {
        let _ = fs::remove_file(path);
        e.into()
    })
}

/// The name goes; the namespace goes with its last thread and socket.
///
/// A name may have several mounts: whoever bind-mounts the directory onto itself (as `ip netns add` does where nobody did before) doubles
/// all that are in it. So all that can be seen go. One that is hidden below the directory's own mount keeps the empty file, which is
/// nobody's namespace any more: the next one of that name is mounted over it.
pub fn remove(path: &Path) -> Result<(), NetnsError> {
    let failed = |source| NetnsError::Namespace { what: "removed", path: path.into(), source };
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // Not mounted (by now, or since a crash between making the file and mounting it), or not there.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(e) => return Err(failed(e.into())),
        }
    }
    match fs::remove_file(path) {
        Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => {
            tracing::debug!(path = %path.display(), "a mount below another one keeps the file of a removed namespace");
            Ok(())
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the directory of names a shared mount of its own, as iproute2 does at its first `ip netns add`: done before any namespace is
/// mounted in it, nobody does it later and doubles those that are there by then.
pub fn prepare_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let share = || mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    match share() {
        // It isn't a mount yet.
        Err(Errno::EINVAL) => {
            mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            share()?;
        }
        shared => shared?,
    }
    Ok(())
}

/// Whether `path` names the namespace of the descriptor.
#[must_use]
pub fn names(path: &Path, namespace: &OwnedFd) -> bool {
    let (Ok(named), Ok(held)) = (rustix::fs::stat(path), rustix::fs::fstat(namespace)) else { return false };
    (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)
}

/// Whether a namespace is mounted at `path` (and not only an empty file that a crash left).
#[must_use]
pub fn mounted(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NSFS_MAGIC)
}

const NSFS_MAGIC: rustix::fs::FsWord = 0x6e73_6673;

/// Names in `dir`.
pub fn list(dir: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}
