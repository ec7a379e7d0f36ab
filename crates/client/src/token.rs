//! Tokens, and where they are kept. A refresh token works once: two users of the same one end the session for both, so a refresh is
//! done under the keeper's lock, after looking whether somebody else has just done it.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io;

/// What a login gives.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens { .. }")
    }
}

/// Keeps a session's tokens: in memory here, in the profile in `iaasctl`. Called from the blocking pool.
pub trait TokenVault: Send + Sync {
    /// The tokens as they are now; `None` when logged out.
    fn load(&self) -> io::Result<Option<Tokens>>;
    fn save(&self, tokens: &Tokens) -> io::Result<()>;
    /// Keeps other processes from refreshing while the guard lives.
    fn lock(&self) -> io::Result<Box<dyn Send>>;
}

/// Tokens of this process alone.
#[derive(Debug, Default)]
pub struct MemoryVault(Mutex<Option<Tokens>>);

impl MemoryVault {
    #[must_use]
    pub fn new(tokens: Tokens) -> Self {
        Self(Mutex::new(Some(tokens)))
    }
}

impl TokenVault for MemoryVault {
    fn load(&self) -> io::Result<Option<Tokens>> {
        Ok(self.0.lock().clone())
    }

    fn save(&self, tokens: &Tokens) -> io::Result<()> {
        *self.0.lock() = Some(tokens.clone());
        Ok(())
    }

    fn lock(&self) -> io::Result<Box<dyn Send>> {
        Ok(Box::new(()))
    }
}
