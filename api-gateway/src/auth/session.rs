//! Logins and refresh tokens.
//!
//! A refresh token is used once and gives the next one of its family. One that comes twice was copied: whoever holds the newer one may
//! be the thief, so the whole family ends and the user logs in again. Only SHA-256 of the tokens are stored.

use crate::{
    auth::{Auth, api_key, audit_fold::session_entry, token},
    failure::ApiError,
};
use domain::{ErrorKind, Name, Problem, Timestamp, UserId};
use std::net::IpAddr;
use store::{
    AuditInsert, CommitError, Guard, RefreshFamilyRevoke, RefreshTokenInsert, RefreshTokenUse, RefreshUserTrim, Unit,
    UserRow,
};

pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
    pub expires_in: u64,
}

const MARK: &str = "rt_";

fn wrong_login() -> Problem {
    Problem::new(ErrorKind::Unauthenticated, "login_failed", "there is no such user, or the password is wrong")
}

fn wrong_refresh() -> Problem {
    Problem::new(ErrorKind::Unauthenticated, "refresh_token_invalid", "the refresh token is no longer valid")
        .with_hint("log in again: iaasctl login, or POST /v1/auth/login")
}

/// A refresh token of `family` as a row, and its text.
fn refresh_row(auth: &Auth, user_id: UserId, family: &str) -> (RefreshTokenInsert, String) {
    let text = format!("{MARK}{}", api_key::random_hex::<32>());
    let now = Timestamp::now();
    let row = RefreshTokenInsert {
        secret_hash: api_key::sha256_hex(text.as_bytes()),
        family: family.to_owned(),
        user_id,
        expires_at: now.plus_secs(auth.lifetimes.refresh_token_hours * 3600),
        created_at: now,
    };
    (row, text)
}

fn tokens(auth: &Auth, user: &UserRow, refresh_token: String) -> Result<Tokens, ApiError> {
    let expires_in = auth.lifetimes.access_token_secs;
    let access_token = token::issue(&auth.keyring, user.id, user.session_version, expires_in)?;
    Ok(Tokens { access_token, refresh_token, expires_in })
}

/// Password login. A wrong name and a wrong password cost and say the same: neither waits for a commit, the audit log's line is written later.
pub async fn login(
    auth: &Auth,
    name: &str,
    password: String,
    peer: IpAddr,
    request_id: &str,
) -> Result<Tokens, ApiError> {
    auth.throttle.attempt(name, peer)?;
    let user = match name.parse::<Name>() {
        Ok(name) => auth.store.user_find_by_name(name.as_str()).await?,
        Err(_) => None,
    };
    let stored = user.as_ref().map(|u| u.password_hash.clone());
    let matches = auth.passwords.verify(peer, stored, password).await?;
    let Some(user) = user else { return Err(wrong_login().into()) };
    let user_name = user.name.to_string();
    if !matches || !user.enabled {
        let detail = format!("{} from {peer}", if matches { "the user is disabled" } else { "wrong password" });
        auth.audit.refused(session_entry((user.id, &user_name), "session.login", "denied", &detail, request_id));
        return Err(wrong_login().into());
    }
    auth.throttle.succeeded(name, peer);
    let family = uuid::Uuid::now_v7().to_string();
    let (row, text) = refresh_row(auth, user.id, &family);
    let detail = format!("from {peer}");
    let audit = AuditInsert(session_entry((user.id, &user_name), "session.login", "accepted", &detail, request_id));
    match auth.store.commit(Unit::new().op(row).op(RefreshUserTrim { user_id: user.id }).op(audit)).await {
        Ok(()) => tokens(auth, &user, text),
        // Whoever is to free room must get in: with an access token alone, which lasts for a while.
        Err(error) if error.disk_full() => {
            tracing::warn!(user = user_name, "a login without a refresh token: the database's disk is full");
            tokens(auth, &user, String::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// The next pair of tokens for a refresh token, which is used up.
pub async fn refresh(auth: &Auth, text: &str, request_id: &str) -> Result<Tokens, ApiError> {
    let hash = api_key::sha256_hex(text.as_bytes());
    let found = auth.store.refresh_token_find(&hash).await?.ok_or_else(wrong_refresh)?;
    let now = Timestamp::now();
    if found.used_at.is_some() {
        return Err(reused(auth, found.user_id, &found.family, request_id).await?);
    }
    let user = auth.store.user_find(found.user_id).await?.filter(|u| u.enabled);
    let Some(user) = user.filter(|_| found.expires_at > now) else { return Err(wrong_refresh().into()) };
    auth.limits.principal(user.id)?;
    let (row, next) = refresh_row(auth, user.id, &found.family);
    let unit = Unit::new().op(RefreshTokenUse { secret_hash: hash, used_at: now }).op(row);
    match auth.store.commit(unit.op(RefreshUserTrim { user_id: user.id })).await {
        Ok(()) => tokens(auth, &user, next),
        Err(CommitError::Guard(Guard::RefreshToken)) => {
            Err(reused(auth, found.user_id, &found.family, request_id).await?)
        }
        Err(other) => Err(other.into()),
    }
}

async fn reused(auth: &Auth, user_id: UserId, family: &str, request_id: &str) -> Result<ApiError, ApiError> {
    let detail = "a refresh token came twice: its family is revoked";
    tracing::warn!(%user_id, "{detail}");
    let audit = AuditInsert(session_entry((user_id, ""), "session.refresh", "denied", detail, request_id));
    auth.store.commit(Unit::new().op(RefreshFamilyRevoke { family: family.to_owned() }).op(audit)).await?;
    Ok(Problem::new(
        ErrorKind::Unauthenticated,
        "refresh_token_reused",
        "this refresh token was used before; for safety all tokens of that login are revoked",
    )
    .with_hint("log in again; if you didn't use the token twice, change your password")
    .into())
}

/// Ends the login that the refresh token belongs to. Knowing nothing of it is fine: it is over either way.
pub async fn logout(auth: &Auth, text: &str, request_id: &str) -> Result<(), ApiError> {
    let hash = api_key::sha256_hex(text.as_bytes());
    if let Some(found) = auth.store.refresh_token_find(&hash).await? {
        let audit = AuditInsert(session_entry((found.user_id, ""), "session.logout", "accepted", "", request_id));
        auth.store.commit(Unit::new().op(RefreshFamilyRevoke { family: found.family }).op(audit)).await?;
    }
    Ok(())
}
