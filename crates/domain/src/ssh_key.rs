//! SSH public keys that new instances get. Checked when stored, so that a typo is a 400 and not a machine nobody can enter.

use crate::{Name, ProjectId, SshKeyId, Timestamp, limits};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKey {
    pub id: SshKeyId,
    pub project_id: ProjectId,
    pub name: Name,
    /// One line: type, base64 blob, comment.
    pub public_key: String,
    /// `SHA256:` and unpadded base64, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSshKey {
    #[error("the key is longer than {} bytes", limits::SSH_KEY_BYTES)]
    TooLong,
    #[error("a public key is one line: type, base64 and a comment")]
    NotOneLine,
    #[error("`{0}` keys are not supported: use ssh-ed25519, ecdsa-sha2-nistp256/384/521, sk-* or ssh-rsa")]
    UnknownType(String),
    #[error("the base64 part doesn't hold a key of the type that the line names")]
    Malformed,
    #[error("this is a private key: send the .pub file, and consider the private one disclosed")]
    Private,
}

const TYPES: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The normalised line and its fingerprint.
pub fn parse_public_key(text: &str) -> Result<(String, String), InvalidSshKey> {
    if text.len() > limits::SSH_KEY_BYTES {
        return Err(InvalidSshKey::TooLong);
    }
    if text.contains("PRIVATE KEY") {
        return Err(InvalidSshKey::Private);
    }
    let line = text.trim();
    if line.is_empty() || line.chars().any(char::is_control) {
        return Err(InvalidSshKey::NotOneLine);
    }
    let mut parts = line.split_ascii_whitespace();
    let (Some(kind), Some(blob)) = (parts.next(), parts.next()) else { return Err(InvalidSshKey::NotOneLine) };
    if !TYPES.contains(&kind) {
        return Err(InvalidSshKey::UnknownType(kind.chars().take(40).collect()));
    }
    let bytes = BASE64_STANDARD.decode(blob).map_err(|_| InvalidSshKey::Malformed)?;
    // RFC 4253 section 6.6: the blob starts with the type's name as a length-prefixed string.
    let named = bytes.get(..4).map(|n| u32::from_be_bytes([n[0], n[1], n[2], n[3]]) as usize);
    let inside = named.and_then(|n| bytes.get(4..4usize.checked_add(n)?));
    if inside != Some(kind.as_bytes()) || bytes.len() < 4 + kind.len() + 4 + 32 {
        return Err(InvalidSshKey::Malformed);
    }
    let comment: Vec<&str> = parts.collect();
    let line =
        if comment.is_empty() { format!("{kind} {blob}") } else { format!("{kind} {blob} {}", comment.join(" ")) };
    Ok((line, format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(&bytes)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtwGcWB2gCgPhk me@example";

    #[test]
    fn a_real_key_gets_its_fingerprint() {
        let (line, print) = parse_public_key(&format!("  {ED25519}\n")).expect("valid");
        assert_eq!(line, ED25519);
        assert!(print.starts_with("SHA256:") && print.len() == 7 + 43, "{print}");
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        assert_eq!(parse_public_key(""), Err(InvalidSshKey::NotOneLine));
        assert_eq!(parse_public_key("ssh-dss AAAA"), Err(InvalidSshKey::UnknownType("ssh-dss".into())));
        assert_eq!(parse_public_key("ssh-ed25519 AAAA"), Err(InvalidSshKey::Malformed));
        assert_eq!(parse_public_key(&ED25519.replace("ssh-ed25519 ", "ssh-rsa ")), Err(InvalidSshKey::Malformed));
        assert_eq!(parse_public_key("-----BEGIN OPENSSH PRIVATE KEY-----"), Err(InvalidSshKey::Private));
        assert_eq!(parse_public_key(&format!("{ED25519}\ncommand")), Err(InvalidSshKey::NotOneLine));
    }
}
