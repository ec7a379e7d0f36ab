//! The sections `[api]` and `[identity]` of the configuration.

use domain::network::Cidr;
use serde::{Deserialize, Serialize};
use service_kit::config::ConfigError;
use std::{net::SocketAddr, path::PathBuf};

/// Section `[api]`: where and how the API is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Address and port. On loopback it is plain HTTP; on any other address HTTPS.
    pub listen: SocketAddr,
    /// Certificate chain (PEM) and its key; read anew when the files change. Both or neither. Without them an HTTPS listener gets a
    /// certificate of the built-in CA.
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Names and addresses that the built-in CA's certificate is valid for, beside the listen address.
    pub tls_names: Vec<String>,
    /// Directory of the built-in CA; `<identity.state_dir>/ca` unless set.
    pub ca_dir: Option<PathBuf>,
    /// Directory of the database's backups; `<identity.state_dir>/backups` unless set.
    pub backup_dir: Option<PathBuf>,
    /// How many backups are kept; older ones are removed when one was made.
    pub backups_kept: u32,
    /// Serve plain HTTP on an address that isn't loopback: tokens and passwords then cross the network readable. Only behind a proxy
    /// that does TLS.
    pub allow_plain_http_on_non_loopback: bool,
    /// The URL that clients use, for links in answers; made from `listen` unless set.
    pub public_url: Option<String>,
    /// How long a request may take, seconds. Longer than a commit waits for a database that is locked or gone (35 s), so that such a
    /// request succeeds late instead of ending in doubt. `wait` adds its own timeout; uploads and streams have none.
    pub request_timeout_secs: u64,
    /// How long a stop waits for requests in progress, seconds.
    pub drain_timeout_secs: u64,
    /// Connections at a time; more wait in the kernel's backlog. No peer gets more than are left for the others.
    pub max_connections: usize,
    /// Connections of one peer at a time, at most: an IPv4 address, or an IPv6 /64. More are closed at once. Trusted proxies have no such bound.
    pub max_connections_per_peer: usize,
    /// A connection without a request is closed after this time, seconds.
    pub idle_timeout_secs: u64,
    /// Networks of proxies that say in `X-Forwarded-For` whom they stand for, as in `10.0.0.0/28`. From anybody else the header is ignored.
    pub trusted_proxies: Vec<Cidr>,
    /// What the access log says: `all`, `changes` (mutations and failures) or `failures`.
    pub access_log: AccessLog,
    /// Requests a second of one principal, and in a burst of a second; 0 is no limit. System admins have none.
    pub rate_limit_per_principal: u32,
    /// Requests a second to one project by all its principals; 0 is no limit.
    pub rate_limit_per_project: u32,
    /// Requests a second without a valid token, from one peer; 0: unlimited.
    pub rate_limit_per_peer: u32,
    /// Event streams at a time. No user gets more than are left for the others.
    pub max_event_streams: usize,
    /// Requests with `wait` at a time, shared likewise.
    pub max_waits: usize,
    /// Idempotency keys of one user or API key that are kept, for a day each; 0 is no limit. System admins have none.
    pub idempotency_keys_per_principal: u32,
    /// How long the audit log is kept, days.
    pub audit_retention_days: u64,
    /// How long events are kept, hours. A client that was away longer gets `event: reset`.
    pub event_retention_hours: u64,
    /// How often other processes' changes are looked for while somebody waits for events, milliseconds. Changes of this process are
    /// seen at once.
    pub event_poll_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLog {
    All,
    #[default]
    Changes,
    Failures,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            tls_certificate: None,
            tls_key: None,
            tls_names: Vec::new(),
            ca_dir: None,
            backup_dir: None,
            backups_kept: 7,
            allow_plain_http_on_non_loopback: false,
            public_url: None,
            request_timeout_secs: 60,
            drain_timeout_secs: 10,
            max_connections: 10_000,
            max_connections_per_peer: 2_500,
            idle_timeout_secs: 120,
            trusted_proxies: Vec::new(),
            access_log: AccessLog::Changes,
            rate_limit_per_principal: 2_000,
            rate_limit_per_project: 5_000,
            rate_limit_per_peer: 500,
            max_event_streams: 1_000,
            max_waits: 10_000,
            idempotency_keys_per_principal: 20_000,
            audit_retention_days: 365,
            event_retention_hours: 72,
            event_poll_ms: 100,
        }
    }
}

impl ApiConfig {
    /// Whether this listener speaks TLS.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.tls_certificate.is_some() || (!self.listen.ip().is_loopback() && !self.allow_plain_http_on_non_loopback)
    }

    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, key: &str, detail: &str| {
            if !ok {
                errors.push(ConfigError::new(format!("api.{key}"), detail));
            }
        };
        check(
            self.tls_certificate.is_some() == self.tls_key.is_some(),
            "tls_key",
            "tls_certificate and tls_key go together: set both or neither",
        );
        check((1..=3600).contains(&self.request_timeout_secs), "request_timeout_secs", "must be 1 to 3600");
        check((1..=10_000).contains(&self.backups_kept), "backups_kept", "must be 1 to 10000");
        check(self.drain_timeout_secs <= 600, "drain_timeout_secs", "must be at most 600");
        check(self.max_connections >= 1, "max_connections", "must be at least 1");
        check(self.max_connections_per_peer >= 1, "max_connections_per_peer", "must be at least 1");
        check((1..=86_400).contains(&self.idle_timeout_secs), "idle_timeout_secs", "must be 1 to 86400");
        check(self.max_event_streams >= 1, "max_event_streams", "must be at least 1");
        check(self.max_waits >= 1, "max_waits", "must be at least 1");
        check((1..=36_500).contains(&self.audit_retention_days), "audit_retention_days", "must be 1 to 36500");
        check((1..=8760).contains(&self.event_retention_hours), "event_retention_hours", "must be 1 to 8760");
        check((10..=60_000).contains(&self.event_poll_ms), "event_poll_ms", "must be 10 to 60000");
        if let Some(url) = &self.public_url {
            let valid = url.starts_with("http://") || url.starts_with("https://");
            check(
                valid && !url.ends_with('/'),
                "public_url",
                "must be http(s)://host[:port] without a slash at the end",
            );
        }
        errors
    }
}

