//! What the edge knows of one request, shared with the extractors: they fill in what only they find out (the caller, the route).

use crate::{
    app::App,
    auth::{Auth, caller::Caller, rate_limit::RateState},
    failure::ApiError,
};
use axum::extract::{FromRef, MatchedPath};
use http::{Method, request::Parts};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, OnceLock},
};

#[derive(Debug)]
pub struct RequestScope {
    pub request_id: String,
    pub peer: IpAddr,
    /// The route's pattern, for metrics and logs: set by the first extractor that runs.
    pub route: OnceLock<MatchedPath>,
    /// `user:<id>` or `api_key:<id>`, once known.
    pub principal: OnceLock<String>,
    /// What the rate limiter allows, for the answer's headers.
    pub rate: OnceLock<RateState>,
}

pub type Scope = Arc<RequestScope>;

impl RequestScope {
    #[must_use]
    pub fn new(request_id: String, peer: IpAddr) -> Scope {
        Arc::new(Self { request_id, peer, route: OnceLock::new(), principal: OnceLock::new(), rate: OnceLock::new() })
    }
}

/// The scope that the edge put there. A router called without the edge (in a unit test) gets one of its own.
#[must_use]
pub fn scope_of(parts: &mut Parts) -> Scope {
    let scope = match parts.extensions.get::<Scope>() {
        Some(scope) => Arc::clone(scope),
        None => {
            let scope = RequestScope::new(uuid::Uuid::now_v7().to_string(), IpAddr::V4(Ipv4Addr::LOCALHOST));
            parts.extensions.insert(Arc::clone(&scope));
            scope
        }
    };
    if let Some(route) = parts.extensions.get::<MatchedPath>() {
        scope.route.get_or_init(|| route.clone());
    }
    scope
}

/// Extractors that authenticate need nothing of the application but this.
impl FromRef<App> for Auth {
    fn from_ref(app: &App) -> Self {
        app.auth().clone()
    }
}

/// The caller whom `token` stands for, within their rate limit. Every API dialect begins with this, wherever it finds the token.
pub async fn known_caller(
    parts: &mut Parts,
    auth: &Auth,
    token: &str,
    project_key: Option<String>,
) -> Result<Caller, ApiError> {
    let scope = scope_of(parts);
    let identity = match auth.identities.resolve(token).await {
        Ok(identity) => identity,
        Err(error) => {
            auth.limits.stranger(scope.peer)?;
            return Err(error);
        }
    };
    scope.principal.get_or_init(|| identity.label.clone());
    if !identity.system_admin
        && let Some(state) = auth.limits.principal(identity.user_id)?
    {
        scope.rate.get_or_init(|| state);
    }
    let mutation = match parts.method {
        Method::GET | Method::HEAD => None,
        _ => Some(format!("{} {}", parts.method, scope.route.get().map_or("", |route| route.as_str()))),
    };
    Ok(Caller { identity, request_id: scope.request_id.clone(), peer: scope.peer, mutation, project_key })
}
