//! What a mutation carries beside its body: the idempotency key, `If-Match`, `dry_run`.

use crate::{
    app::intent::{IdempotencyKey, Intent},
    failure::ApiError,
    http::{body, etag, query},
};
use axum::extract::{FromRequest, FromRequestParts, Request};
use domain::{ErrorKind, Problem, limits};
use http::{HeaderMap, Method, Uri, request::Parts};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const CONTENT_SHA256: &str = "x-content-sha256";
const PROJECT_HEADER: &str = "x-iaas-project";

fn read(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Result<Intent, Problem> {
    let dry_run = match query::find(uri.query(), "dry_run").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Problem::invalid("dry_run", "true or false is expected")),
    };
    let key = match headers.get(IDEMPOTENCY_KEY) {
        // A dry run changes nothing that could be repeated.
        Some(_) | None if dry_run => None,
        None => None,
        Some(value) => {
            let valid = value.to_str().ok().filter(|t| {
                (1..=limits::IDEMPOTENCY_KEY_BYTES).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic())
            });
            let key = valid.ok_or_else(|| {
                Problem::new(
                    ErrorKind::InvalidArgument,
                    "bad_idempotency_key",
                    format!(
                        "Idempotency-Key: 1 to {} visible ASCII characters are expected",
                        limits::IDEMPOTENCY_KEY_BYTES
                    ),
                )
                .with_field("Idempotency-Key", "not 1 to 255 visible ASCII characters")
            })?;
            Some(IdempotencyKey { key: key.to_owned(), request_hash: request_hash(method, uri, headers, body) })
        }
    };
    Ok(Intent { key, if_match: etag::if_match(headers)?, dry_run })
}

fn request_hash(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(method.as_str().as_bytes());
    part(uri.path().as_bytes());
    part(headers.get(PROJECT_HEADER).map_or(b"", |v| v.as_bytes()));
    let mut pairs: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or("").as_bytes())
        .filter(|(name, _)| name != "wait" && name != "timeout")
        .collect();
    pairs.sort();
    for (name, value) in pairs {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    part(body);
    // Of a body that isn't read here. What isn't announced is compared by whoever takes the bytes.
    part(headers.get(CONTENT_SHA256).map_or(b"", |v| v.as_bytes()));
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The intent of a request without a body, or with one that the route reads itself.
impl<S: Send + Sync> FromRequestParts<S> for Intent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(read(&parts.method, &parts.uri, &parts.headers, b"")?)
    }
}

/// A mutation: its body and its intent. Comes last among a route's arguments, behind the extractor that authorizes.
pub struct Change<T> {
    pub body: T,
    pub intent: Intent,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Change<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, stream) = request.into_parts();
        let bytes = body::read(stream).await?;
        let intent = read(&parts.method, &parts.uri, &parts.headers, &bytes)?;
        Ok(Self { body: body::parse(&parts.headers, &bytes)?, intent })
    }
}

/// The query parameters of a mutation that has no others.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)]
pub struct MutationParams {
    /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your home project.
    pub project: Option<String>,
    /// Only checks the request and shows the plan; nothing is changed.
    #[serde(default)]
    #[param(required = false)]
    pub dry_run: bool,
}

/// The headers of a mutation, for the API's description; [`Intent`] reads them.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub struct MutationHeaders {
    /// A repeat of the request with the same key gets the first answer. Keys are kept for 24 hours.
    #[param(rename = "Idempotency-Key")]
    pub idempotency_key: Option<String>,
    /// The ETag that the change is based on. If the object has another one by now, the answer is 412.
    #[param(rename = "If-Match")]
    pub if_match: Option<String>,
}

/// The header of a mutation that needs no idempotency key.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)]
pub struct IfMatchHeader {
    /// The ETag that the change is based on. If the object has another one by now, the answer is 412.
    #[param(rename = "If-Match")]
    pub if_match: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &'static str, key: Option<&'static str>, body: &[u8]) -> Result<Intent, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert(IDEMPOTENCY_KEY, http::HeaderValue::from_static(key));
        }
        super::read(&Method::POST, &Uri::from_static(uri), &headers, body)
    }

    #[test]
    fn the_hash_covers_what_the_request_means() {
        let hash = |uri, body: &[u8]| read(uri, Some("k"), body).expect("valid").key.expect("key").request_hash;
        let base = hash("/v1/x?a=1&b=2", b"{}");
        assert_eq!(base, hash("/v1/x?b=2&a=1", b"{}"), "the order of parameters says nothing");
        assert_eq!(base, hash("/v1/x?a=1&b=2&wait=running&timeout=5s", b"{}"), "waiting is no part of the change");
        assert_ne!(base, hash("/v1/x?a=1&b=2", b"{ }"));
        assert_ne!(base, hash("/v1/y?a=1&b=2", b"{}"));
        assert_ne!(hash("/v1/x?a=1b", b""), hash("/v1/x?a1=b", b""), "parts can't run into each other");
    }

    #[test]
    fn keys_and_flags_are_checked() {
        assert_eq!(read("/v1/x", None, b"").expect("none").key, None);
        assert!(read("/v1/x?dry_run=true", Some("k"), b"").expect("dry").key.is_none());
        assert_eq!(read("/v1/x", Some("a b"), b"").expect_err("space").code, "bad_idempotency_key");
        assert_eq!(read("/v1/x", Some(""), b"").expect_err("empty").code, "bad_idempotency_key");
        assert_eq!(read("/v1/x?dry_run=1", None, b"").expect_err("flag").errors[0].field, "dry_run");
    }
}
