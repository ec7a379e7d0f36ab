//! Passwords: argon2id with OWASP's parameters (19 MiB, 2 passes, 1 lane), on the blocking pool and few at a time, because each takes
//! memory and a core for tens of milliseconds and logins are what an attacker can send without a token. Those who wait for their turn are
//! few, and the networks they come from share the places, so that a flood from one delays the others by a second at most.

use crate::{auth::peer::PeerNetwork, failure::ApiError};
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use domain::{ErrorKind, Problem};
use service_kit::share::{Place, Pool, SharedPool};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub const PASSWORD_BYTES_MIN: usize = 8;
pub const PASSWORD_BYTES_MAX: usize = 256;
/// A login that waits longer than this is refused for now.
const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// Passwords that are hashed or wait for it, per hash at a time: what one core does in about a second.
const QUEUE_FOR_EACH: usize = 32;
/// Verified when there is no such user, so that a wrong name takes as long as a wrong password. The parameters are those of new
/// hashes (a test compares them); no password has this hash.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[derive(Clone)]
pub struct Passwords {
    slots: Arc<Semaphore>,
    queue: SharedPool<PeerNetwork>,
}

/// A turn to hash: the slot, and the place in the queue.
struct Turn {
    _slot: OwnedSemaphorePermit,
    _place: Place<PeerNetwork>,
}

impl Passwords {
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        let queue = SharedPool::new(Pool::PasswordHashes, at_once * QUEUE_FOR_EACH);
        Self { slots: Arc::new(Semaphore::new(at_once)), queue }
    }

    async fn turn(&self, peer: IpAddr) -> Result<Turn, ApiError> {
        let busy = || Problem::unavailable("too many passwords are being checked at the same time");
        let place = self.queue.take(peer.into()).map_err(|_| busy())?;
        match tokio::time::timeout(QUEUE_WAIT, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(Turn { _slot: slot, _place: place }),
            Ok(Err(_)) | Err(_) => Err(busy().into()),
        }
    }

    /// The PHC string to store. `peer`: who wants it.
    pub async fn hash(&self, peer: IpAddr, password: String) -> Result<String, ApiError> {
        let turn = self.turn(peer).await?;
        let hashed = tokio::task::spawn_blocking(move || {
            let result: Result<PasswordHash, _> = Argon2::default().hash_password(password.as_bytes());
            drop(turn);
            result.map(|hash| hash.to_string())
        });
        match hashed.await {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(error)) => Err(ApiError::internal("a password doesn't hash", &error)),
            Err(error) => Err(ApiError::internal("password hashing ended early", &error)),
        }
    }

    /// Whether it is the password; `None` for a user that doesn't exist takes as long and is false.
    pub async fn verify(&self, peer: IpAddr, stored: Option<String>, password: String) -> Result<bool, ApiError> {
        let turn = self.turn(peer).await?;
        let verified = tokio::task::spawn_blocking(move || {
            let known = stored.is_some();
            let text = stored.as_deref().unwrap_or(NOBODY);
            let matches = PasswordHash::new(text)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
            drop(turn);
            known && matches
        });
        verified.await.map_err(|error| ApiError::internal("password verification ended early", &error))
    }
}

/// Refuses what is guessed first. Length is what counts (NIST SP 800-63B): no rules about kinds of characters.
pub fn check_strength(field: &str, user_name: &str, password: &str) -> Result<(), Problem> {
    let refuse = |why: String| {
        Err(Problem::new(ErrorKind::InvalidArgument, "weak_password", format!("the password {why}"))
            .with_field(field, why)
            .with_hint("a sentence of four or more words is long enough and easy to remember"))
    };
    if password.len() < PASSWORD_BYTES_MIN {
        return refuse(format!("has less than {PASSWORD_BYTES_MIN} characters"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return refuse(format!("has more than {PASSWORD_BYTES_MAX} bytes"));
    }
    if password.eq_ignore_ascii_case(user_name) {
        return refuse("is the user's name".to_owned());
    }
    let first = password.chars().next();
    if password.chars().all(|c| Some(c) == first) {
        return refuse("is one character repeated".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hash_and_verify() {
        let passwords = Passwords::new(1);
        let peer = IpAddr::from([192, 0, 2, 1]);
        let hash = passwords.hash(peer, "correct horse".into()).await.expect("hashed");
        assert!(passwords.verify(peer, Some(hash.clone()), "correct horse".into()).await.expect("verified"));
        assert!(!passwords.verify(peer, Some(hash.clone()), "wrong horse".into()).await.expect("verified"));
        assert!(!passwords.verify(peer, None, "correct horse".into()).await.expect("verified"));
        let parameters = |phc: &str| phc.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(parameters(&hash), parameters(NOBODY), "an unknown user must cost the same");
        PasswordHash::new(NOBODY).expect("the stand-in is a valid hash");
    }

    #[test]
    fn weak_ones_are_refused() {
        for bad in ["", "short", "aaaaaaaaaaaa", "administrator", &"x1".repeat(200)] {
            assert!(check_strength("/password", "administrator", bad).is_err(), "{bad}");
        }
        assert!(check_strength("/password", "ann", "four words make one").is_ok());
    }
}
