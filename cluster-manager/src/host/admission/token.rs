//! Tokens are made and deleted.

use super::admission;
use crate::{
    answer::{self, Deed},
    manager::{Manager, read_problem},
};
use domain::{HostTokenId, Name, Problem, Timestamp};
use proto::{cluster::v1 as pb, convert::parse};
use service_kit::context::CallContext;
use store::Unit;

/// A second to thirty days.
const TTL_SECS: std::ops::RangeInclusive<u64> = 1..=30 * 86_400;

pub async fn create(
    manager: &Manager,
    context: &CallContext,
    request: pb::CreateHostTokenRequest,
) -> Result<pb::CreateHostTokenResponse, Problem> {
    let id: HostTokenId = parse("token_id", &request.token_id)?;
    answer::once(manager, context, run_create(manager, context, id, &request)).await
}

async fn run_create(
    manager: &Manager,
    context: &CallContext,
    id: HostTokenId,
    request: &pb::CreateHostTokenRequest,
) -> Result<pb::CreateHostTokenResponse, Problem> {
    let ca_sha256 = admission(manager)?.ca_sha256()?;
    if !TTL_SECS.contains(&request.ttl_secs) {
        return Err(Problem::invalid("/ttl_secs", "must be 1 second to 30 days"));
    }
    let named = |field: &str, text: &str| match text {
        "" => Ok(None),
        text => text.parse::<Name>().map(Some).map_err(|e| Problem::invalid(field, e.to_string())),
    };
    let (host_name, zone) = (named("/name", &request.host_name)?, named("/zone", &request.zone)?);
    let now = Timestamp::now();
    let expires_at = now.plus_secs(request.ttl_secs);
    let response = pb::CreateHostTokenResponse { token_id: id.to_string(), expires_at: expires_at.0, ca_sha256 };
    if context.dry_run {
        return Ok(response);
    }
    let whom = host_name.as_ref().map_or_else(|| "any one host".to_owned(), |name| format!("host {name}"));
    let mut unit = Unit::new().op(store::HostTokenInsert {
        id,
        secret_hash: request.secret_sha256.clone(),
        host_name,
        zone,
        created_by: context.principal_name.clone(),
        created_at: now,
        expires_at,
    });
    answer::remember(&mut unit, context, &response, now);
    Deed {
        project_id: None,
        noun: "host_token",
        object_id: id.to_string(),
        verb: "create",
        message: format!("a token that admits {whom} until {expires_at}"),
        data: serde_json::json!({ "expires_at": expires_at }),
        now,
        context,
    }
    .record(&mut unit);
    manager.store.commit(unit).await.map_err(|e| answer::commit_problem(&e))?;
    Ok(response)
}

pub async fn delete(
    manager: &Manager,
    context: &CallContext,
    request: pb::DeleteHostTokenRequest,
) -> Result<pb::DeleteHostTokenResponse, Problem> {
    let id: HostTokenId = parse("token_id", &request.token_id)?;
    answer::once(manager, context, run_delete(manager, context, id)).await
}

async fn run_delete(
    manager: &Manager,
    context: &CallContext,
    id: HostTokenId,
) -> Result<pb::DeleteHostTokenResponse, Problem> {
    let found = manager.store.host_token_find(id).await.map_err(|e| read_problem(&e))?;
    found.ok_or_else(|| Problem::not_found("host token", id))?;
    let response = pb::DeleteHostTokenResponse {};
    if context.dry_run {
        return Ok(response);
    }
    let now = Timestamp::now();
    let mut unit = Unit::new().op(store::HostTokenDelete { id });
    answer::remember(&mut unit, context, &response, now);
    Deed {
        project_id: None,
        noun: "host_token",
        object_id: id.to_string(),
        verb: "delete",
        message: "the token admits nobody any more; the host it has admitted stays".to_owned(),
        data: serde_json::Value::Null,
        now,
        context,
    }
    .record(&mut unit);
    manager.store.commit(unit).await.map_err(|e| answer::commit_problem(&e))?;
    Ok(response)
}
