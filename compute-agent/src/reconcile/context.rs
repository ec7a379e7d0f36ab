//! What the tasks of all instances share.

use super::{
    hypervisor::{Hypervisor, HypervisorCell, HypervisorError},
    layout::{self, Paths},
    room::Room,
    starts::StartsPermit,
    users::Users,
};
use crate::{
    adopt::Found,
    config::Config,
    console::{ConsoleHub, ConsoleLog},
    disk::pool::SharedPool,
    host::cgroup::Cgroups,
    images::ImageCache,
    ledger::{Ledger, Version},
    link::observation::Observation,
};
use agent_kit::Outbox;
use domain::InstanceId;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU32},
    time::Instant,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// When the agent received a version, from which `exec_ms` is measured.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub version: Version,
    pub at: Instant,
}

pub struct Context {
    pub config: Config,
    pub ledger: Arc<Ledger>,
    pub images: Arc<ImageCache>,
    pub cgroups: Cgroups,
    pub users: Users,
    pub hypervisor: HypervisorCell,
    /// Whether disks below the state directory may bypass the page cache.
    pub direct: bool,
    /// The shared pool that the configuration names.
    pub pool: Option<SharedPool>,
    pub boot_id: String,
    /// The permits for starts that are being prepared.
    pub starts: Arc<Semaphore>,
    pub starts_in_progress: AtomicU32,
    /// Whether a manager lets this host start instances.
    pub starts_permit: StartsPermit,
    /// QEMUs that were found running at the start and that no task has taken yet.
    pub found: Mutex<HashMap<InstanceId, Found>>,
    pub received: Mutex<HashMap<InstanceId, Received>>,
    /// The observations that the manager must still get.
    pub outbox: Outbox<Observation>,
    consoles: Mutex<HashMap<InstanceId, ConsoleHub>>,
    room: Room,
    /// Held while threads are assigned to an instance.
    pub pinning: tokio::sync::Mutex<()>,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
    born: Instant,
}

/// What [`Context::new`] is given.
pub struct Parts {
    pub config: Config,
    pub ledger: Arc<Ledger>,
    pub images: Arc<ImageCache>,
    pub cgroups: Cgroups,
    pub users: Users,
    pub direct: bool,
    pub boot_id: String,
    pub found: HashMap<InstanceId, Found>,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

impl Context {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, ledger, images, cgroups, users, direct, boot_id, found, tasks, shutdown } = parts;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let starts = match config.parallel_starts {
            0 => (2 * threads).max(4),
            n => usize::try_from(n).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS),
        };
        Self {
            pool: config.shared_pool.clone().map(SharedPool::new),
            config,
            ledger,
            images,
            cgroups,
            users,
            hypervisor: HypervisorCell::default(),
            direct,
            boot_id,
            starts: Arc::new(Semaphore::new(starts)),
            starts_in_progress: AtomicU32::new(0),
            starts_permit: StartsPermit::default(),
            found: Mutex::new(found),
            received: Mutex::default(),
            outbox: Outbox::default(),
            consoles: Mutex::default(),
            room: Room::default(),
            pinning: tokio::sync::Mutex::default(),
            tasks,
            shutdown,
            born: Instant::now(),
        }
    }

    /// The host's name as people know it.
    #[must_use]
    pub fn host_name(&self) -> String {
        if !self.config.host_name.is_empty() {
            return self.config.host_name.clone();
        }
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
    }

    /// Milliseconds of the agent's own monotonic clock.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the file system of the disks is full, which the manager must know before it places anything here.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        self.room.full(&self.ledger, &self.config)
    }

    /// The instant of a time of [`Self::now_ms`].
    #[must_use]
    pub fn instant(&self, ms: u64) -> tokio::time::Instant {
        (self.born + std::time::Duration::from_millis(ms)).into()
    }

    #[must_use]
    pub fn paths(&self, instance_id: InstanceId) -> Paths {
        Paths::new(&self.config.state_dir, &self.config.run_dir, instance_id)
    }

    pub async fn hypervisor(&self) -> Result<Arc<Hypervisor>, HypervisorError> {
        self.hypervisor.get(&self.config, self.users.probe()).await
    }

    /// Reports an observation, if it is new.
    pub fn post(&self, observation: Observation) {
        self.outbox.post(observation);
    }

    /// The console of a running instance.
    #[must_use]
    pub fn console(&self, instance_id: InstanceId) -> Option<ConsoleHub> {
        self.lock_consoles().get(&instance_id).cloned()
    }

    pub fn put_console(&self, instance_id: InstanceId, hub: ConsoleHub) {
        self.lock_consoles().insert(instance_id, hub);
    }

    pub fn drop_console(&self, instance_id: InstanceId) {
        self.lock_consoles().remove(&instance_id);
    }

    #[must_use]
    pub fn console_log(&self, instance_id: InstanceId) -> ConsoleLog {
        ConsoleLog::new(self.paths(instance_id).console_log())
    }

    /// When this version was received; `None` if that was before the agent's start.
    #[must_use]
    pub fn received_at(&self, instance_id: InstanceId, version: Version) -> Option<Instant> {
        let received = self.received.lock();
        received.get(&instance_id).filter(|l| l.version == version).map(|l| l.at)
    }

    pub fn take_found(&self, instance_id: InstanceId) -> Option<Found> {
        self.found.lock().remove(&instance_id)
    }

    fn lock_consoles(&self) -> MutexGuard<'_, HashMap<InstanceId, ConsoleHub>> {
        self.consoles.lock()
    }

    /// Creates the directories that must exist.
    pub fn ensure_dirs(config: &Config) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let dirs = [
            config.state_dir.clone(),
            config.run_dir.clone(),
            layout::instances_dir(&config.state_dir),
            layout::images_dir(&config.state_dir),
            layout::vms_dir(&config.run_dir),
        ];
        // Instances' users may pass through the directories, and list nothing in them.
        dirs.iter().try_for_each(|dir| std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir))
    }
}
