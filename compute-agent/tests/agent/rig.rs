//! What the tests share: a host of their own, an agent on it that can be killed, and instances.

use crate::stand_in::{Desired, Manager, Report, Storage, TIMEOUT};
use compute_agent::{
    Config, Deps,
    adopt::running_qemus,
    qemu::{accel::AccelSetting, process::ProcessRef},
};
use domain::{DiskId, ImageId, InstanceId};
use proto::{
    agent::v1::{self as pb, DesiredInstance},
    cluster::v1::{InstanceSpec, InstanceState, OnCrash, OnHostLoss, Power, Size},
};
use service_kit::transport::GrpcTarget;
use sha2::{Digest, Sha256};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Limits how many emulated guests run at once in this binary.
static GUESTS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(4)));
static HOSTS: AtomicU32 = AtomicU32::new(0);

/// The image `tiny`, as parts.
pub struct Tiny {
    pub kernel: (String, Vec<u8>),
    pub initrd: (String, Vec<u8>),
    pub cmdline: String,
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

static TINY: LazyLock<Option<Tiny>> = LazyLock::new(|| {
    let dir = std::env::var_os("IAAS_TEST_GUEST_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/tiny"), PathBuf::from);
    let read = |name: &str| fs::read(dir.join(name)).ok();
    let (Some(kernel), Some(initrd), Some(cmdline)) = (read("vmlinuz"), read("initramfs.cpio.gz"), read("cmdline"))
    else {
        println!("not run: no guest image in {} (deploy/guest/tiny/build makes it)", dir.display());
        return None;
    };
    Some(Tiny {
        kernel: (sha256(&kernel), kernel),
        initrd: (sha256(&initrd), initrd),
        cmdline: String::from_utf8_lossy(&cmdline).trim().to_owned(),
    })
});

/// One host with its agent, a manager and a storage-manager.
pub struct Host {
    _dir: tempfile::TempDir,
    pub config: Config,
    pub manager: Manager,
    pub storage: Storage,
    targets: (GrpcTarget, GrpcTarget),
    agent: Option<Agent>,
    shutdown: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// An agent on a runtime of its own, so that it can be killed like a process, without any cleanup.
struct Agent {
    runtime: tokio::runtime::Runtime,
    shutdown: CancellationToken,
    ended: tokio::sync::oneshot::Receiver<anyhow::Result<()>>,
}

impl Host {
    /// Starts a host for a test that runs `guests` guests at once. Prints why and returns `None` where tests of real guests can't run.
    pub async fn start(guests: u32) -> Option<Self> {
        Self::start_with(guests, |_| {}).await
    }

    pub async fn start_with(guests: u32, change: impl FnOnce(&mut Config)) -> Option<Self> {
        let tiny = TINY.as_ref()?;
        if !nix::unistd::geteuid().is_root() {
            println!("not run: launching virtual machines takes root");
            return None;
        }
        if compute_agent::qemu::version::find_qemu(None).await.is_err() {
            println!("not run: no QEMU that will do is installed");
            return None;
        }
        let permit = Arc::clone(&GUESTS).acquire_many_owned(guests).await.expect("never closed");
        let dir = tempfile::Builder::new().prefix("iaas-agent-").tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("passable");
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let mut config = Config {
            host_name: format!("host-{number}"),
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            reserve_disk_gib: 1,
            accelerator: AccelSetting::Tcg,
            cgroup_parent: format!("iaas-test-{}-{number}", std::process::id()),
            launch_program: Some(env!("CARGO_BIN_EXE_vm_launch").into()),
            ..Config::default()
        };
        change(&mut config);
        assert_eq!(config.validate(), []);
        let shutdown = CancellationToken::new();
        let (manager, cluster_target) = Manager::start(shutdown.clone());
        let (storage, storage_target) = Storage::start(shutdown.clone());
        for (name, bytes) in [&tiny.kernel, &tiny.initrd] {
            storage.put(name, bytes.clone());
        }
        let targets = (cluster_target, storage_target);
        let mut host = Self { _dir: dir, config, manager, storage, targets, agent: None, shutdown, _permit: permit };
        host.start_agent().await;
        Some(host)
    }

