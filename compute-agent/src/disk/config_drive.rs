//! The config drive: an instance's identity, keys and user data as a NoCloud volume (label `cidata`).
//!
//! It is made again before a start when its content has changed, so it needs no durability, and a changed name or key is there at the
//! next boot. Its content is rendered purely; YAML scalars are written as JSON strings, which YAML reads as such whatever
//! they contain. The vendor data makes a stock cloud-init print the line by which the console tells that a guest is up;
//! a tenant's user data outranks it.

use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::iso::render_iso;
use super::overlay::{DiskError, Owner, blocking};

const LABEL: &str = "cidata";

/// What a guest may read about itself on its config drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuestConfig {
    /// The instance's id: cloud-init runs its first-boot steps again when it changes.
    pub instance_id: String,
    pub hostname: String,
    /// One OpenSSH public key per entry.
    pub ssh_keys: Vec<String>,
    /// The tenant's user data, of any kind; empty for none.
    pub user_data: Vec<u8>,
}

impl GuestConfig {
    /// Identifies the content of the drive: 16 lower-case hexadecimal digits, which differ whenever a field differs.
    #[must_use]
    pub fn digest(&self) -> String {
        // Plain data always serializes, and JSON keeps the fields apart.
        hex::encode(&Sha256::digest(serde_json::to_vec(self).unwrap_or_default())[..8])
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum GuestConfigError {
    #[error("{hostname:?} is no host name: 1 to 63 letters, digits and hyphens, with a letter or digit at both ends")]
    Hostname { hostname: String },
    #[error("an SSH key must be one line without control characters: {key:?}")]
    SshKey { key: String },
    #[error("the instance id {id:?} has other characters than letters, digits and hyphens")]
    InstanceId { id: String },
}

#[derive(Debug, Error)]
pub enum ConfigDriveError {
    #[error("the config drive can't be described")]
    Config(#[source] GuestConfigError),
    #[error("the config drive can't be written")]
    Disk(#[source] DiskError),
}

/// The content of the volume's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoCloud {
    pub meta_data: String,
    pub vendor_data: String,
    pub user_data: Vec<u8>,
}

/// Whether this is a label of RFC 1123, the only form of host name that instances get.
pub fn hostname_valid(hostname: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = hostname.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Renders the volume's files.
pub fn render_nocloud(config: &GuestConfig) -> Result<NoCloud, GuestConfigError> {
    if !hostname_valid(&config.hostname) {
        return Err(GuestConfigError::Hostname { hostname: config.hostname.clone() });
    }
    let id = &config.instance_id;
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(GuestConfigError::InstanceId { id: id.clone() });
    }
    let mut meta_data =
        format!("instance-id: {}\nlocal-hostname: {}\n", json!(config.instance_id), json!(config.hostname));
    if !config.ssh_keys.is_empty() {
        meta_data.push_str("public-keys:\n");
    }
    for key in config.ssh_keys.iter().map(|key| key.trim()) {
        if key.is_empty() || key.chars().any(char::is_control) {
            return Err(GuestConfigError::SshKey { key: key.to_owned() });
        }
        meta_data.push_str(&format!("  - {}\n", json!(key)));
    }
    let message = format!("iaas-guest: up {} $UPTIME", config.hostname);
    let vendor_data = format!("#cloud-config\nfinal_message: {}\n", json!(message));
    Ok(NoCloud { meta_data, vendor_data, user_data: config.user_data.clone() })
}

/// Renders the whole volume.
pub fn render_config_drive(config: &GuestConfig) -> Result<Vec<u8>, GuestConfigError> {
    let NoCloud { meta_data, vendor_data, user_data } = render_nocloud(config)?;
    let files =
        [("meta-data", meta_data.as_bytes()), ("user-data", &user_data), ("vendor-data", vendor_data.as_bytes())];
    Ok(render_iso(LABEL, &files))
}

/// Writes the volume of one instance, readable only by its QEMU (mode 0400), in place of an earlier one.
pub async fn write_config_drive(config: &GuestConfig, dest: &Path, owner: Owner) -> Result<(), ConfigDriveError> {
    let image = render_config_drive(config).map_err(ConfigDriveError::Config)?;
    let dest = dest.to_path_buf();
    let write = move || {
        match std::fs::remove_file(&dest) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(DiskError::io(&dest, source)),
            Ok(()) | Err(_) => {}
        }
        let mut options = std::fs::OpenOptions::new();
        options
            .create_new(true)
            .write(true)
            .mode(0o400)
            .open(&dest)
            .and_then(|mut file| file.write_all(&image))
            .and_then(|()| chown(&dest, Some(owner.uid), Some(owner.gid)))
            .map_err(|source| DiskError::io(&dest, source))
    };
    blocking(write).await.map_err(ConfigDriveError::Disk)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn config() -> GuestConfig {
        GuestConfig {
            instance_id: "0190-1".into(),
            hostname: "web-1".into(),
            ssh_keys: vec!["ssh-ed25519 AAAA me@host\n".into(), "ssh-rsa BBBB \"quoted\": # and {braces}".into()],
            user_data: b"#!/bin/sh\necho hi\n".to_vec(),
        }
    }

    #[test]
    fn golden_nocloud() {
        let files = render_nocloud(&config()).expect("valid");
        assert_eq!(
            files.meta_data,
            "instance-id: \"0190-1\"\nlocal-hostname: \"web-1\"\npublic-keys:\n  - \"ssh-ed25519 AAAA me@host\"\n  \
             - \"ssh-rsa BBBB \\\"quoted\\\": # and {braces}\"\n"
        );
        assert_eq!(files.vendor_data, "#cloud-config\nfinal_message: \"iaas-guest: up web-1 $UPTIME\"\n");
        assert_eq!(files.user_data, config().user_data);
        let bare = render_nocloud(&GuestConfig { ssh_keys: vec![], ..config() }).expect("valid");
        assert!(!bare.meta_data.contains("public-keys"));
    }

    #[test]
    fn the_digest_differs_with_the_content() {
        let digest = |keys: &[&str], data: &[u8]| {
            let ssh_keys = keys.iter().map(|key| (*key).to_owned()).collect();
            GuestConfig { ssh_keys, user_data: data.to_vec(), ..config() }.digest()
        };
        assert_eq!(digest(&["a"], b"b"), digest(&["a"], b"b"));
        assert_ne!(digest(&["a"], b"b"), digest(&["ab"], b""));
        assert_ne!(digest(&["a", "b"], b""), digest(&["ab"], b""));
        assert_eq!(digest(&[], b"").len(), 16);
    }

    #[test]
    fn what_could_change_the_meaning_of_the_files_is_refused() {
        for hostname in ["", "-a", "a-", "a.b", "a b", "a\nb", "é", &"x".repeat(64)] {
            let config = GuestConfig { hostname: hostname.into(), ..config() };
            assert!(matches!(render_nocloud(&config), Err(GuestConfigError::Hostname { .. })), "{hostname:?}");
        }
        for key in ["", " ", "a\nb", "a\u{7f}"] {
            let config = GuestConfig { ssh_keys: vec![key.into()], ..config() };
            assert!(matches!(render_nocloud(&config), Err(GuestConfigError::SshKey { .. })), "{key:?}");
        }
        let config = GuestConfig { instance_id: "a: b".into(), ..config() };
        assert!(matches!(render_nocloud(&config), Err(GuestConfigError::InstanceId { .. })));
    }

    #[tokio::test]
    async fn the_volume_is_for_its_qemu_alone_and_can_be_rewritten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dest = dir.path().join("config.iso");
        let owner = Owner { uid: 64_055, gid: 64_056 };
        for _ in 0..2 {
            write_config_drive(&config(), &dest, owner).await.expect("written");
        }
        let meta = std::fs::metadata(&dest).expect("there");
        assert_eq!((meta.permissions().mode() & 0o777, meta.uid(), meta.gid()), (0o400, 64_055, 64_056));
        assert_eq!(std::fs::read(&dest).expect("readable by root"), render_config_drive(&config()).expect("valid"));
    }
}
