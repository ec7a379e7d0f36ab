//! `iaasd all` as a process of its own, with its own directories and port.

use crate::{Rest, free_address, wait_alive, wait_ready};
use anyhow::Context;
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

pub struct Server {
    child: Child,
    pub base: String,
    pub dir: tempfile::TempDir,
    /// How long the start took, from the spawn until /readyz agreed.
    pub start: Duration,
    /// Its networks' namespaces are named `<prefix>-<id>`.
    pub prefix: String,
}

static STARTED: AtomicU32 = AtomicU32::new(0);

/// The directory of the built binaries: IAAS_TEST_BIN_DIR, else beside the running one (or above it, for tests).
#[must_use]
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("IAAS_TEST_BIN_DIR") {
        return dir.into();
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let dir = exe.parent().map(Path::to_owned).unwrap_or_default();
    if dir.ends_with("deps") { dir.parent().map(Path::to_owned).unwrap_or(dir) } else { dir }
}

impl Server {
    /// Starts `iaasd all` with a new state below `parent`, and `extra` appended to its configuration.
    pub async fn start(parent: &Path, extra: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("iaas-").tempdir_in(parent)?;
        // QEMU runs as another user and must reach its files.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let at = |name: &str| dir.path().join(name);
        let addr = free_address()?;
        // Of its own, so that what it leaves can be told from others'.
        let prefix = format!("t{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let config = format!(
            "[network]\nprefix = \"{prefix}\"\n[paths]\nstate = {:?}\nrun = {:?}\n[api]\nlisten = \"{addr}\"\n[identity]\nadmin_password_file = {:?}\n[log]\nformat = \"json\"\n{extra}\n",
            at("state"),
            at("run"),
            at("password"),
        );
        std::fs::write(at("iaasd.toml"), config)?;
        let child = spawn(dir.path())?;
        let mut server = Self { child, base: format!("http://{addr}"), dir, start: Duration::ZERO, prefix };
        server.start = server.until_ready().await?;
        Ok(server)
    }

    async fn until_ready(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let result = tokio::select! {
            ready = wait_ready(&self.base) => ready,
            ended = ended(&mut self.child) => Err(anyhow::anyhow!("iaasd ended at its start: {ended}")),
        };
        let log = || self.log();
        result.with_context(log)?;
        Ok(began.elapsed())
    }

    /// What iaasd has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("iaasd.log")).unwrap_or_default()
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("iaasd.toml")
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The admin, in a new project named `project` whose quota is out of the way; this machine's host is up.
    pub async fn login(&self, project: &str) -> anyhow::Result<Rest> {
        let rest = self.admin().await?;
        self.until_host_up(&rest).await?;
        rest.in_project(project).await
    }

    /// The first start measures the accelerator for some seconds before its host can take instances.
    pub async fn until_host_up(&self, rest: &Rest) -> anyhow::Result<()> {
        let up = async {
            while rest.get("/v1/hosts").await?["items"][0]["state"] != "up" {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(60), up)
            .await
            .with_context(|| format!("the host isn't up after 60 s: {}", self.log()))?
    }

    /// The admin, in no project.
    pub async fn admin(&self) -> anyhow::Result<Rest> {
        let password = std::fs::read_to_string(self.dir.path().join("password"))?;
        Rest::login(&self.base, "admin", password.trim()).await
    }

    /// SIGKILL: what a crash of iaasd is.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, until it has ended by itself; its exit code.
    pub fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        Ok(self.child.wait()?.code())
    }

    /// Starts it again over the same state, after a crash or an end.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(self.dir.path())?;
        self.start = self.until_ready().await?;
        Ok(())
    }

    /// Starts it again over a state on which it can't become ready; it answers.
    pub async fn restart_unready(&mut self) -> anyhow::Result<()> {
        self.child = spawn(self.dir.path())?;
        let result = tokio::select! {
            alive = wait_alive(&self.base) => alive,
            ended = ended(&mut self.child) => Err(anyhow::anyhow!("iaasd ended at its start: {ended}")),
        };
        result.with_context(|| self.log())
    }

    /// Ends the server and every VM it started.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.terminate()?;
        self.stop_vms()
    }

    fn stop_vms(&self) -> anyhow::Result<()> {
        let mut command = Command::new(bin_dir().join("iaasd"));
        let stopped = command.args(["vms", "stop", "--config"]).arg(self.config()).stdout(Stdio::null()).status()?;
        anyhow::ensure!(stopped.success(), "iaasd vms stop failed");
        self.remove_namespaces()
    }

    /// Removes the namespaces of networks that instances still had. An agent leaves them when it ends, since guests live on.
    fn remove_namespaces(&self) -> anyhow::Result<()> {
        let ours = format!("{}-", self.prefix);
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten() {
            let name = entry?.file_name();
            if name.to_string_lossy().starts_with(&ours) {
                let removed = Command::new("ip").args(["netns", "delete"]).arg(&name).status()?;
                anyhow::ensure!(removed.success(), "the namespace {name:?} can't be removed");
            }
        }
        // Its table in this namespace, if it ran as root: it would keep others' tunnelled frames out.
        let table = format!("{}_underlay", self.prefix);
        let _ = Command::new("nft").args(["delete", "table", "inet", &table]).stderr(Stdio::null()).status();
        Ok(())
    }
}

impl Drop for Server {
    /// A test that failed leaves no process behind either; nor does one that let the server crash, whose accelerator probe
    /// then waits paused.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.crash();
        }
        let _ = self.stop_vms();
        if std::thread::panicking() {
            let tail: Vec<String> = self.log().lines().rev().take(40).map(str::to_owned).collect();
            let _ = writeln!(std::io::stderr(), "--- iaasd's last lines, newest first ---\n{}", tail.join("\n"));
        }
    }
}

fn spawn(dir: &Path) -> anyhow::Result<Child> {
    let iaasd = bin_dir().join("iaasd");
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("iaasd.log"))?;
    Command::new(&iaasd)
        .args(["all", "--config"])
        .arg(dir.join("iaasd.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("{}: build it first (cargo build -p iaasd)", iaasd.display()))
}

async fn ended(child: &mut Child) -> std::process::ExitStatus {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
