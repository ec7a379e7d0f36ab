//! Names that people give. One rule for all objects, so that a name is also a host name and never needs quoting.

use serde::{Deserialize, Serialize};
use std::fmt;

/// 1 to 63 characters of `a-z`, `0-9` and `-`, starting with a letter and not ending with `-` (an RFC 1123 label that can't be
/// taken for a UUID or a number). Unique per project and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to 63 characters of a-z, 0-9 and '-', starts with a letter, doesn't end with '-' and isn't an id"
)]
pub struct InvalidName;

impl Name {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let bytes = text.as_bytes();
        let ok = (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes[bytes.len() - 1] != b'-'
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && uuid::Uuid::parse_str(&text).is_err();
        if ok { Ok(Self(text)) } else { Err(InvalidName) }
    }
}

impl std::str::FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::try_from(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_labels_and_refuses_the_rest() {
        for good in ["a", "web-1", "x9"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "1a", "-a", "a-", "A", "a_b", "a b", "é", &long, "a1b2c3d4-0000-7000-8000-000000000000"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
