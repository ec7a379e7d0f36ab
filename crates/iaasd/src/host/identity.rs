//! `identity.json` in `<paths.state>/host`: who this host is. Both agents read it, whichever starts first makes it.
//!
//! A host that ran before there was such a file is who its compute-agent's ledger says: its instances are bound to that id.

use crate::config::Config;
use anyhow::{Context, ensure};
use domain::HostId;
use serde::{Deserialize, Serialize};
use service_kit::secret_file;
use std::{fs::File, path::Path};

const NAME: &str = "identity.json";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    format: u32,
    pub host_id: HostId,
    /// What the control plane calls it; empty: it has not joined, or the token named none.
    #[serde(default)]
    pub name: String,
}

impl Identity {
    pub fn open_or_create(config: &Config) -> anyhow::Result<Self> {
        let dir = config.host_dir();
        let _lock = lock(&dir)?;
        let ledger = compute_agent::ledger::peek_host_id(&config.compute.state_dir)?;
        let Some(identity) = Self::read(&dir)? else {
            let host_id = ledger.or(config.compute.host_id).or(config.network.host_id).unwrap_or_else(HostId::new);
            let identity = Self { format: FORMAT, host_id, name: String::new() };
            identity.write(&dir)?;
            return Ok(identity);
        };
        ensure!(
            ledger.is_none_or(|held| held == identity.host_id),
            "{} says that this host is {}, and the compute-agent's ledger in {} is another host's: were directories copied?",
            dir.join(NAME).display(),
            identity.host_id,
            config.compute.state_dir.display()
        );
        Ok(identity)
    }

    fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(NAME);
        let Some(bytes) = secret_file::read(&path)? else { return Ok(None) };
        let identity: Self = serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged: restore it, or remove it to be a new host", path.display()))?;
        ensure!(identity.format == FORMAT, "{} has a format of a newer version", path.display());
        Ok(Some(identity))
    }

    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).context("plain data")?;
        secret_file::write(&dir.join(NAME), &bytes).map_err(Into::into)
    }

    #[must_use]
    pub fn compute(&self, config: compute_agent::Config) -> compute_agent::Config {
        let host_name = if self.name.is_empty() { config.host_name } else { self.name.clone() };
        compute_agent::Config { host_id: Some(self.host_id), host_name, ..config }
    }

    #[must_use]
    pub fn network(&self, config: network_agent::config::Config) -> network_agent::config::Config {
        let host_name = if self.name.is_empty() { config.host_name } else { self.name.clone() };
        network_agent::config::Config { host_id: Some(self.host_id), host_name, ..config }
    }
}

/// Two agents that start at once must not make two hosts.
fn lock(dir: &Path) -> anyhow::Result<nix::fcntl::Flock<File>> {
    std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    let path = dir.join(".lock");
    let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow::anyhow!("{} can't be locked ({errno})", path.display()))
}
