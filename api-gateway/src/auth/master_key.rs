//! The key that wraps secrets in the database: AES-256-GCM, its 32 bytes in `<state_dir>/master.key`, mode 0600.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use service_kit::secret_file::{self, SecretFileError};
use std::path::Path;

const KEY_BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("the master key can't be had")]
    File(#[source] SecretFileError),
    #[error("{path} doesn't hold {KEY_BYTES} bytes of base64: it is damaged, or no master key")]
    Damaged { path: String },
    #[error("no random bytes from the system")]
    Random,
}

/// The text was wrapped with another master key, for another purpose, or was changed.
#[derive(Debug, thiserror::Error)]
#[error("a wrapped secret doesn't open: was master.key replaced?")]
pub struct Unopenable;

pub struct MasterKey {
    wrapping: RandomizedNonceKey,
    marking: hmac::Key,
}

impl MasterKey {
    /// Reads the key, making it when there is none.
    pub fn open_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        let damaged = || MasterKeyError::Damaged { path: path.display().to_string() };
        let bytes = match secret_file::read(path).map_err(MasterKeyError::File)? {
            Some(text) => BASE64_STANDARD.decode(text.trim_ascii()).map_err(|_| damaged())?,
            None => {
                let mut bytes = vec![0u8; KEY_BYTES];
                aws_lc_rs::rand::fill(&mut bytes).map_err(|_| MasterKeyError::Random)?;
                let text = format!("{}\n", BASE64_STANDARD.encode(&bytes));
                secret_file::write(path, text.as_bytes()).map_err(MasterKeyError::File)?;
                bytes
            }
        };
        if bytes.len() != KEY_BYTES {
            return Err(damaged());
        }
        // A key of its own for each use: HMAC as an extractor, the use as its input.
        let marking = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), b"marking");
        Ok(Self {
            wrapping: RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| damaged())?,
            marking: hmac::Key::new(hmac::HMAC_SHA256, marking.as_ref()),
        })
    }

    /// A keyed hash, hex: recognises a text that came before without telling anybody who reads the database what it was. (The hash of a
    /// request body with a password in it, unkeyed, would be guessed in seconds.)
    #[must_use]
    pub fn mark(&self, text: &str) -> String {
        hex::encode(hmac::sign(&self.marking, text.as_bytes()))
    }

    /// `purpose` is bound to the result: what was wrapped for one opens for no other.
    #[must_use]
    pub fn wrap(&self, purpose: &str, secret: &[u8]) -> String {
        let mut sealed = secret.to_vec();
        let nonce = self
            .wrapping
            .seal_in_place_append_tag(Aad::from(purpose.as_bytes()), &mut sealed)
            .expect("AES-GCM seals anything below 64 GiB");
        let mut all = nonce.as_ref().to_vec();
        all.append(&mut sealed);
        BASE64_STANDARD.encode(all)
    }

    pub fn unwrap(&self, purpose: &str, text: &str) -> Result<Vec<u8>, Unopenable> {
        let all = BASE64_STANDARD.decode(text).map_err(|_| Unopenable)?;
        let (nonce, sealed) = all.split_at_checked(NONCE_LEN).ok_or(Unopenable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopenable)?;
        let mut sealed = sealed.to_vec();
        let open =
            self.wrapping.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut sealed).map_err(|_| Unopenable)?;
        Ok(open.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_opens_for_its_purpose_with_its_key_only() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("master.key");
        let key = MasterKey::open_or_create(&path).expect("made");
        let text = key.wrap("signing key 1", b"secret");
        assert_ne!(text, key.wrap("signing key 1", b"secret"), "a nonce is never used twice");
        let again = MasterKey::open_or_create(&path).expect("read back");
        assert_eq!(again.unwrap("signing key 1", &text).expect("opens"), b"secret");
        assert!(again.unwrap("signing key 2", &text).is_err());
        let other = MasterKey::open_or_create(&dir.path().join("other")).expect("made");
        assert!(other.unwrap("signing key 1", &text).is_err());
        assert!(again.unwrap("signing key 1", "AAAA").is_err());
    }

    #[test]
    fn a_damaged_file_is_an_error_not_a_new_key() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("master.key");
        secret_file::write(&path, b"nonsense").expect("written");
        assert!(matches!(MasterKey::open_or_create(&path), Err(MasterKeyError::Damaged { .. })));
    }
}