    /// Starts the agent and waits until it is connected.
    pub async fn start_agent(&mut self) {
        let hellos = self.manager.hellos().len();
        self.start_agent_unconnected();
        self.manager.until("hello", |received| (received.hellos().len() > hellos).then_some(())).await;
    }

    pub fn start_agent_unconnected(&mut self) {
        assert!(self.agent.is_none(), "one agent at a time");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let shutdown = CancellationToken::new();
        let (config, token) = (self.config.clone(), shutdown.clone());
        let (cluster, storage) = self.targets.clone();
        let (result_sender, ended) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let result = compute_agent::serve(config, Deps { cluster, storage }, token).await;
            let _ = result_sender.send(result);
        });
        self.agent = Some(Agent { runtime, shutdown, ended });
    }

    /// Ends the agent as SIGTERM does.
    pub async fn stop_agent(&mut self) {
        let agent = self.agent.take().expect("an agent runs");
        agent.shutdown.cancel();
        let ended = tokio::time::timeout(TIMEOUT, agent.ended).await.expect("in time");
        ended.expect("it says how it ended").expect("without an error");
        agent.runtime.shutdown_background();
    }

    /// Ends the agent whatever it does. (The end-to-end tests use a real process and a real SIGKILL.)
    pub async fn kill_agent(&mut self) {
        let agent = self.agent.take().expect("an agent runs");
        tokio::task::spawn_blocking(move || agent.runtime.shutdown_timeout(Duration::from_secs(10)))
            .await
            .expect("ended");
    }

    /// The QEMU of an instance, if one runs.
    pub fn qemu(&self, instance: &TestInstance) -> Option<ProcessRef> {
        let mut found = running_qemus(&self.config.run_dir).into_iter().filter(|f| f.instance_id == instance.id);
        let first = found.next().map(|f| f.process);
        assert_eq!(found.next(), None, "two QEMUs of one instance");
        first
    }

    pub fn instance_dir(&self, instance: &TestInstance) -> PathBuf {
        self.config.state_dir.join("instances").join(instance.id.to_string())
    }

    /// The directories of the instance's control groups in all hierarchies.
    pub fn cgroups(&self, instance: &TestInstance) -> Vec<PathBuf> {
        group_dirs(&self.config.cgroup_parent)
            .into_iter()
            .map(|d| d.join(instance.id.to_string()))
            .filter(|d| d.exists())
            .collect()
    }

    /// Sends the desired state and waits until the host has applied it and the instance is in this state.
    pub async fn reach(&self, instance: &TestInstance, state: InstanceState) -> Report {
        self.manager.instance(&instance.desired);
        self.reached(instance, state).await
    }

    pub async fn reached(&self, instance: &TestInstance, state: InstanceState) -> Report {
        let generation = instance.desired.generation;
        let what = format!("{} at generation {generation} is {state:?}", instance.desired.name);
        let done = move |r: &Report| r.generation == generation && r.state() == state && r.converged;
        self.manager.report(&instance.id(), &what, done).await
    }

    /// Waits until the guest itself says that it is up, later than `after` (milliseconds since the epoch).
    pub async fn guest_up(&self, instance: &TestInstance, after: i64) -> Report {
        let up = |r: &Report| r.guest_up_at.is_some_and(|at| at > after);
        self.manager.report(&instance.id(), &format!("{} is up", instance.desired.name), up).await
    }

    pub fn tiny(&self) -> &'static Tiny {
        TINY.as_ref().expect("checked at the start")
    }
}

/// The directories of this name in all mounted control group hierarchies.
fn group_dirs(name: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let mounts = compute_agent::host::cgroup::parse_mountinfo(&text);
    let mut dirs: Vec<PathBuf> = mounts.v1.values().chain(&mounts.v2).map(|mount| mount.join(name)).collect();
    dirs.sort();
    dirs.dedup();
    dirs
}

