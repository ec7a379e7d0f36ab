//! The one table of errors at the edge: every kind of failure a caller can meet, with its HTTP status, its gRPC code and whether a
//! retry helps. `proto::status` carries a [`Problem`] through gRPC, the gateway renders it as RFC 9457.

use serde::{Deserialize, Serialize};
use std::fmt;

string_enum! {
    pub enum ErrorKind {
        InvalidArgument = "invalid_argument",
        /// An idempotency key was used again with another body.
        KeyReused = "key_reused",
        Unauthenticated = "unauthenticated",
        PermissionDenied = "permission_denied",
        NotFound = "not_found",
        AlreadyExists = "already_exists",
        InvalidState = "invalid_state",
        /// `If-Match` didn't match (412).
        PreconditionFailed = "precondition_failed",
        /// A concurrent change won (409).
        StaleGeneration = "stale_generation",
        PayloadTooLarge = "payload_too_large",
        MethodNotAllowed = "method_not_allowed",
        UnsupportedMediaType = "unsupported_media_type",
        QuotaExceeded = "quota_exceeded",
        NoCapacity = "no_capacity",
        RateLimited = "rate_limited",
        Unavailable = "unavailable",
        DeadlineExceeded = "deadline_exceeded",
        Internal = "internal",
    }
}

/// gRPC status codes by their number in the protocol, so that this crate needs no gRPC library.
pub mod grpc_code {
    pub const INVALID_ARGUMENT: i32 = 3;
    pub const DEADLINE_EXCEEDED: i32 = 4;
    pub const NOT_FOUND: i32 = 5;
    pub const ALREADY_EXISTS: i32 = 6;
    pub const PERMISSION_DENIED: i32 = 7;
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    pub const FAILED_PRECONDITION: i32 = 9;
    pub const ABORTED: i32 = 10;
    pub const UNIMPLEMENTED: i32 = 12;
    pub const INTERNAL: i32 = 13;
    pub const UNAVAILABLE: i32 = 14;
    pub const UNAUTHENTICATED: i32 = 16;
}

/// Whether sending the same request again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    No,
    /// A retry helps after the object was read again.
    ReRead,
    /// A retry helps once something has changed, such as free capacity.
    Later,
    Yes,
    /// A retry is safe only if the request is idempotent, since its outcome is unknown.
    IfIdempotent,
}

impl ErrorKind {
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::KeyReused => 422,
            Self::Unauthenticated => 401,
            Self::PermissionDenied | Self::QuotaExceeded => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyExists | Self::InvalidState | Self::StaleGeneration => 409,
            Self::PreconditionFailed => 412,
            Self::PayloadTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::NoCapacity => 507,
        }
    }

    #[must_use]
    pub fn grpc_code(self) -> i32 {
        match self {
            Self::InvalidArgument | Self::KeyReused | Self::PayloadTooLarge | Self::UnsupportedMediaType => {
                grpc_code::INVALID_ARGUMENT
            }
            Self::Unauthenticated => grpc_code::UNAUTHENTICATED,
            Self::PermissionDenied => grpc_code::PERMISSION_DENIED,
            Self::NotFound => grpc_code::NOT_FOUND,
            Self::AlreadyExists => grpc_code::ALREADY_EXISTS,
            Self::InvalidState => grpc_code::FAILED_PRECONDITION,
            Self::PreconditionFailed | Self::StaleGeneration => grpc_code::ABORTED,
            Self::MethodNotAllowed => grpc_code::UNIMPLEMENTED,
            Self::QuotaExceeded | Self::NoCapacity | Self::RateLimited => grpc_code::RESOURCE_EXHAUSTED,
            Self::Unavailable => grpc_code::UNAVAILABLE,
            Self::DeadlineExceeded => grpc_code::DEADLINE_EXCEEDED,
            Self::Internal => grpc_code::INTERNAL,
        }
    }

    #[must_use]
    pub fn retry(self) -> Retry {
        match self {
            Self::StaleGeneration | Self::PreconditionFailed => Retry::ReRead,
            Self::NoCapacity => Retry::Later,
            Self::RateLimited | Self::Unavailable => Retry::Yes,
            Self::DeadlineExceeded => Retry::IfIdempotent,
            Self::InvalidArgument
            | Self::KeyReused
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::NotFound
            | Self::AlreadyExists
            | Self::InvalidState
            | Self::PayloadTooLarge
            | Self::MethodNotAllowed
            | Self::UnsupportedMediaType
            | Self::QuotaExceeded
            | Self::Internal => Retry::No,
        }
    }

    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::InvalidArgument => "The request is not valid",
            Self::KeyReused => "The idempotency key was used for another request",
            Self::Unauthenticated => "Authentication is required",
            Self::PermissionDenied => "You are not allowed to do this",
            Self::NotFound => "There is no such object",
            Self::AlreadyExists => "The object already exists",
            Self::InvalidState => "The object's state doesn't allow this",
            Self::PreconditionFailed => "The object changed since you read it",
            Self::StaleGeneration => "The object changed meanwhile",
            Self::PayloadTooLarge => "The request is too large",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::UnsupportedMediaType => "The media type is not supported",
            Self::QuotaExceeded => "The project's quota is reached",
            Self::NoCapacity => "No host has enough free capacity",
            Self::RateLimited => "Too many requests",
            Self::Unavailable => "The service is temporarily unavailable",
            Self::DeadlineExceeded => "The request took too long",
            Self::Internal => "Internal error",
        }
    }
}