/// Section `[identity]`: users, passwords, tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Where `master.key` lies: made at the first start, mode 0600. It wraps the token signing keys in the database; every api-gateway
    /// of an installation needs the same one. Losing it signs everybody out, nothing more.
    pub state_dir: PathBuf,
    /// The first password of the user `admin`, who is made when there is no user. If the file doesn't exist it is written, mode 0600,
    /// with a random password. `<state_dir>/admin-password` unless set.
    pub admin_password_file: Option<PathBuf>,
    /// How long an access token is valid, seconds.
    pub access_token_secs: u64,
    /// How many API keys a user may have.
    pub api_keys_max: u32,
    /// How long a refresh token is valid, hours; each use gives a new one.
    pub refresh_token_hours: u64,
    /// A new signing key is made when the newest is this old, days.
    pub signing_key_days: u64,
    /// How long what is known of a principal may be out of date after a change by another api-gateway, milliseconds.
    pub principal_cache_ms: u64,
    /// Wrong passwords for one user from one address before further attempts wait.
    pub login_attempts: u32,
    /// Failed logins from one address (IPv6: from one /64) within `login_lockout_secs` before further ones wait. Who logged in from there before
    /// doesn't wait for the others.
    pub login_attempts_per_address: u32,
    /// How long further attempts wait, seconds.
    pub login_lockout_secs: u64,
    /// Password hashes computed at a time; each takes 19 MiB.
    pub password_hashes_at_once: usize,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/iaas"),
            admin_password_file: None,
            access_token_secs: 15 * 60,
            api_keys_max: 50,
            refresh_token_hours: 30 * 24,
            signing_key_days: 30,
            principal_cache_ms: 5_000,
            login_attempts: 5,
            login_attempts_per_address: 60,
            login_lockout_secs: 60,
            password_hashes_at_once: 2,
        }
    }
}

impl IdentityConfig {
    #[must_use]
    pub fn admin_password_path(&self) -> PathBuf {
        self.admin_password_file.clone().unwrap_or_else(|| self.state_dir.join("admin-password"))
    }

    #[must_use]
    pub fn master_key_path(&self) -> PathBuf {
        self.state_dir.join("master.key")
    }

    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, key: &str, detail: &str| {
            if !ok {
                errors.push(ConfigError::new(format!("identity.{key}"), detail));
            }
        };
        check(self.state_dir.is_absolute(), "state_dir", "must be an absolute path");
        check((60..=86_400).contains(&self.access_token_secs), "access_token_secs", "must be 60 to 86400");
        check((1..=8760).contains(&self.refresh_token_hours), "refresh_token_hours", "must be 1 to 8760");
        check((1..=3650).contains(&self.signing_key_days), "signing_key_days", "must be 1 to 3650");
        check(self.principal_cache_ms <= 60_000, "principal_cache_ms", "must be at most 60000");
        check((1..=1000).contains(&self.login_attempts), "login_attempts", "must be 1 to 1000");
        check(
            (1..=100_000).contains(&self.login_attempts_per_address),
            "login_attempts_per_address",
            "must be 1 to 100000",
        );
        check((1..=86_400).contains(&self.login_lockout_secs), "login_lockout_secs", "must be 1 to 86400");
        check((1..=10_000).contains(&self.api_keys_max), "api_keys_max", "must be 1 to 10000");
        check((1..=64).contains(&self.password_hashes_at_once), "password_hashes_at_once", "must be 1 to 64");
        errors
    }
}

/// Both sections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    pub api: ApiConfig,
    pub identity: IdentityConfig,
}

impl Config {
    #[must_use]
    pub fn backup_dir(&self) -> PathBuf {
        self.api.backup_dir.clone().unwrap_or_else(|| self.identity.state_dir.join("backups"))
    }

    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = self.api.validate();
        errors.extend(self.identity.validate());
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_all_errors_are_reported() {
        assert_eq!(Config::default().validate(), vec![]);
        let mut config = Config::default();
        config.api.tls_key = Some("/k".into());
        config.api.event_poll_ms = 0;
        config.identity.state_dir = "relative".into();
        let keys: Vec<_> = config.validate().into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["api.tls_key", "api.event_poll_ms", "identity.state_dir"]);
    }

    #[test]
    fn tls_is_off_only_on_loopback_or_by_plain_words() {
        let mut config = ApiConfig::default();
        assert!(!config.uses_tls());
        config.listen = SocketAddr::from(([0, 0, 0, 0], 7480));
        assert!(config.uses_tls());
        config.allow_plain_http_on_non_loopback = true;
        assert!(!config.uses_tls());
    }
}
