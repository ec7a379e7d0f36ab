//! Access tokens: JWTs signed with EdDSA, short-lived, verified without the database.
//!
//! Only EdDSA is accepted, whatever the header says (`none`, or an HMAC "signed" with the public key, are the classics), and only keys
//! of our own ring.

use crate::{
    auth::keyring::{Keyring, LEEWAY_SECS},
    failure::ApiError,
};
use domain::{ErrorKind, Problem, Timestamp, UserId};
use jsonwebtoken::{Algorithm, Header, Validation, errors::ErrorKind as JwtError};
use serde::{Deserialize, Serialize};
use store::Store;

const ISSUER: &str = "iaas";

#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    /// The user's id.
    pub sub: UserId,
    /// The user's session version. The token ends when it rises.
    pub sv: i64,
    /// Seconds since the epoch.
    pub iat: i64,
    pub exp: i64,
    pub jti: String,
}

/// A token for `user_id`, valid from now for `lifetime_secs` unless the user's session version rises before.
pub fn issue(keyring: &Keyring, user_id: UserId, session_version: i64, lifetime_secs: u64) -> Result<String, ApiError> {
    let keys = keyring.keys();
    let signer = keys.signer().ok_or_else(|| Problem::unavailable("there is no key to sign tokens with yet"))?;
    let now = Timestamp::now().0 / 1000;
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        sub: user_id,
        sv: session_version,
        iat: now,
        exp: now + i64::try_from(lifetime_secs).unwrap_or(900),
        jti: uuid::Uuid::new_v4().simple().to_string(),
    };
    let header = Header { kid: Some(signer.kid.clone()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, &claims, &signer.key)
        .map_err(|error| ApiError::internal("a token can't be signed", &error))
}

/// The claims of a token of ours that hasn't expired.
pub async fn verify(keyring: &Keyring, store: &Store, token: &str) -> Result<Claims, ApiError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| invalid())?;
    let (Algorithm::EdDSA, Some(kid)) = (header.alg, header.kid) else { return Err(invalid().into()) };
    if keyring.keys().verifier(&kid).is_none() {
        keyring.reload_for_unknown(store).await?;
    }
    let keys = keyring.keys();
    let key = keys.verifier(&kid).ok_or_else(invalid)?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = LEEWAY_SECS;
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    match jsonwebtoken::decode::<Claims>(token, key, &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) if matches!(error.kind(), JwtError::ExpiredSignature) => {
            Err(Problem::new(ErrorKind::Unauthenticated, "token_expired", "the access token has expired")
                .with_hint("get a new one with the refresh token: POST /v1/auth/refresh")
                .into())
        }
        Err(_) => Err(invalid().into()),
    }
}

#[must_use]
pub fn invalid() -> Problem {
    Problem::new(ErrorKind::Unauthenticated, "token_invalid", "the token isn't from this installation, or was revoked")
        .with_hint("log in again: iaasctl login, or POST /v1/auth/login")
}