/// A field of a request that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// A JSON pointer, or the name of the query parameter or header.
    pub field: String,
    pub detail: String,
}

/// What a caller is answered. `code` is stable and documented in docs/errors.md; `detail` says what failed on which object; `hint` says
/// what to do next. A problem never carries what only operators should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub kind: ErrorKind,
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The record of a refused placement (507).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<crate::explain::PlacementRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u64>,
}

impl Problem {
    #[must_use]
    pub fn new(kind: ErrorKind, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.into(),
            detail: detail.into(),
            hint: None,
            errors: Vec::new(),
            explain: None,
            retry_after_secs: None,
        }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError { field: field.into(), detail: detail.into() });
        self
    }

    #[must_use]
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        Self::new(ErrorKind::InvalidArgument, "invalid_argument", format!("{field}: {detail}"))
            .with_field(field, detail)
    }

    /// `kind` as people call it: "instance", "image".
    #[must_use]
    pub fn not_found(kind: &str, key: impl fmt::Display) -> Self {
        Self::new(
            ErrorKind::NotFound,
            format!("{}_not_found", kind.replace(' ', "_").to_lowercase()),
            format!("there is no {kind} `{key}` here"),
        )
        .with_hint(format!(
            "list what there is with `iaasctl {} list`, and check the project",
            kind.replace(' ', "-").to_lowercase()
        ))
    }

    #[must_use]
    pub fn already_exists(kind: &str, key: impl fmt::Display) -> Self {
        Self::new(ErrorKind::AlreadyExists, "name_taken", format!("a {kind} named `{key}` already exists"))
            .with_hint("choose another name, or use the existing object")
    }

    #[must_use]
    pub fn invalid_state(detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidState, "invalid_state", detail)
    }

    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem =
            Self::new(ErrorKind::Unavailable, "unavailable", detail).with_hint("try again in a few seconds");
        problem.retry_after_secs = Some(1);
        problem
    }

    /// The fixed text of every internal error: the cause is in our log under the request id.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(ErrorKind::Internal, "internal", "an internal error; it has been logged under the request id")
            .with_hint("try again; if the error persists, give the request id to your administrator")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_parses_back_and_has_a_status() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::parse(kind.as_str()), Some(kind));
            assert!((400..=507).contains(&kind.http_status()));
            assert!(kind.grpc_code() > 0);
        }
    }
}
