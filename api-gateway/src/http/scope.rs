//! What the edge knows of one request, shared with the extractors: they fill in what only they learn (who asks, which route).

use axum::extract::MatchedPath;
use http::request::Parts;
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
    /// What the rate limiter said, for the answer's headers.
    pub rate: OnceLock<RateState>,
}

#[derive(Debug, Clone, Copy)]
pub struct RateState {
    pub limit_per_second: u32,
    pub remaining: u32,
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
