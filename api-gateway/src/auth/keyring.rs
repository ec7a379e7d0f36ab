//! The keys that sign access tokens: Ed25519, in the database (the private half wrapped with the master key), rotated.
//!
//! The newest key signs. An older one verifies until the last token it signed has expired. Gateways of one installation share the table:
//! one that meets a `kid` it doesn't know reads the table again, at most once a second, so that neither rotation elsewhere nor a flood of
//! made-up kids costs anything.

use crate::{auth::master_key::MasterKey, config::IdentityConfig, failure::ApiError};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::Timestamp;
use jsonwebtoken::{DecodingKey, EncodingKey};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{SigningKeyInsert, SigningKeyRetire, Store, Unit};
use utoipa::ToSchema;

const RELOAD_EVERY: Duration = Duration::from_secs(1);
/// Clocks of gateways may differ by this much.
pub const LEEWAY_SECS: u64 = 30;

pub struct Keyring {
    master: Arc<MasterKey>,
    rotate_after_secs: u64,
    /// A retired key verifies this long after its retirement.
    verify_for_secs: u64,
    keys: RwLock<Arc<Keys>>,
    reloaded: Mutex<Option<Instant>>,
}

#[derive(Default)]
pub struct Keys {
    signer: Option<Signer>,
    verifiers: HashMap<String, Verifier>,
}

pub struct Signer {
    pub kid: String,
    pub key: EncodingKey,
}

struct Verifier {
    key: DecodingKey,
    public_base64: String,
    valid_until: Option<Timestamp>,
}

/// RFC 7517, RFC 8037.
#[derive(Serialize, ToSchema)]
pub struct Jwk {
    pub kty: &'static str,
    pub crv: &'static str,
    pub alg: &'static str,
    #[serde(rename = "use")]
    pub usage: &'static str,
    pub kid: String,
    /// The public key, base64url.
    pub x: String,
}

#[derive(Serialize, ToSchema)]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

impl Keys {
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    #[must_use]
    pub fn verifier(&self, kid: &str) -> Option<&DecodingKey> {
        let found = self.verifiers.get(kid)?;
        let valid = found.valid_until.is_none_or(|until| until > Timestamp::now());
        valid.then_some(&found.key)
    }
}

fn purpose(kid: &str) -> String {
    format!("signing key {kid}")
}

impl Keyring {
    #[must_use]
    pub fn new(master: Arc<MasterKey>, config: &IdentityConfig) -> Self {
        Self {
            master,
            rotate_after_secs: config.signing_key_days * 86_400,
            verify_for_secs: config.access_token_secs + 2 * LEEWAY_SECS,
            keys: RwLock::new(Arc::default()),
            reloaded: Mutex::new(None),
        }
    }

    #[must_use]
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read())
    }

    /// The public halves, for whoever verifies our tokens.
    #[must_use]
    pub fn jwks(&self) -> Jwks {
        let keys = self.keys();
        let now = Timestamp::now();
        let valid = keys.verifiers.iter().filter(|(_, v)| v.valid_until.is_none_or(|until| until > now));
        let mut list: Vec<Jwk> = valid
            .map(|(kid, v)| Jwk {
                kty: "OKP",
                crv: "Ed25519",
                alg: "EdDSA",
                usage: "sig",
                kid: kid.clone(),
                x: v.public_base64.clone(),
            })
            .collect();
        list.sort_by(|a, b| a.kid.cmp(&b.kid));
        Jwks { keys: list }
    }

    /// Reads the table. A key that another master key wrapped verifies, but doesn't sign.
    pub async fn reload(&self, store: &Store) -> Result<(), ApiError> {
        let mut keys = Keys::default();
        let mut newest: Option<(Timestamp, Signer)> = None;
        for row in store.signing_key_list().await? {
            let Ok(public) = BASE64_URL_SAFE_NO_PAD.decode(&row.public_key) else { continue };
            let verifier = Verifier {
                key: DecodingKey::from_ed_der(&public),
                public_base64: row.public_key.clone(),
                valid_until: row.retired_at.map(|at| at.plus_secs(self.verify_for_secs)),
            };
            if row.retired_at.is_none() && newest.as_ref().is_none_or(|(at, _)| row.created_at > *at) {
                match self.master.unwrap(&purpose(&row.kid), &row.wrapped_secret) {
                    Ok(der) => {
                        let key = EncodingKey::from_ed_der(&der);
                        newest = Some((row.created_at, Signer { kid: row.kid.clone(), key }));
                    }
                    Err(error) => tracing::warn!(kid = row.kid, %error, "a signing key can't be used"),
                }
            }
            keys.verifiers.insert(row.kid, verifier);
        }
        keys.signer = newest.map(|(_, signer)| signer);
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }

    /// Reads the table again for a `kid` that isn't known, unless that was done just now.
    pub async fn reload_for_unknown(&self, store: &Store) -> Result<(), ApiError> {
        {
            let mut reloaded = self.reloaded.lock();
            if reloaded.is_some_and(|at| at.elapsed() < RELOAD_EVERY) {
                return Ok(());
            }
            *reloaded = Some(Instant::now());
        }
        self.reload(store).await
    }

    /// Makes a new key when there is none that signs or the newest is old; retires the ones before. Run at the start and by a timer.
    pub async fn rotate(&self, store: &Store) -> Result<(), ApiError> {
        self.reload(store).await?;
        let now = Timestamp::now();
        let rows = store.signing_key_list().await?;
        let current = self.keys().signer().map(|s| s.kid.clone());
        let born = rows.iter().find(|row| Some(&row.kid) == current.as_ref()).map(|row| row.created_at);
        if born.is_some_and(|at| at.plus_secs(self.rotate_after_secs) > now) {
            return Ok(());
        }
        let fail = |cause: &(dyn std::error::Error + 'static)| ApiError::internal("a signing key can't be made", cause);
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).map_err(|e| fail(&e))?;
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|e| fail(&e))?;
        let kid = uuid::Uuid::now_v7().simple().to_string();
        let mut unit = Unit::new().op(SigningKeyInsert {
            kid: kid.clone(),
            wrapped_secret: self.master.wrap(&purpose(&kid), pkcs8.as_ref()),
            public_key: BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
            created_at: now,
        });
        for old in rows.into_iter().filter(|row| row.retired_at.is_none()) {
            unit.push(SigningKeyRetire { kid: old.kid, retired_at: now });
        }
        store.commit(unit).await?;
        tracing::info!(kid, "a new key signs access tokens");
        self.reload(store).await
    }

    /// Wraps what must be kept in the database but not be readable there.
    #[must_use]
    pub fn master(&self) -> &MasterKey {
        &self.master
    }
}
