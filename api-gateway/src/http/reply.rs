//! Answers: JSON serialised once, with the generation as ETag where there is one.

use crate::{failure::ApiError, http::problem::ApiResult};
use axum::{body::Body, response::Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// `value` as JSON.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> ApiResult {
    let mut body = Vec::with_capacity(1024);
    serde_json::to_writer(&mut body, value).map_err(|e| ApiError::internal("an answer doesn't serialise", &e))?;
    Ok(raw_json(status, body.into()))
}

/// Bytes that are JSON already.
#[must_use]
pub fn raw_json(status: StatusCode, body: bytes::Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// An object with its generation as ETag.
pub fn object<T: Serialize + ?Sized>(status: StatusCode, generation: i64, value: &T) -> ApiResult {
    let mut response = json(status, value)?;
    response.headers_mut().insert(header::ETAG, super::etag::render(generation));
    Ok(response)
}

#[must_use]
pub fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
