//! Profiles: which server, as whom, in which project. One TOML file that only its owner may read, because tokens are in it.
//!
//! Several `iaasctl` run at once: each change reads, changes and replaces the file (write, sync, rename) under a lock; and a session's
//! tokens are renewed under a second lock, because a refresh token works once.

use crate::error::CliError;
use client::token::{TokenVault, Tokens};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub const DEFAULT_PROFILE: &str = "default";
pub const DEFAULT_URL: &str = "http://127.0.0.1:7480";

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigFile {
    /// The profile in use when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, Profile>,
}

#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// A CA to trust besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
}

impl Profile {
    /// Keeps a session. On a full disk the API gives access tokens alone: such a session can't be renewed, and what was kept for an earlier one is dropped.
    pub fn keep(&mut self, tokens: Tokens) {
        self.access_token = Some(tokens.access_token);
        self.refresh_token = Some(tokens.refresh_token).filter(|token| !token.is_empty());
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profile").field("url", &self.url).field("project", &self.project).finish_non_exhaustive()
    }
}

/// `$IAASCTL_CONFIG`, else `$XDG_CONFIG_HOME/iaas/config.toml`, else `~/.config/iaas/config.toml`.
pub fn path() -> Result<PathBuf, CliError> {
    let given = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(path) = given("IAASCTL_CONFIG") {
        return Ok(path);
    }
    let base = given("XDG_CONFIG_HOME").or_else(|| given("HOME").map(|home| home.join(".config")));
    let base =
        base.ok_or_else(|| CliError::usage("neither HOME nor IAASCTL_CONFIG is set, so there is no profile file"))?;
    Ok(base.join("iaas").join("config.toml"))
}

/// The file; an absent one is empty.
pub fn read(path: &Path) -> Result<ConfigFile, CliError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(ConfigFile::default()),
        Err(source) => return Err(CliError::File { action: "read", path: path.to_owned(), source }),
    };
    toml::from_str(&text).map_err(|e| CliError::Profile { path: path.to_owned(), source: Box::new(e) })
}

/// Changes the file under its lock.
pub fn update<T>(path: &Path, change: impl FnOnce(&mut ConfigFile) -> T) -> Result<T, CliError> {
    let failed = |action| move |source| CliError::File { action, path: path.to_owned(), source };
    let _lock = lock_file(path, "lock").map_err(failed("lock"))?;
    let mut file = read(path)?;
    let result = change(&mut file);
    let text = toml::to_string(&file).map_err(|e| CliError::Profile { path: path.to_owned(), source: Box::new(e) })?;
    replace(path, text.as_bytes()).map_err(failed("write"))?;
    Ok(result)
}

fn lock_file(path: &Path, suffix: &str) -> io::Result<File> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.with_extension(format!("toml.{suffix}")))?;
    file.lock()?;
    Ok(file)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = path.with_extension(format!("toml.{}", uuid::Uuid::new_v4().simple()));
    let written = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&temp)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temp, path));
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    written
}

/// A profile's tokens.
#[derive(Debug)]
pub struct ProfileVault {
    pub path: PathBuf,
    pub profile: String,
}

impl TokenVault for ProfileVault {
    fn load(&self) -> io::Result<Option<Tokens>> {
        let file = read(&self.path).map_err(|e| io::Error::other(e.render()))?;
        let profile = file.profiles.get(&self.profile);
        Ok(profile.and_then(|p| {
            let access_token = p.access_token.clone()?;
            Some(Tokens { access_token, refresh_token: p.refresh_token.clone().unwrap_or_default() })
        }))
    }

    fn save(&self, tokens: &Tokens) -> io::Result<()> {
        update(&self.path, |file| {
            file.profiles.entry(self.profile.clone()).or_default().keep(tokens.clone());
        })
        .map_err(|e| io::Error::other(e.render()))
    }

    fn lock(&self) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(lock_file(&self.path, "session")?))
    }
}
