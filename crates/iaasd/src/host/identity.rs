//! `<paths.state>/host`: who this host is, as both of its agents know it. Whichever starts first makes it.
//!
//! `identity.json`, the host's one key (`host.key`, made here, never sent), a certificate for each agent (`compute-agent.pem`,
//! `network-agent.pem`) and the CA that the managers' certificates are of (`ca.pem`). A host that ran before there was such a directory is
//! who its compute-agent's ledger says: its instances are bound to that id.

use crate::config::Config;
use anyhow::{Context, ensure};
use domain::{HostId, host::AgentRole};
use serde::{Deserialize, Serialize};
use service_kit::{
    host_cert::{self, HostCertificate},
    secret_file,
    tls::CertFiles,
};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};
use uuid::Uuid;

const NAME: &str = "identity.json";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    format: u32,
    pub host_id: HostId,
    /// What the control plane calls it; empty: it has not joined.
    #[serde(default)]
    pub name: String,
    /// Where the API is and which CA it is of: for a certificate that expired while the host was off.
    #[serde(default)]
    pub api_urls: Vec<String>,
    #[serde(default)]
    pub ca_sha256: String,
    #[serde(default)]
    pub links: Links,
    /// By agent: the SHA-256 of the secret it joined with, so that the same `--join` at every start joins once.
    #[serde(default)]
    pub joined_with: BTreeMap<String, String>,
    /// What is written in the compute-agent's state directory ([`super::marker`]); none: it wasn't marked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_marker: Option<Uuid>,
    /// The same of the network-agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_marker: Option<Uuid>,
}

/// Where the managers are; empty: nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Links {
    pub cluster_url: String,
    pub storage_url: String,
    pub resource_url: String,
}

impl Identity {
    pub fn open_or_create(config: &Config) -> anyhow::Result<Self> {
        let dir = config.host_dir();
        let _lock = lock(&dir)?;
        let ledger = compute_agent::ledger::peek_host_id(&config.compute.state_dir)?;
        let Some(identity) = read(&dir)? else {
            let host_id = ledger.or(config.compute.host_id).or(config.network.host_id).unwrap_or_else(HostId::new);
            let identity = Self {
                format: FORMAT,
                host_id,
                name: String::new(),
                api_urls: Vec::new(),
                ca_sha256: String::new(),
                links: Links::default(),
                joined_with: BTreeMap::new(),
                compute_marker: None,
                network_marker: None,
            };
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

    fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).context("plain data")?;
        secret_file::write(&dir.join(NAME), &bytes).map_err(Into::into)
    }

    pub(super) fn marker_mut(&mut self, agent: AgentRole) -> &mut Option<Uuid> {
        match agent {
            AgentRole::ComputeAgent => &mut self.compute_marker,
            AgentRole::NetworkAgent => &mut self.network_marker,
        }
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

/// Changes what is written, as it is now: the other agent may have written meanwhile.
pub fn change(dir: &Path, change: impl FnOnce(&mut Identity)) -> anyhow::Result<Identity> {
    let _lock = lock(dir)?;
    let mut identity = read(dir)?.with_context(|| format!("{} is gone", dir.join(NAME).display()))?;
    change(&mut identity);
    identity.write(dir)?;
    Ok(identity)
}

/// The marker that the agent's state directory must have.
pub fn marker(dir: &Path, agent: AgentRole) -> anyhow::Result<Option<Uuid>> {
    Ok(read(dir)?.and_then(|mut identity| *identity.marker_mut(agent)))
}

fn read(dir: &Path) -> anyhow::Result<Option<Identity>> {
    let path = dir.join(NAME);
    let Some(bytes) = secret_file::read(&path)? else { return Ok(None) };
    let identity: Identity = serde_json::from_slice(&bytes)
        .with_context(|| format!("{} is damaged: restore it, or remove it to be a new host", path.display()))?;
    ensure!(identity.format == FORMAT, "{} has the format of a newer version", path.display());
    Ok(Some(identity))
}

/// Two agents that start at once must not make two hosts.
fn lock(dir: &Path) -> anyhow::Result<nix::fcntl::Flock<File>> {
    std::fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
    let path = dir.join(".lock");
    let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow::anyhow!("{} can't be locked ({errno})", path.display()))
}

/// The files of one agent's certificate.
#[derive(Debug, Clone)]
pub struct Credentials {
    dir: PathBuf,
    role: AgentRole,
}

impl Credentials {
    #[must_use]
    pub fn new(dir: PathBuf, role: AgentRole) -> Self {
        Self { dir, role }
    }

    #[must_use]
    pub fn files(&self) -> CertFiles {
        CertFiles {
            cert: self.dir.join(format!("{}.pem", self.role.as_str())),
            key: self.dir.join("host.key"),
            peers_ca: Some(self.dir.join("ca.pem")),
        }
    }

