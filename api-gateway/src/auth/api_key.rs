//! API keys: `iaas_<prefix>_<secret>`. The prefix finds the row, the secret is compared by its SHA-256: 192 random bits need no slow hash.

use aws_lc_rs::{constant_time, rand};
use sha2::{Digest, Sha256};

pub const MARK: &str = "iaas_";
const PREFIX_BYTES: usize = 6;
const SECRET_BYTES: usize = 24;

pub struct NewApiKey {
    pub prefix: String,
    pub secret_hash: String,
    /// The whole key, which the caller is shown once.
    pub key: String,
}

#[must_use]
pub fn generate() -> NewApiKey {
    let prefix = random_hex::<PREFIX_BYTES>();
    let secret = random_hex::<SECRET_BYTES>();
    NewApiKey { secret_hash: sha256_hex(secret.as_bytes()), key: format!("{MARK}{prefix}_{secret}"), prefix }
}

/// `(prefix, secret)` of a text that looks like a key.
#[must_use]
pub fn parse(text: &str) -> Option<(&str, &str)> {
    let (prefix, secret) = text.strip_prefix(MARK)?.split_once('_')?;
    let hex = |t: &str, bytes: usize| t.len() == bytes * 2 && t.bytes().all(|b| b.is_ascii_hexdigit());
    (hex(prefix, PREFIX_BYTES) && hex(secret, SECRET_BYTES)).then_some((prefix, secret))
}

#[must_use]
pub fn secret_matches(secret: &str, stored_hash: &str) -> bool {
    constant_time::verify_slices_are_equal(sha256_hex(secret.as_bytes()).as_bytes(), stored_hash.as_bytes()).is_ok()
}

#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[must_use]
pub fn random_hex<const N: usize>() -> String {
    let mut bytes = [0u8; N];
    rand::fill(&mut bytes).expect("the system's random source works");
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_prefix_and_known_by_its_secret() {
        let made = generate();
        let (prefix, secret) = parse(&made.key).expect("well-formed");
        assert_eq!(prefix, made.prefix);
        assert!(secret_matches(secret, &made.secret_hash));
        assert!(!secret_matches(&generate().key, &made.secret_hash));
        for bad in ["", "iaas_", "iaas_abc_def", "iaas_zzzzzzzzzzzz_00", &made.key[1..], &format!("{}0", made.key)] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
