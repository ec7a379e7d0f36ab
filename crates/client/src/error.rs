//! What can go wrong, by kind: callers decide on the kind or on the problem's `code`, never on a text.

use domain::{FieldError, explain::PlacementRecord};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The server's answer to a request that failed (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProblemDocument {
    #[serde(rename = "type")]
    pub type_uri: String,
    pub title: String,
    pub status: u16,
    /// Stable; see docs/errors.md.
    pub code: String,
    /// What failed, on which object.
    pub detail: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    pub request_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Why no host fits (507).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<PlacementRecord>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server refused. Boxed: it is large.
    #[error("{}", .0.detail)]
    Problem(Box<ProblemDocument>),
    #[error("cannot reach {url}")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{url} did not answer in time")]
    TimedOut {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// The answer broke off in the middle.
    #[error("the connection to {url} was lost")]
    Lost {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// The server speaks, but not this API.
    #[error("{method} {path} was answered, but not by this API (status {status})")]
    Answer {
        method: String,
        path: String,
        status: u16,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{url}` is not a URL like http://127.0.0.1:7480")]
    Url { url: String },
    #[error("the HTTP client could not be set up")]
    Setup {
        #[source]
        source: reqwest::Error,
    },
    #[error("`{text}` can't be sent in a header")]
    Header { text: String },
    #[error("cannot read {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// No token, and none can be had without a password.
    #[error("not logged in")]
    LoggedOut,
    #[error("the renewed tokens could not be saved")]
    Vault {
        #[source]
        source: std::io::Error,
    },
    #[error("the console's connection failed")]
    Console {
        #[source]
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
    /// Something on the way answers for the server.
    #[error("{url} did not open a WebSocket")]
    NotWebSocket { url: String },
}

impl ClientError {
    #[must_use]
    pub fn problem(&self) -> Option<&ProblemDocument> {
        if let Self::Problem(problem) = self { Some(problem) } else { None }
    }

    /// The HTTP status, when the server answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        if let Self::Answer { status, .. } = self {
            Some(*status)
        } else {
            self.problem().map(|problem| problem.status)
        }
    }

    /// The problem's `code`, or an empty text.
    #[must_use]
    pub fn code(&self) -> &str {
        self.problem().map_or("", |p| p.code.as_str())
    }
}