    /// The certificate, if there is one.
    pub fn certificate(&self) -> anyhow::Result<Option<HostCertificate>> {
        let path = self.files().cert;
        let Some(pem) = secret_file::read(&path)? else { return Ok(None) };
        let certificate = HostCertificate::parse(&String::from_utf8_lossy(&pem));
        certificate.map(Some).with_context(|| format!("{} is damaged: remove it and join again", path.display()))
    }

    /// A request by the host's key, which is made at the first one.
    pub fn signing_request(&self) -> anyhow::Result<String> {
        let path = self.files().key;
        let _lock = lock(&self.dir)?;
        let key = match secret_file::read(&path)? {
            Some(key) => String::from_utf8_lossy(&key).into_owned(),
            None => {
                let key = host_cert::new_key()?;
                secret_file::write(&path, key.as_bytes())?;
                key
            }
        };
        host_cert::request_for(&key).with_context(|| format!("{}", path.display()))
    }

    /// Takes a certificate into use: connections that are made from now on show it.
    pub fn store(&self, certificate_pem: &str, ca_pem: &str) -> anyhow::Result<HostCertificate> {
        let certificate = HostCertificate::parse(certificate_pem).context("the certificate that came")?;
        ensure!(certificate.role == self.role, "the certificate that came is another agent's");
        let files = self.files();
        let _lock = lock(&self.dir)?;
        if let Some(ca) = files.peers_ca
            && secret_file::read(&ca)?.as_deref() != Some(ca_pem.as_bytes())
        {
            secret_file::write(&ca, ca_pem.as_bytes())?;
        }
        secret_file::write(&files.cert, certificate_pem.as_bytes())?;
        Ok(certificate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Uses;

    fn config(dir: &Path) -> Config {
        let file = dir.join("iaasd.toml");
        std::fs::write(&file, format!("[paths]\nstate = {:?}\nrun = {:?}\n", dir.join("state"), dir.join("run")))
            .expect("written");
        Config::load(&file, Uses::EVERYTHING).expect("valid")
    }

    #[test]
    fn a_host_is_who_its_ledger_says_and_stays_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = config(dir.path());
        let (ledger, _) = compute_agent::ledger::Ledger::open(&config.compute.state_dir, None).expect("a ledger");
        let identity = Identity::open_or_create(&config).expect("made");
        assert_eq!(identity.host_id, ledger.host_id(), "a host from before there was an identity");
        assert_eq!(identity.compute(config.compute.clone()).host_id, Some(ledger.host_id()));
        assert_eq!(identity.network(config.network.clone()).host_id, Some(ledger.host_id()));
        let named = change(&config.host_dir(), |identity| identity.name = "rack-1".into()).expect("changed");
        assert_eq!(Identity::open_or_create(&config).expect("read"), named);
        assert_eq!(named.compute(config.compute.clone()).host_name, "rack-1");

        let path = config.host_dir().join(NAME);
        let text = std::fs::read_to_string(&path).expect("there");
        let other = text.replace(&identity.host_id.to_string(), &HostId::new().to_string());
        secret_file::write(&path, other.as_bytes()).expect("written");
        assert!(Identity::open_or_create(&config).expect_err("copied").to_string().contains("another host's"));
        secret_file::write(&path, b"{").expect("written");
        assert!(Identity::open_or_create(&config).expect_err("damaged").to_string().contains("damaged"));
    }

    #[test]
    fn one_key_for_both_agents_and_a_certificate_each() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ca = service_kit::tls::Ca::open_or_create(&dir.path().join("ca")).expect("a CA");
        let host_id = HostId::new();
        let home = dir.path().join("host");
        let mut hashes = Vec::new();
        for role in [AgentRole::ComputeAgent, AgentRole::NetworkAgent] {
            let mine = Credentials::new(home.clone(), role);
            assert_eq!(mine.certificate().expect("none yet"), None);
            let request = host_cert::SigningRequest::parse(&mine.signing_request().expect("made")).expect("signed");
            hashes.push(request.key_hash.clone());
            let pem = ca.issue_host(request, host_id, role, std::time::Duration::from_secs(60)).expect("issued");
            let stored = mine.store(&pem, ca.pem()).expect("stored");
            assert_eq!(mine.certificate().expect("read"), Some(stored));
            service_kit::tls::ClientTls::new(mine.files()).expect("usable");
            let wrong = Credentials::new(home.clone(), AgentRole::ComputeAgent).store(&pem, ca.pem());
            assert_eq!(wrong.is_err(), role == AgentRole::NetworkAgent);
        }
        assert_eq!(hashes[0], hashes[1]);
    }
}
