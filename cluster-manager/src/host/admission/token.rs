//! Tokens that admit hosts: they are made and deleted here. The gateway makes the secret; only its hash comes here.

use super::required;
use crate::{manager::Manager, outcome::store_outcome};
use domain::{HostTokenId, Name, Problem, Timestamp};
use operation::{Activity, commit_problem, read_problem};
use service_kit::context::CallContext;
use store::Unit;

/// A second to thirty days.
const TTL_SECS: std::ops::RangeInclusive<u64> = 1..=30 * 86_400;

#[derive(Debug)]
pub struct TokenRequest {
    pub id: HostTokenId,
    pub secret_sha256: String,
    /// `None`: the token admits any one host, under the name that it gives itself.
    pub host_name: Option<Name>,
    pub zone: Option<Name>,
    pub ttl_secs: u64,
}

#[derive(Debug)]
pub struct CreatedToken {
    pub id: HostTokenId,
    pub expires_at: Timestamp,
    pub ca_sha256: String,
}

#[derive(Debug)]
pub struct DeletedToken;

pub async fn create(manager: &Manager, context: &CallContext, request: TokenRequest) -> Result<CreatedToken, Problem> {
    let ca_sha256 = required(manager.admission.as_deref())?.ca_sha256()?;
    if !TTL_SECS.contains(&request.ttl_secs) {
        return Err(Problem::invalid("/ttl_secs", "must be 1 second to 30 days"));
    }
    let (id, now) = (request.id, Timestamp::now());
    let expires_at = now.plus_secs(request.ttl_secs);
    let created = CreatedToken { id, expires_at, ca_sha256 };
    if context.dry_run {
        return Ok(created);
    }
    let host = request.host_name.as_ref().map_or_else(|| "any one host".to_owned(), |name| format!("host {name}"));
    let mut unit = Unit::new().op(store::HostTokenInsert {
        id,
        secret_hash: request.secret_sha256,
        host_name: request.host_name,
        zone: request.zone,
        created_by: context.principal_name.clone(),
        created_at: now,
        expires_at,
    });
    store_outcome(&mut unit, context, &created, now);
    Activity::accepted("host_token", id, "create", format!("a token that admits {host} until {expires_at}"))
        .with_data(serde_json::json!({ "expires_at": expires_at }))
        .record(&mut unit, context, now);
    manager.store.commit(unit).await.map_err(commit_problem)?;
    Ok(created)
}

pub async fn delete(manager: &Manager, context: &CallContext, id: HostTokenId) -> Result<DeletedToken, Problem> {
    let found = manager.store.host_token_find(id).await.map_err(read_problem)?;
    found.ok_or_else(|| Problem::not_found("host token", id))?;
    if context.dry_run {
        return Ok(DeletedToken);
    }
    let now = Timestamp::now();
    let mut unit = Unit::new().op(store::HostTokenDelete { id });
    store_outcome(&mut unit, context, &DeletedToken, now);
    let message = "the token admits no host any more; the host that it has admitted stays";
    Activity::accepted("host_token", id, "delete", message).record(&mut unit, context, now);
    manager.store.commit(unit).await.map_err(commit_problem)?;
    Ok(DeletedToken)
}
