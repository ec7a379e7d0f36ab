//! Network namespaces, each with a thread that lives in it.
//!
//! A namespace belongs to a thread. Entering and removed one on the executor's threads was rejected: a task that yields in between,
//! or an error on the way back, leaves a thread in a stranger's network. So each namespace has one thread that never leaves it and
//! does what it is sent: it holds the netlink socket, makes the sockets of the services, starts nft. The thread of the host's own
//! namespace works the same way.

use super::{netlink::Netlink, nfnetlink::Nfnetlink};
use nix::{
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
fn mount_here(path: &Path) -> io::Result<()> {
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
pub fn remove(path: &Path) -> Result<(), NetnsError> {
    let failed = |source| NetnsError::Namespace { what: "removed", path: path.into(), source };
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not mounted (a crash between making the file and mounting it), or not there.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(e) => return Err(failed(e.into())),
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        Ok(()) | Err(_) => Ok(()),
    }
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
