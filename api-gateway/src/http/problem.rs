//! The one place that turns a [`Problem`] into an HTTP answer (RFC 9457).
//!
//! A route returns [`ApiError`]; its response carries the problem as an extension and no body. The edge, which alone knows the request
//! id, renders it. The edge also renders every other answer of 400 and above (axum's rejections, its 404 and 405), so that no error
//! body of another shape can leave the server whoever made it.

use crate::failure::ApiError;
use axum::response::{IntoResponse, Response};
use domain::{ErrorKind, FieldError, Problem, explain::PlacementRecord};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

pub type ApiResult<T = Response> = Result<T, ApiError>;

/// Carried in a response's extensions from the route to the edge.
#[derive(Clone, Debug)]
pub struct PendingProblem(pub Box<Problem>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = status_of(&self.0);
        response.extensions_mut().insert(PendingProblem(self.0));
        response
    }
}

fn status_of(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// `urn:iaas:problem:<code>`.
    #[serde(rename = "type")]
    pub type_uri: String,
    pub title: &'a str,
    pub status: u16,
    /// The code is stable; docs/errors.md lists all codes.
    pub code: &'a str,
    /// What failed, on which object.
    pub detail: &'a str,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'a str>,
    pub request_id: &'a str,
    /// Each wrong field: a JSON pointer into the body, or the name of a query parameter or header.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    #[schema(value_type = Vec<FieldErrorView>)]
    pub errors: &'a [FieldError],
    /// For a refused placement (507): which hosts were rejected and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub explain: Option<&'a PlacementRecord>,
}

/// One wrong field.
#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
pub struct FieldErrorView {
    pub field: String,
    pub detail: String,
}

#[must_use]
pub fn render(problem: &Problem, request_id: &str) -> Response {
    let status = status_of(problem);
    let document = ProblemDocument {
        type_uri: format!("urn:iaas:problem:{}", problem.code),
        title: problem.kind.title(),
        status: status.as_u16(),
        code: &problem.code,
        detail: &problem.detail,
        hint: problem.hint.as_deref(),
        request_id,
        errors: &problem.errors,
        explain: problem.explain.as_ref(),
    };
    // Only strings and numbers: this serialises, or the problem is not ours to word.
    let body = serde_json::to_vec(&document).unwrap_or_else(|_| br#"{"status":500,"code":"internal"}"#.to_vec());
    let mut response = Response::new(axum::body::Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    if let Some(secs) = problem.retry_after_secs {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if problem.kind == ErrorKind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"iaas\""));
    }
    response
}

/// The problem for an answer that some library made without one.
#[must_use]
pub fn for_status(status: StatusCode, method: &http::Method, path: &str) -> Problem {
    let shown: String = path.chars().take(200).collect();
    match status {
        StatusCode::NOT_FOUND => {
            Problem::new(ErrorKind::NotFound, "route_not_found", format!("there is no route for {shown}"))
                .with_hint("GET /openapi.json describes all routes")
        }
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(
            ErrorKind::MethodNotAllowed,
            "method_not_allowed",
            format!("{shown} doesn't support the method {method}"),
        )
        .with_hint("the header Allow names the methods"),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            ErrorKind::PayloadTooLarge,
            "payload_too_large",
            "the request's body is larger than this route accepts",
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(
            ErrorKind::UnsupportedMediaType,
            "unsupported_media_type",
            "the request's Content-Type is not one that this route accepts",
        ),
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => timed_out(),
        StatusCode::SERVICE_UNAVAILABLE => Problem::unavailable("the service can't answer now"),
        other if other.is_client_error() => {
            Problem::new(ErrorKind::InvalidArgument, "invalid_argument", "the request is not valid HTTP for this route")
        }
        _ => Problem::internal(),
    }
}

#[must_use]
pub fn timed_out() -> Problem {
    Problem::new(ErrorKind::DeadlineExceeded, "request_timeout", "the request took longer than the server allows")
        .with_hint("its outcome is unknown: repeat it with the same Idempotency-Key, or read the object")
}
