//! Access tokens and console tickets: JWTs signed with EdDSA, short-lived, verified without the database, by every gateway of the installation.
//!
//! Only EdDSA is accepted, whatever the header says (`none`, or an HMAC "signed" with the public key, are the classics), and only keys
//! of our own ring.

use crate::{
    auth::keyring::{Keyring, LEEWAY_SECS},
    failure::ApiError,
};
use domain::{ApiKeyId, ErrorKind, InstanceId, OperationId, Problem, ProjectId, Timestamp, UserId};
use jsonwebtoken::{Algorithm, Header, Validation, errors::ErrorKind as JwtError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
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

/// What a console ticket says. It is a token of its own kind: neither opens what the other does.
#[derive(Debug, Serialize, Deserialize)]
pub struct TicketClaims {
    pub iss: String,
    pub aud: String,
    /// The user's id, and the API key's if it was requested with one.
    pub sub: UserId,
    pub key: Option<ApiKeyId>,
    pub sv: i64,
    pub project: ProjectId,
    pub instance: InstanceId,
    /// Of the request for the ticket: the session's calls carry it.
    pub request_id: String,
    pub exp: i64,
    /// What makes it work once.
    pub jti: OperationId,
}

/// What tokens are for.
const API: &str = ISSUER;
const CONSOLE: &str = "iaas-console";

fn in_secs(lifetime_secs: u64) -> i64 {
    Timestamp::now().0 / 1000 + i64::try_from(lifetime_secs).unwrap_or(900)
}

/// A token for `user_id`, valid from now for `lifetime_secs` unless the user's session version rises before.
pub fn issue(keyring: &Keyring, user_id: UserId, session_version: i64, lifetime_secs: u64) -> Result<String, ApiError> {
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: API.to_owned(),
        sub: user_id,
        sv: session_version,
        iat: in_secs(0),
        exp: in_secs(lifetime_secs),
        jti: uuid::Uuid::new_v4().simple().to_string(),
    };
    sign(keyring, &claims)
}

/// Whom a ticket is for, and for what.
pub struct TicketRequest<'a> {
    pub user_id: UserId,
    pub session_version: i64,
    pub api_key_id: Option<ApiKeyId>,
    pub project_id: ProjectId,
    pub instance_id: InstanceId,
    pub request_id: &'a str,
}

/// A ticket for the console of an instance, valid from now for `lifetime_secs`.
pub fn issue_ticket(keyring: &Keyring, request: &TicketRequest<'_>, lifetime_secs: u64) -> Result<String, ApiError> {
    let claims = TicketClaims {
        iss: ISSUER.to_owned(),
        aud: CONSOLE.to_owned(),
        sub: request.user_id,
        key: request.api_key_id,
        sv: request.session_version,
        project: request.project_id,
        instance: request.instance_id,
        request_id: request.request_id.to_owned(),
        exp: in_secs(lifetime_secs),
        jti: OperationId::new(),
    };
    sign(keyring, &claims)
}

fn sign(keyring: &Keyring, claims: &impl Serialize) -> Result<String, ApiError> {
    let keys = keyring.keys();
    let signer = keys.signer().ok_or_else(|| Problem::unavailable("there is no key to sign tokens with yet"))?;
    let header = Header { kid: Some(signer.kid.clone()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, claims, &signer.key)
        .map_err(|error| ApiError::internal("a token can't be signed", &error))
}

/// The claims of an access token of ours that hasn't expired.
pub async fn verify(keyring: &Keyring, store: &Store, token: &str) -> Result<Claims, ApiError> {
    verify_for(API, keyring, store, token).await
}

/// The claims of a console ticket of ours that hasn't expired.
pub async fn verify_ticket(keyring: &Keyring, store: &Store, token: &str) -> Result<TicketClaims, ApiError> {
    verify_for(CONSOLE, keyring, store, token).await
}

async fn verify_for<C: DeserializeOwned>(
    audience: &str,
    keyring: &Keyring,
    store: &Store,
    token: &str,
) -> Result<C, ApiError> {
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
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    match jsonwebtoken::decode::<C>(token, key, &validation) {
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
