//! Two processes of each manager and an API over PostgreSQL, on loopback, without hosts.

use crate::{Rest, bin_dir, free_address, wait_ready};
use anyhow::{Context, ensure};
use std::{
    collections::HashMap,
    path::Path,
    process::{Child, Command, Stdio},
};

const MANAGERS: [(&str, &str); 3] =
    [("cluster", "cluster-manager"), ("storage", "storage-manager"), ("resource", "resource-manager")];

pub struct Pairs {
    processes: HashMap<u32, Child>,
    dir: tempfile::TempDir,
    base: String,
    cluster_urls: Vec<String>,
}

impl Drop for Pairs {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            self.show_logs();
        }
    }
}

impl Pairs {
    /// With an empty database at `url`; below `parent`.
    pub async fn start(parent: &Path, url: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("iaas-").tempdir_in(parent)?;
        let base = format!("http://{}", free_address()?);
        let mut pairs = Self { processes: HashMap::new(), dir, base, cluster_urls: Vec::new() };
        for (key, role) in MANAGERS {
            for twin in ["a", "b"] {
                let address = free_address()?;
                if key == "cluster" {
                    pairs.cluster_urls.push(format!("http://{address}"));
                }
                pairs.spawn(role, &format!("{role}-{twin}"), url, &format!("{key}_listen = '{address}'"))?;
            }
        }
        pairs.spawn("api-gateway", "api-gateway", url, "")?;
        if let Err(error) = wait_ready(&pairs.base).await {
            pairs.show_logs();
            return Err(error);
        }
        Ok(pairs)
    }

    fn spawn(&mut self, role: &str, name: &str, url: &str, links: &str) -> anyhow::Result<()> {
        let (dir, api) = (self.dir.path(), self.base.trim_start_matches("http://"));
        // The paths of sockets below the run directory are limited in length.
        let (d, run) = (dir.display(), self.processes.len());
        let config = format!(
            "[paths]\nstate = '{d}/{name}'\nrun = '{d}/r{run}'\n[log]\nformat = 'json'\n[store]\nurl = '{url}'\n[storage]\ndirectory = '{d}/images'\n\
             [api]\nlisten = '{api}'\nca_dir = '{d}/ca'\n[identity]\nadmin_password_file = '{d}/password'\n[links]\n{links}\n"
        );
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, config)?;
        let iaasd = bin_dir().join("iaasd");
        let child = Command::new(&iaasd)
            .arg(role)
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join(format!("{name}.log")))?)
            .spawn()
            .with_context(|| format!("{}: build it first (cargo build -p iaasd)", iaasd.display()))?;
        self.processes.insert(child.id(), child);
        Ok(())
    }

    /// The URLs of both cluster-managers.
    #[must_use]
    pub fn cluster_urls(&self) -> Vec<String> {
        self.cluster_urls.clone()
    }

    /// The admin, in a new project whose quota is out of the way.
    pub async fn login(&self, project: &str) -> anyhow::Result<Rest> {
        let password = std::fs::read_to_string(self.dir.path().join("password")).context("the admin's password")?;
        Rest::login(&self.base, "admin", password.trim()).await?.in_project(project).await
    }

    /// SIGKILL to all of these at once. They must be of this.
    pub fn kill(&mut self, pids: impl IntoIterator<Item = u32>) -> anyhow::Result<()> {
        let mut ended = Vec::new();
        for pid in pids {
            let mut child = self.processes.remove(&pid).with_context(|| format!("{pid} is no process of these"))?;
            child.kill()?;
            ended.push(child);
        }
        for mut child in ended {
            child.wait()?;
        }
        ensure!(!self.processes.is_empty(), "none is left");
        Ok(())
    }

    fn show_logs(&self) {
        for entry in std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = std::fs::read_to_string(&path).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(10).collect();
                eprintln!("--- the last lines of {}, newest first ---\n{}", path.display(), last.join("\n"));
            }
        }
    }
}