impl Drop for Host {
    /// Removes everything from the machine, also after a failed test.
    fn drop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.shutdown.cancel();
            agent.runtime.shutdown_background();
        }
        self.shutdown.cancel();
        let until = Instant::now() + Duration::from_secs(20);
        // The agent may be about to start one more.
        while Instant::now() < until {
            for found in running_qemus(&self.config.run_dir) {
                if let Some(pid) = rustix::process::Pid::from_raw(found.process.pid)
                    && let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                    && found.process.alive()
                {
                    let _ = rustix::process::pidfd_send_signal(&fd, rustix::process::Signal::KILL);
                }
            }
            let dirs = group_dirs(&self.config.cgroup_parent);
            for dir in &dirs {
                for child in fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
                    let _ = fs::remove_dir(child.path());
                }
                let _ = fs::remove_dir(dir);
            }
            if dirs.iter().all(|dir| !dir.exists()) && running_qemus(&self.config.run_dir).is_empty() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        println!("left behind: control groups {}", self.config.cgroup_parent);
    }
}

/// What an instance must be; each change is a new generation.
#[derive(Clone)]
pub struct TestInstance {
    pub id: InstanceId,
    pub desired: Desired,
}

impl TestInstance {
    /// The image `tiny`, running from memory.
    pub fn tiny(host: &Host, name: &str) -> Self {
        let tiny = host.tiny();
        let part = |kind: &str, (sum, bytes): &(String, Vec<u8>)| pb::ImagePart {
            kind: kind.into(),
            sha256: sum.clone(),
            size_bytes: bytes.len() as u64,
        };
        let parts = vec![part("kernel", &tiny.kernel), part("initrd", &tiny.initrd)];
        Self::of(name, "kernel", "raw", &tiny.cmdline, parts)
    }

    /// An image with a disk, which needn't be bootable.
    pub fn disk(name: &str, format: &str, sum: &str, size_bytes: u64) -> Self {
        let parts = vec![pb::ImagePart { kind: "disk".into(), sha256: sum.into(), size_bytes }];
        Self::of(name, "disk", format, "", parts).with_disk(1)
    }

    fn of(name: &str, kind: &str, format: &str, cmdline: &str, parts: Vec<pb::ImagePart>) -> Self {
        let (id, image_id) = (InstanceId::new(), ImageId::new().to_string());
        let instance = DesiredInstance {
            project_id: uuid::Uuid::now_v7().to_string(),
            name: name.into(),
            spec: Some(InstanceSpec {
                size: Some(Size { vcpus: 1, memory_mib: 192, disk_gib: 0 }),
                image_id: image_id.clone(),
                power: Power::On.into(),
                stop_timeout_secs: 60,
                on_crash: OnCrash::Restart.into(),
                on_host_loss: OnHostLoss::Wait.into(),
                pool: String::new(),
                ..Default::default()
            }),
            disks: vec![],
            image: Some(pb::DesiredImage {
                image_id,
                kind: kind.into(),
                format: format.into(),
                cmdline: cmdline.into(),
                parts,
            }),
            ports: vec![],
            numa_node: None,
        };
        let desired = Desired { instance_id: id.to_string(), epoch: 1, generation: 1, instance, erase_shared: false };
        Self { id, desired }
    }

    pub fn with_disk(mut self, size_gib: u64) -> Self {
        let disk_id = DiskId::new().to_string();
        self.desired.disks = vec![pb::DesiredDisk {
            disk_id,
            role: "root".into(),
            pool: "local".into(),
            size_gib,
            epoch: 1,
            used_seq: None,
        }];
        self.spec().size.as_mut().expect("a size").disk_gib = size_gib;
        self
    }

    pub fn id(&self) -> String {
        self.id.to_string()
    }

    pub fn spec(&mut self) -> &mut InstanceSpec {
        self.desired.spec.as_mut().expect("a spec")
    }

    /// Makes the next generation, with this change.
    pub fn change(&mut self, change: impl FnOnce(&mut InstanceSpec)) -> &Self {
        self.desired.generation += 1;
        change(self.spec());
        self
    }

    pub fn power(&mut self, power: Power) -> &Self {
        self.change(|spec| spec.power = power.into())
    }

    pub fn delete(&mut self) -> &Self {
        self.change(|spec| spec.deleted = true)
    }
}

/// Waits for something that nobody reports.
pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < until, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
