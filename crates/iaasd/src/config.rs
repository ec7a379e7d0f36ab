//! The one configuration file: its sections, and what one section's emptiness takes from another (paths).
//!
//! One file may serve every machine of an installation, so each command checks what it uses ([`Uses`]), and a mistake in what it doesn't use is
//! none of its affairs: a manager starts although the run directory of the agents is too long. `iaasd config check` checks everything.

use serde::{Deserialize, Serialize};
use service_kit::{
    config::{self, ConfigError, ConfigErrors},
    telemetry::LogFormat,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use store::StoreConfig;

/// `[paths]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// What must survive a restart: database, images, disks, ledgers, keys.
    pub state: PathBuf,
    /// What need not: sockets, the pid file.
    pub run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self { state: "/var/lib/iaas".into(), run: "/run/iaas".into() }
    }
}

/// `[log]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `auto` (pretty on a terminal, else JSON), `pretty` or `json`.
    pub format: LogFormat,
    /// As in `info,cluster_manager=debug`. The environment's IAAS_LOG wins.
    pub filter: String,
    /// Where the log goes instead of stderr, for machines without a journal. The environment's IAAS_LOG_FILE wins.
    pub file: Option<PathBuf>,
    /// How large the file may become, MiB. Then it becomes `<file>.1`, in place of the one before, and a new one begins.
    pub file_mib: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned(), file: None, file_mib: 64 }
    }
}

/// `[store]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `sqlite:///path` or `postgres://user:password@host/database`. Empty: `sqlite://<paths.state>/iaas.db`.
    pub url: String,
    /// Connections for reading.
    pub readers: u32,
    /// SQLite: how much is kept free on its disk for deletions and logins when the disk is full, MiB; at most 1/32 of the disk. 0: nothing.
    pub reserve_mib: u64,
    /// PostgreSQL: how long a manager leads its role without having renewed its lease, milliseconds. A standby takes over a little later than that.
    pub leader_lease_ms: u64,
}

impl Default for Database {
    fn default() -> Self {
        Self { url: String::new(), readers: 4, reserve_mib: 64, leader_lease_ms: 3000 }
    }
}

/// `[links]`: how roles in processes of their own reach each other. `iaasd all` needs none of it; `iaasd control-plane` listens for agents
/// where it says so.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Links {
    /// Where the cluster-manager listens, as in `10.0.0.1:7481`. Empty: 127.0.0.1:7481; in the control plane: in process alone.
    pub cluster_listen: String,
    /// Where the storage-manager listens. Empty: 127.0.0.1:7482; in the control plane: in process alone.
    pub storage_listen: String,
    /// Where the resource-manager listens. Empty: 127.0.0.1:7483; in the control plane: in process alone.
    pub resource_listen: String,
    /// Where the others find the cluster-manager, as in `https://manager.example:7481`. Several, separated by commas, where several processes run:
    /// whichever leads is used. Empty: the listen address.
    pub cluster_url: String,
    /// The URL, or URLs, at which the others find the storage-manager.
    pub storage_url: String,
    /// The URL, or URLs, at which the others find the resource-manager.
    pub resource_url: String,
    /// The name or address under which the others reach this machine. Empty: the address on which it listens, and where that is every address,
    /// the machine's name.
    pub advertise_host: String,
    /// A directory with `<role>.pem`, `<role>.key` and `ca.pem` (made by `iaasd certs issue`). Empty: plain text, allowed on loopback alone.
    pub tls_dir: PathBuf,
    /// Where the process serves /metrics, /healthz and /readyz without a token, as in `127.0.0.1:9481`. Empty: nowhere.
    pub ops_listen: String,
}

impl Links {
    fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
        if text.is_empty() { default } else { text }
    }

    #[must_use]
    pub fn cluster_listen(&self) -> &str {
        Self::or(&self.cluster_listen, "127.0.0.1:7481")
    }

    #[must_use]
    pub fn storage_listen(&self) -> &str {
        Self::or(&self.storage_listen, "127.0.0.1:7482")
    }

    #[must_use]
    pub fn resource_listen(&self) -> &str {
        Self::or(&self.resource_listen, "127.0.0.1:7483")
    }

    fn url(&self, url: &str, listen: &str) -> String {
        let scheme = if self.tls_dir.as_os_str().is_empty() { "http" } else { "https" };
        if url.is_empty() { format!("{scheme}://{listen}") } else { url.to_owned() }
    }

    #[must_use]
    pub fn cluster_url(&self) -> String {
        self.url(&self.cluster_url, self.cluster_listen())
    }

    #[must_use]
    pub fn storage_url(&self) -> String {
        self.url(&self.storage_url, self.storage_listen())
    }

    #[must_use]
    pub fn resource_url(&self) -> String {
        self.url(&self.resource_url, self.resource_listen())
    }
}

