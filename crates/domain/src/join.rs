//! What a host needs to join, in one line: where the API is, which CA to trust, and a secret that admits one host.
//!
//! `iaasj1.<secret>.<SHA-256 of the CA's certificate, hexadecimal>.<URL>[,<URL>…]`: letters, digits and `-_.:/,[]`, so that no shell needs
//! quotes. The fingerprint comes with the secret, over the way the operator brings the token; so the host knows the right server before it
//! says anything secret.

use std::{fmt, str::FromStr};

const PREFIX: &str = "iaasj1";
/// Bytes of a secret's text, at least and at most.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 32..=128;
const URLS_MAX: usize = 16;
const URL_BYTES_MAX: usize = 512;

#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub secret: String,
    /// The SHA-256 of the CA's certificate in lower-case hexadecimal digits.
    pub ca_sha256: String,
    /// The URLs of the API, as in `https://10.0.0.1:7480`, in the order in which they are tried.
    pub urls: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJoinToken {
    #[error("a join token begins with `{PREFIX}.`: copy the whole line that `iaasctl host token create` printed")]
    Prefix,
    #[error("the join token is cut off or damaged: copy the whole line that `iaasctl host token create` printed")]
    Damaged,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}", self.secret, self.ca_sha256, self.urls.join(","))
    }
}

/// The debug output leaves the secret out.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("ca_sha256", &self.ca_sha256)
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;

    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        let rest = text.trim().strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('.'));
        let mut parts = rest.ok_or(InvalidJoinToken::Prefix)?.splitn(3, '.');
        let mut next = || parts.next().ok_or(InvalidJoinToken::Damaged);
        let (secret, ca_sha256, urls) = (next()?, next()?, next()?);
        let secret_ok = SECRET_BYTES.contains(&secret.len())
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let hash_ok =
            ca_sha256.len() == 64 && ca_sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
        let urls_ok = urls.len() <= URLS_MAX
            && urls.iter().all(|url| {
                let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                host.is_some_and(|host| !host.is_empty() && url.len() <= URL_BYTES_MAX)
                    && url.bytes().all(|b| b.is_ascii_graphic())
            });
        if !(secret_ok && hash_ok && urls_ok) {
            return Err(InvalidJoinToken::Damaged);
        }
        Ok(Self { secret: secret.to_owned(), ca_sha256: ca_sha256.to_owned(), urls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_not_at_all_when_damaged() {
        let token = JoinToken {
            secret: "s".repeat(43),
            ca_sha256: "0a".repeat(32),
            urls: vec!["https://10.0.0.1:7480".into(), "https://[fd00::1]:7480".into()],
        };
        let text = token.to_string();
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        assert_eq!("x".parse::<JoinToken>(), Err(InvalidJoinToken::Prefix));
        let damaged = [
            &text[..60],
            &text[..text.len() - 44],
            &text.replace("https", "ftp"),
            &text.replacen("0a", "0A", 1),
            &text.replacen("ss", "s ", 1),
            "iaasj1.",
            "iaasj1...",
        ];
        for bad in damaged {
            assert_eq!(bad.parse::<JoinToken>(), Err(InvalidJoinToken::Damaged), "{bad}");
        }
    }
}
