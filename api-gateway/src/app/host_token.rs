//! Tokens that admit hosts, and hosts that join. The cluster-manager owns both.
//!
//! A token's secret is made of its id with this installation's master key: so a repeat with the same `Idempotency-Key` shows the same
//! token, and nothing that could admit a host lies in the database.

use crate::{
    app::{
        App,
        catalog::shown,
        idempotency::IdempotencyRecord,
        intent::Intent,
        plan::{Done, Plan},
    },
    auth::caller::Caller,
    config::ApiConfig,
    failure::ApiError,
};
use domain::{HostId, HostTokenId, Name, Problem, Timestamp, host::AgentRole, join::JoinToken};
use proto::cluster::v1 as pb;
use service_kit::{context::CallContext, host_cert::sha256_hex};
use std::net::IpAddr;
use store::HostTokenRow;

const TTL_SECS: u64 = 3600;
/// Addresses of this machine that a token names, when the API listens on all.
const URLS_MAX: usize = 8;

pub async fn find(app: &App, key: &str) -> Result<HostTokenRow, ApiError> {
    let found = match key.parse::<HostTokenId>() {
        Ok(id) => app.store().host_token_find(id).await?,
        Err(_) => None,
    };
    found.ok_or_else(|| {
        Problem::not_found("host token", shown(key))
            .with_hint("`iaasctl host token list` shows the existing tokens")
            .into()
    })
}

/// A new token, shown once.
pub struct NewHostToken {
    pub id: HostTokenId,
    pub token: String,
    pub expires_at: Timestamp,
}

/// `name`: the only host that it admits. `zone`: where a new host is put.
pub async fn create(
    app: &App,
    caller: &Caller,
    name: Option<Name>,
    zone: Option<Name>,
    ttl_secs: Option<u64>,
    intent: &Intent,
) -> Result<Done<NewHostToken>, ApiError> {
    let record = IdempotencyRecord::open(app, caller, intent, 1, async { Ok(vec![]) }).await?;
    let id = record.ids.first().map(|id| HostTokenId(*id)).ok_or_else(Problem::internal)?;
    let secret = app.auth().keyring.master().mark(&format!("host token {id}"));
    let request = pb::CreateHostTokenRequest {
        token_id: id.to_string(),
        secret_sha256: sha256_hex(secret.as_bytes()),
        host_name: name.as_ref().map(ToString::to_string).unwrap_or_default(),
        zone: zone.as_ref().map(ToString::to_string).unwrap_or_default(),
        ttl_secs: ttl_secs.unwrap_or(TTL_SECS),
    };
    let answer = app.cluster().create_host_token(record.request(request)).await;
    let answer = answer.map_err(|status| record.refused(status))?.into_inner();
    let expires_at = Timestamp(answer.expires_at);
    if intent.dry_run {
        let whom = name.as_ref().map_or_else(|| "any one new host".to_owned(), |name| format!("host {name}"));
        let summary = format!("a token would be created that admits {whom} until {expires_at}");
        return Ok(Done::Plan(Plan::of(summary, Vec::new())));
    }
    let token = JoinToken { secret, ca_sha256: answer.ca_sha256, urls: api_urls(&app.config().api) };
    Ok(Done::Change(NewHostToken { id, token: token.to_string(), expires_at }))
}

/// Where hosts find this API, the likeliest first.
fn api_urls(api: &ApiConfig) -> Vec<String> {
    if let Some(url) = &api.public_url {
        return vec![url.clone()];
    }
    let scheme = if api.uses_tls() { "https" } else { "http" };
    if !api.listen.ip().is_unspecified() {
        return vec![format!("{scheme}://{}", api.listen)];
    }
    let mut addresses: Vec<std::net::IpAddr> =
        service_kit::tls::local_names().iter().filter_map(|name| name.parse().ok()).collect();
    // Loopback is for hosts that are this machine; link-local IPv6 needs an interface's name.
    addresses.retain(|ip| !matches!(ip, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local()));
    addresses.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    let port = api.listen.port();
    addresses
        .into_iter()
        .take(URLS_MAX)
        .map(|ip| format!("{scheme}://{}", std::net::SocketAddr::new(ip, port)))
        .collect()
}

pub async fn delete(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    let record =
        IdempotencyRecord::open(app, caller, intent, 0, async { Ok(vec![find(app, key).await?.id.0]) }).await?;
    let id = record.ids.first().map(|id| HostTokenId(*id)).ok_or_else(Problem::internal)?;
    let request = pb::DeleteHostTokenRequest { token_id: id.to_string() };
    app.cluster().delete_host_token(record.request(request)).await.map_err(|status| record.refused(status))?;
    if intent.dry_run {
        let summary = "the token would be deleted; the host that it has admitted stays".to_owned();
        return Ok(Done::Plan(Plan::of(summary, vec![format!("host token {id}")])));
    }
    Ok(Done::Change(()))
}

/// What a host sends to join.
pub struct JoinRequest {
    /// The token's secret. None: the host was admitted before, and the key that signed the request proves it.
    pub secret: Option<String>,
    pub host_id: HostId,
    pub role: AgentRole,
    pub name: String,
    pub csr_pem: String,
}

/// Admits a host that joins. Failures are counted per address.
pub async fn join(
    app: &App,
    request_id: &str,
    peer: IpAddr,
    request: JoinRequest,
) -> Result<pb::AdmitHostResponse, ApiError> {
    // Joins have no user: one counter for each address.
    const NO_USER: &str = "";
    app.auth().joins.attempt(NO_USER, peer)?;
    let context = CallContext { request_id: request_id.to_owned(), ..CallContext::default() };
    let request = pb::AdmitHostRequest {
        // No secret and an empty one are told apart: the hash of an empty one is no token's.
        secret_sha256: request.secret.map(|secret| sha256_hex(secret.as_bytes())).unwrap_or_default(),
        host_id: request.host_id.to_string(),
        role: request.role.as_str().to_owned(),
        name: request.name,
        csr_pem: request.csr_pem,
    };
    let answer = app.cluster().admit_host(context.request(request)).await?.into_inner();
    app.auth().joins.succeeded(NO_USER, peer);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_where_the_api_is() {
        let mut api = ApiConfig { listen: "127.0.0.1:7480".parse().expect("addr"), ..ApiConfig::default() };
        assert_eq!(api_urls(&api), ["http://127.0.0.1:7480"]);
        api.listen = "0.0.0.0:7480".parse().expect("addr");
        let all = api_urls(&api);
        assert!(all.iter().all(|url| url.starts_with("https://") && url.ends_with(":7480")), "{all:?}");
        assert!(all.contains(&"https://127.0.0.1:7480".to_owned()), "{all:?}");
        api.public_url = Some("https://cloud.example".into());
        assert_eq!(api_urls(&api), ["https://cloud.example"]);
    }
}
