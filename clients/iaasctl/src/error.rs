//! An error as a person reads it, and its exit code.

use crate::exit;
use client::ClientError;
use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("{0}")]
    Client(#[source] ClientError),
    #[error("{detail}")]
    Usage { detail: String, hint: Option<String> },
    #[error("{detail}")]
    Failed { detail: String, hint: Option<String>, code: u8 },
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a profile file", path.display())]
    Profile {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    #[error("the terminal can't be used")]
    Terminal(#[source] io::Error),
    /// All was said already; the code is left.
    #[error("see above")]
    Said { code: u8 },
}

/// Every command asks the server, and its errors are all shown the same way.
impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl CliError {
    pub fn usage(detail: impl Into<String>) -> Self {
        Self::Usage { detail: detail.into(), hint: None }
    }

    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Usage { hint, .. } | Self::Failed { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Client(error) => exit::of_client(error),
            Self::Usage { .. } => exit::USAGE,
            Self::Failed { code, .. } | Self::Said { code } => *code,
            // The reader has gone: what it read is what it wanted.
            Self::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
            Self::File { .. } | Self::Profile { .. } | Self::Stdout(_) | Self::Terminal(_) => exit::FAILURE,
        }
    }

    /// On stderr: what failed and why, each wrong field, what to do, the code that docs/errors.md explains, and the id to ask an administrator with.
    pub fn print(&self) {
        if matches!(self, Self::Said { .. }) || self.exit_code() == exit::OK {
            return;
        }
        eprint!("{}", self.render());
    }

    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("error: {self}");
        // The text of a client error is shown as this error's own, so what follows is that error's cause.
        let mut cause = if let Self::Client(error) = self {
            std::error::Error::source(error)
        } else {
            std::error::Error::source(self)
        };
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text.push('\n');
        if let Self::Client(ClientError::Problem(problem)) = self {
            if problem.errors.len() > 1 {
                for field in &problem.errors {
                    text.push_str(&format!("  {}: {}\n", field.field, field.detail));
                }
            }
            if let Some(explain) = &problem.explain {
                for rejection in &explain.rejected {
                    let filter = serde_json::to_value(rejection.filter).unwrap_or_default();
                    let filter = filter.as_str().unwrap_or_default().to_owned();
                    text.push_str(&format!("  {} of {} hosts: {filter}\n", rejection.hosts, explain.hosts_considered));
                }
            }
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("hint: {hint}\n"));
        }
        if let Self::Client(ClientError::Problem(problem)) = self {
            for (what, value) in [("code", &problem.code), ("request id", &problem.request_id)] {
                if !value.is_empty() {
                    text.push_str(&format!("{what}: {value}\n"));
                }
            }
        }
        // Words of a guest may be in it: nothing but text reaches the terminal.
        crate::plain::lines(&text)
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Client(ClientError::Problem(problem)) => problem.hint.clone(),
            Self::Client(ClientError::LoggedOut) => Some("log in with `iaasctl login`, or set IAAS_TOKEN".to_owned()),
            Self::Client(ClientError::Unreachable { .. }) => Some(
                "check that iaasd is running and that the URL is right; `iaasctl doctor` helps to find out".to_owned(),
            ),
            Self::Usage { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::Profile { .. } => Some("correct the file, or remove it and log in again".to_owned()),
            Self::Client(_) | Self::File { .. } | Self::Stdout(_) | Self::Terminal(_) | Self::Said { .. } => None,
        }
    }
}
