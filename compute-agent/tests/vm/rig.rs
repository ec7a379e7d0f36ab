//! What the tests share: a directory for a machine, and the machine.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use compute_agent::console::{ConsoleHub, ConsoleLog, GuestUp};
use compute_agent::disk::config_drive::{GuestConfig, write_config_drive};
use compute_agent::disk::overlay::Owner;
use compute_agent::qemu::argv::{Accel, Boot, OnPowerOff, VmSpec};
use compute_agent::qemu::launch::{Confinement, Launcher, wait_ready};
use compute_agent::qemu::process::ProcessRef;
use compute_agent::qemu::socket::QemuSocket;
use compute_agent::qmp::{Event, QmpClient, RunState};
use tokio::sync::{Semaphore, SemaphorePermit, broadcast};
use uuid::Uuid;

pub const UID: u32 = 64_055;
pub const GID: u32 = 64_055;
pub const OWNER: Owner = Owner { uid: UID, gid: GID };
/// The limit for a wait. It only detects hangs, because emulation on a busy machine is slow.
pub const TIMEOUT: Duration = Duration::from_secs(90);
const LOG_MAX_BYTES: u64 = 1 << 20;

static GUESTS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(4));

pub fn qemu() -> Option<PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: launching virtual machines takes root");
        return None;
    }
    let found = ["/usr/local/bin", "/usr/bin"].map(|dir| Path::new(dir).join("qemu-system-x86_64"));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("not run: qemu-system-x86_64 is not installed");
    }
    found
}

pub fn launcher(qemu: &Path) -> Launcher {
    Launcher::new(qemu, env!("CARGO_BIN_EXE_vm_launch"), &[])
}

/// The image `tiny`.
pub struct Guest {
    pub dir: PathBuf,
    pub cmdline: String,
}

pub fn guest() -> Option<Guest> {
    let dir = std::env::var_os("IAAS_TEST_GUEST_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest/tiny"), PathBuf::from);
    let Ok(dir) = dir.canonicalize() else {
        println!("not run: no guest image in {} (deploy/guest/tiny/build makes it)", dir.display());
        return None;
    };
    let cmdline = std::fs::read_to_string(dir.join("cmdline")).expect("the image has a command line");
    Some(Guest { dir, cmdline: cmdline.trim().to_owned() })
}

/// A directory for one machine, and the permit to run one of the four guests.
pub struct Scratch {
    pub dir: tempfile::TempDir,
    pub run: PathBuf,
    _permit: SemaphorePermit<'static>,
}

impl Scratch {
    pub async fn make() -> Self {
        let permit = GUESTS.acquire().await.expect("never closed");
        let dir = tempfile::Builder::new().prefix("iaas-vm-").tempdir().expect("a temporary directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("passable");
        let run = dir.path().join("run");
        std::fs::create_dir(&run).expect("made");
        chown(&run, Some(UID), Some(GID)).expect("given to the uid");
        Self { run, dir, _permit: permit }
    }

    /// A machine that boots the guest's kernel with nothing else.
    pub fn spec(&self, guest: &Guest) -> VmSpec {
        // QEMU's uid may not pass the way to the build directory, so the image is copied to where it may.
        let copy = |name: &str| {
            let to = self.dir.path().join(name);
            std::fs::copy(guest.dir.join(name), &to).expect("copied");
            std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o444)).expect("readable");
            to
        };
        let boot = Boot::Kernel {
            kernel: copy("vmlinuz"),
            initrd: Some(copy("initramfs.cpio.gz")),
            cmdline: guest.cmdline.clone(),
        };
        self.spec_booting(boot, Accel::TCG)
    }

    pub fn spec_booting(&self, boot: Boot, accel: Accel) -> VmSpec {
        VmSpec {
            uuid: Uuid::now_v7(),
            name: "test, with a comma".into(),
            vcpus: 1,
            memory_mib: 256,
            numa_node: None,
            boot,
            disks: vec![],
            nics: vec![],
            config_drive: None,
            accel,
            qmp_socket: self.run.join("qmp"),
            serial_socket: self.run.join("serial"),
            console_log: self.run.join("console.log"),
            paused: false,
            on_poweroff: OnPowerOff::Hold,
        }
    }

    pub async fn config_drive(&self, hostname: &str, user_data: &[u8]) -> PathBuf {
        let config = GuestConfig {
            instance_id: Uuid::now_v7().to_string(),
            hostname: hostname.into(),
            ssh_keys: vec!["ssh-ed25519 AAAAC3 test@host".into()],
            user_data: user_data.into(),
        };
        let path = self.dir.path().join("config.iso");
        write_config_drive(&config, &path, OWNER).await.expect("written");
        path
    }

    pub fn confinement(&self) -> Confinement {
        Confinement {
            uid: UID,
            gid: GID,
            supplementary_gids: vec![],
            cgroup_procs: vec![],
            pid_namespace: None,
            isolation: None,
            stderr: self.dir.path().join("stderr"),
            console_max_bytes: LOG_MAX_BYTES,
        }
    }
}

/// A running QEMU with its two connections. It is killed when it is dropped.
pub struct Vm {
    pub process: ProcessRef,
    left: bool,
    pub qmp: QmpClient,
    pub events: broadcast::Receiver<Event>,
    pub console: ConsoleHub,
}

impl Vm {
    pub async fn start(qemu: &Path, spec: &VmSpec, confinement: &Confinement) -> Self {
        let process = launcher(qemu).launch(spec, confinement, vec![]).await.expect("launched");
        Self::attach(process, spec, confinement).await
    }

    pub async fn attach(process: ProcessRef, spec: &VmSpec, confinement: &Confinement) -> Self {
        let socket = |path: &Path| QemuSocket::new(path, confinement.uid);
        let console = ConsoleHub::start(socket(&spec.serial_socket), ConsoleLog::new(&spec.console_log), LOG_MAX_BYTES);
        let qmp = wait_ready(&process, &socket(&spec.qmp_socket), &confinement.stderr, TIMEOUT).await.expect("ready");
        let events = qmp.events();
        Self { process, left: false, qmp, events, console }
    }

    /// Ends the connections and lets QEMU run, as an agent that dies does.
    pub fn leave(mut self) {
        self.left = true;
    }

    pub async fn up(&self) -> GuestUp {
        let mut up = self.console.guest_up();
        let up_line = tokio::time::timeout(TIMEOUT, up.wait_for(Option::is_some)).await;
        up_line.expect("up in time").expect("the console is open").clone().expect("some")
    }

    pub async fn event(&mut self, name: &str) -> Event {
        let wait = async {
            loop {
                let event = self.events.recv().await.expect("connected and not lagging");
                if event.name == name {
                    return event;
                }
            }
        };
        tokio::time::timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("no event {name}"))
    }

    pub async fn state(&self) -> RunState {
        self.qmp.query_status().await.expect("answered")
    }

    pub async fn gone(&self) {
        tokio::time::timeout(TIMEOUT, self.process.wait_exit()).await.expect("in time").expect("observed");
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !self.left {
            kill_now(&self.process);
        }
    }
}

/// Kills a process without waiting for its end.
pub fn kill_now(process: &ProcessRef) {
    if process.alive()
        && let Some(pid) = rustix::process::Pid::from_raw(process.pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A field of `/proc/PID/status`, split into its values.
pub fn status_field(pid: i32, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the field exists");
    line.split_whitespace().map(str::to_owned).collect()
}
