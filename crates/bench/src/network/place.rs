//! Namespaces of the bench's own, and the agent in them: nothing of it is in the machine's own network, and nothing stays.

use super::message::Port;
use anyhow::{Context, anyhow, bail};
use network_agent::{
    config::Config,
    host::{Host, reconcile},
    link::netns::{self, Worker},
    model::state::Wiring,
};
use proto::sync::v1 as sync;
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const TIMEOUT: Duration = Duration::from_secs(120);

/// A directory of namespaces; all go with it.
pub struct Place {
    pub dir: tempfile::TempDir,
    workers: BTreeMap<String, Arc<Worker>>,
}

impl Place {
    pub fn new(under: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(nix::unistd::geteuid().is_root(), "network namespaces take root");
        Ok(Self { dir: tempfile::tempdir_in(under)?, workers: BTreeMap::new() })
    }

    pub fn netns_dir(&self) -> PathBuf {
        self.dir.path().join("netns")
    }

    /// A namespace with its loopback up, and its thread.
    pub async fn namespace(&mut self, name: &str) -> anyhow::Result<Arc<Worker>> {
        let worker = Arc::new(Worker::create(&self.netns_dir().join(name))?);
        run_in(&worker, "ip link set lo up").await?;
        self.workers.insert(name.to_owned(), Arc::clone(&worker));
        Ok(worker)
    }

    /// The thread of a namespace that somebody else made in here.
    pub fn enter(&self, name: &str) -> anyhow::Result<Worker> {
        Ok(Worker::enter(&self.netns_dir().join(name))?)
    }

    /// What an agent in the namespace `name` is configured as.
    pub fn config(&self, name: &str, underlay: Ipv4Addr, wiring: Wiring) -> Config {
        Config {
            state_dir: self.dir.path().join(format!("{name}-state")),
            port_socket: self.dir.path().join(format!("{name}.sock")),
            netns_dir: self.netns_dir(),
            prefix: name.into(),
            underlay_address: underlay.into(),
            wiring,
            audit_secs: 3600,
            ..Config::default()
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.workers.clear();
        let dir = self.netns_dir();
        for name in netns::list(&dir).unwrap_or_default() {
            if let Err(error) = netns::remove(&dir.join(&name)) {
                eprintln!("the namespace {name} stays: {error}");
            }
        }
    }
}

/// The agent of a host, in this process.
pub struct Agent {
    pub host: Arc<Host>,
    shutdown: CancellationToken,
    looping: JoinHandle<()>,
}

impl Agent {
    pub async fn start(place: &Place, name: &str, config: Config) -> anyhow::Result<Self> {
        let worker = place.enter(name)?;
        let host = tokio::task::spawn_blocking(move || Host::open(config, worker)).await??;
        let (host, shutdown) = (Arc::new(host), CancellationToken::new());
        let looping = tokio::spawn(reconcile::run(Arc::clone(&host), shutdown.clone()));
        Ok(Self { host, shutdown, looping })
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.looping.await?;
        // Services that were answering let go one after the other; with the last, threads end and the ledger is free.
        let mut host = self.host;
        let began = Instant::now();
        loop {
            host = match Arc::try_unwrap(host) {
                Ok(host) => break Ok(tokio::task::spawn_blocking(move || drop(host)).await?),
                Err(held) => held,
            };
            anyhow::ensure!(began.elapsed() < TIMEOUT, "somebody still holds the agent");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub async fn accept(&self, messages: Vec<sync::DesiredObject>) -> anyhow::Result<()> {
        let revision = self.host.ledger.host().revision + 1;
        Ok(self.host.accept(messages, revision).await?)
    }

    /// Until the kernel has all that was said.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let mut news = self.host.signal.changes();
        let quiet = async { while self.host.signal.pending() > 0 && news.changed().await.is_ok() {} };
        tokio::time::timeout(TIMEOUT, quiet).await.context("the host doesn't settle")
    }

    pub async fn acquire(&self, port: &Port) -> anyhow::Result<Option<OwnedFd>> {
        match self.host.acquire(port.id, port.instance_id, 1, TIMEOUT).await {
            Ok(acquired) => Ok(acquired.tap),
            Err(refusal) => Err(anyhow!("a port was refused: {}", refusal.detail)),
        }
    }

    pub async fn acquire_all(&self, ports: &[Port]) -> anyhow::Result<Vec<Option<OwnedFd>>> {
        futures::future::try_join_all(ports.iter().map(|port| self.acquire(port))).await
    }
}

/// A shell command in a namespace; what it says.
pub async fn run_in(worker: &Worker, command: &str) -> anyhow::Result<String> {
    let text = command.to_owned();
    let output = worker.run(move |_| Command::new("sh").args(["-c", &text]).output()).await??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("`{command}` failed: {}", String::from_utf8_lossy(&output.stderr).trim())
}
