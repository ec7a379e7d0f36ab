//! Exit codes, by the kind of failure. Scripts depend on them: they only ever grow.

use client::ClientError;

pub const OK: u8 = 0;
pub const FAILURE: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOT_FOUND: u8 = 3;
pub const DENIED: u8 = 4;
pub const CONFLICT: u8 = 5;
pub const QUOTA: u8 = 6;
pub const NO_CAPACITY: u8 = 7;
pub const UNAVAILABLE: u8 = 8;
pub const TIMEOUT: u8 = 9;

/// Shown under `--help`; docs/iaasctl.md says the same.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  any other failure
  2  the command line, or a value in it, is not valid
  3  the object does not exist
  4  not logged in, or not allowed
  5  conflict: the name is taken, the state doesn't allow it, or the object was changed meanwhile
  6  the project's quota is reached
  7  no host has enough free capacity
  8  the server can't be reached, or is temporarily unavailable
  9  the timeout has passed

Environment:
  IAAS_URL, IAAS_PROJECT, IAAS_PROFILE   the defaults of --url, --project and --profile
  IAAS_TOKEN                             an API key or access token, instead of a login
  IAASCTL_CONFIG                         the profile file, instead of ~/.config/iaas/config.toml
  NO_COLOR                               print no colours

Data goes to stdout, progress and errors to stderr.";

/// The code of a client's error.
#[must_use]
pub fn of_client(error: &ClientError) -> u8 {
    match error {
        ClientError::Problem(problem) => of_problem(problem.status, &problem.code),
        ClientError::Unreachable { .. }
        | ClientError::Lost { .. }
        | ClientError::Console { .. }
        | ClientError::NotWebSocket { .. } => UNAVAILABLE,
        ClientError::TimedOut { .. } => TIMEOUT,
        ClientError::Url { .. } | ClientError::Header { .. } => USAGE,
        ClientError::LoggedOut => DENIED,
        ClientError::Answer { .. }
        | ClientError::Setup { .. }
        | ClientError::File { .. }
        | ClientError::Vault { .. } => FAILURE,
    }
}

/// The code of a refusal, by its HTTP status; a quota's 403 is explained_records from a denial by its code.
#[must_use]
pub fn of_problem(status: u16, code: &str) -> u8 {
    match status {
        400 | 413 | 415 | 422 => USAGE,
        403 if code == "quota_exceeded" => QUOTA,
        401 | 403 => DENIED,
        404 => NOT_FOUND,
        409 | 412 => CONFLICT,
        429 | 502 | 503 => UNAVAILABLE,
        504 => TIMEOUT,
        507 => NO_CAPACITY,
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ErrorKind;

    #[test]
    fn every_kind_of_problem_has_its_code() {
        let code = |kind: ErrorKind| of_problem(kind.http_status(), kind.as_str());
        for (kind, expected) in [
            (ErrorKind::InvalidArgument, USAGE),
            (ErrorKind::Unauthenticated, DENIED),
            (ErrorKind::PermissionDenied, DENIED),
            (ErrorKind::NotFound, NOT_FOUND),
            (ErrorKind::AlreadyExists, CONFLICT),
            (ErrorKind::InvalidState, CONFLICT),
            (ErrorKind::PreconditionFailed, CONFLICT),
            (ErrorKind::QuotaExceeded, QUOTA),
            (ErrorKind::NoCapacity, NO_CAPACITY),
            (ErrorKind::RateLimited, UNAVAILABLE),
            (ErrorKind::Unavailable, UNAVAILABLE),
            (ErrorKind::DeadlineExceeded, TIMEOUT),
            (ErrorKind::Internal, FAILURE),
        ] {
            assert_eq!(code(kind), expected, "{kind:?}");
        }
        for kind in ErrorKind::ALL {
            assert_ne!(code(kind), OK, "{kind:?}");
        }
    }
}