/// The whole file.
#[derive(Debug, Clone)]
pub struct Config {
    pub paths: Paths,
    pub log: Log,
    pub database: Database,
    pub links: Links,
    pub api: api_gateway::ApiConfig,
    pub identity: api_gateway::IdentityConfig,
    pub cluster: cluster_manager::Config,
    pub resource: resource_manager::Config,
    pub storage: storage_manager::Config,
    pub compute: compute_agent::Config,
    pub network: network_agent::config::Config,
}

pub const SECTIONS: &[&str] =
    &["paths", "log", "store", "links", "api", "identity", "cluster", "resource", "storage", "compute", "network"];

/// What of the file a command uses: sections (`store`) and single keys (`api.ca_dir`). What isn't used isn't checked, and wrong keys have their
/// default.
#[derive(Debug, Clone, Copy)]
pub struct Uses(pub &'static [&'static str]);

impl Uses {
    pub const EVERYTHING: Self = Self(SECTIONS);

    /// Whether an error of this key is one of what the command uses. A section that there isn't is an error for every command.
    fn affects(self, key: &str) -> bool {
        let within = |whole: &str, part: &str| {
            part.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let section = key.split('.').next().unwrap_or(key);
        !SECTIONS.contains(&section) || self.0.iter().any(|used| within(used, key) || within(key, used))
    }
}

impl Config {
    /// Reads a file and checks what of it is used. All of its errors come back at once.
    pub fn load(path: &Path, uses: Uses) -> Result<Self, ConfigErrors> {
        let file = config::read_table(path)?;
        let mut errors = config::unknown_sections(&file, SECTIONS);
        macro_rules! section {
            ($name:literal) => {{
                let (section, wrong) = config::check_section(&file, $name);
                errors.extend(wrong);
                section
            }};
        }
        let mut config = Self {
            paths: section!("paths"),
            log: section!("log"),
            database: section!("store"),
            links: section!("links"),
            api: section!("api"),
            identity: section!("identity"),
            cluster: section!("cluster"),
            resource: section!("resource"),
            storage: section!("storage"),
            compute: section!("compute"),
            network: section!("network"),
        };
        config.fill_paths(&file);
        errors.extend(config.validate());
        errors.retain(|error| uses.affects(&error.key));
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors { file: path.display().to_string(), errors }) }
    }

    /// Everything lives below `[paths]` unless its own section says otherwise.
    fn fill_paths(&mut self, file: &toml::Table) {
        let (state, run) = (&self.paths.state, &self.paths.run);
        let given = |section: &str, key: &str| file.get(section).and_then(|s| s.get(key)).is_some();
        let below = |path: &mut PathBuf, section: &str, key: &str, default: PathBuf| {
            if !given(section, key) {
                *path = default;
            }
        };
        below(&mut self.identity.state_dir, "identity", "state_dir", state.join("identity"));
        below(&mut self.storage.directory, "storage", "directory", state.join("images"));
        below(&mut self.compute.state_dir, "compute", "state_dir", state.join("compute"));
        below(&mut self.compute.run_dir, "compute", "run_dir", run.join("compute"));
        below(&mut self.network.state_dir, "network", "state_dir", state.join("network"));
        below(&mut self.network.port_socket, "network", "port_socket", run.join("network/port.sock"));
        // Both agents of a host must mean the same one.
        below(&mut self.compute.port_socket, "compute", "port_socket", self.network.port_socket.clone());
        self.api.ca_dir.get_or_insert_with(|| state.join("ca"));
        self.api.backup_dir.get_or_insert_with(|| state.join("backups"));
        let default = |text: &mut String, value: String| {
            if text.is_empty() {
                *text = value;
            }
        };
        default(&mut self.database.url, format!("sqlite://{}", state.join("iaas.db").display()));
    }

    fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        for (key, path) in [("paths.state", &self.paths.state), ("paths.run", &self.paths.run)] {
            if !path.is_absolute() {
                errors.push(ConfigError::new(key, "must be an absolute path"));
            }
        }
        if !self.database.url.starts_with("sqlite://") && !self.database.url.starts_with("postgres://") {
            errors.push(ConfigError::new("store.url", "must begin with sqlite:// or postgres://"));
        }
        if !(1..=1 << 20).contains(&self.log.file_mib) {
            errors.push(ConfigError::new("log.file_mib", "must be 1 to 1048576"));
        }
        if !(1..=64).contains(&self.database.readers) {
            errors.push(ConfigError::new("store.readers", "must be 1 to 64"));
        }
        if !(1000..=60_000).contains(&self.database.leader_lease_ms) {
            errors.push(ConfigError::new("store.leader_lease_ms", "must be 1000 to 60000"));
        }
        if self.database.reserve_mib > 65_536 {
            errors.push(ConfigError::new("store.reserve_mib", "must be 0 to 65536"));
        }
        for (key, text) in [
            ("links.cluster_listen", &self.links.cluster_listen),
            ("links.storage_listen", &self.links.storage_listen),
            ("links.resource_listen", &self.links.resource_listen),
            ("links.ops_listen", &self.links.ops_listen),
        ] {
            if !text.is_empty() && text.parse::<SocketAddr>().is_err() {
                errors.push(ConfigError::new(key, format!("`{text}` is not ADDRESS:PORT")));
            }
        }
        for (key, urls) in [
            ("links.cluster_url", &self.links.cluster_url),
            ("links.storage_url", &self.links.storage_url),
            ("links.resource_url", &self.links.resource_url),
        ] {
            for url in urls.split(',').map(str::trim).filter(|_| !urls.is_empty()) {
                if !url.starts_with("https://") && !url.starts_with("http://") {
                    errors.push(ConfigError::new(key, format!("`{url}` is not a URL (https://host:port)")));
                }
            }
        }
        errors.extend(self.api.validate());
        errors.extend(self.identity.validate());
        errors.extend(self.cluster.validate());
        errors.extend(self.resource.validate());
        errors.extend(self.storage.validate());
        errors.extend(self.compute.validate());
        errors.extend(self.network.validate());
        errors
    }

    /// The built-in CA's directory.
    #[must_use]
    pub fn ca_dir(&self) -> &Path {
        self.api.ca_dir.as_deref().unwrap_or(&self.paths.state)
    }

    /// What both agents of this host share: who it is, its key, its certificates.
    #[must_use]
    pub fn host_dir(&self) -> PathBuf {
        self.paths.state.join("host")
    }

    #[must_use]
    pub fn store(&self) -> StoreConfig {
        let Database { url, readers, reserve_mib, leader_lease_ms } = &self.database;
        StoreConfig {
            readers: *readers,
            reserve_bytes: reserve_mib << 20,
            lease_ttl: Duration::from_millis(*leader_lease_ms),
            ..StoreConfig::new(url.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    /// Keys of a section as its default writes them. Keys without a default (`Option`) are left out by TOML.
    fn keys<T: Default + Serialize>(section: &str) -> Vec<(String, String)> {
        let table = toml::Table::try_from(T::default()).expect("a section is a table");
        table.keys().map(|key| (section.to_owned(), key.clone())).collect()
    }

    #[test]
    fn the_example_explains_every_key_and_shows_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/iaasd.toml");
        let text = std::fs::read_to_string(&path).expect("the example");
        // Its keys are commented out, each with its default: uncommented it must be valid, whole.
        let uncommented: String = text
            .lines()
            .map(|l| l.strip_prefix("#").filter(|l| !l.starts_with(' ')).unwrap_or(l))
            .fold(String::new(), |all, l| all + l + "\n");
        let dir = tempfile::tempdir().expect("tempdir");
        let whole = dir.path().join("iaasd.toml");
        std::fs::write(&whole, &uncommented).expect("written");
        if let Err(errors) = Config::load(&whole, Uses::EVERYTHING) {
            panic!("{errors}");
        }
        let file: toml::Table = uncommented.parse().expect("TOML");
        let all = [
            keys::<Paths>("paths"),
            keys::<Log>("log"),
            keys::<Database>("store"),
            keys::<Links>("links"),
            keys::<api_gateway::ApiConfig>("api"),
            keys::<api_gateway::IdentityConfig>("identity"),
            keys::<cluster_manager::Config>("cluster"),
            keys::<resource_manager::Config>("resource"),
            keys::<storage_manager::Config>("storage"),
            keys::<compute_agent::Config>("compute"),
            keys::<network_agent::config::Config>("network"),
        ];
        for (section, key) in all.concat() {
            assert!(file.get(&section).and_then(|s| s.get(&key)).is_some(), "{section}.{key} is not in the example");
        }
    }
}
