//! A [`Problem`] through gRPC and back, without loss: the gRPC code for tools that know only codes, the whole problem as JSON in
//! the status details for us. A status that some library made (a dead link, a deadline) becomes the kind that its code means.

use domain::{ErrorKind, Problem, problem::grpc_code};
use tonic::{Code, Status};

#[must_use]
pub fn to_status(problem: &Problem) -> Status {
    let details = serde_json::to_vec(problem).unwrap_or_default();
    Status::with_details(Code::from_i32(problem.kind.grpc_code()), problem.detail.clone(), details.into())
}

#[must_use]
pub fn from_status(status: &Status) -> Problem {
    if !status.details().is_empty()
        && let Ok(problem) = serde_json::from_slice::<Problem>(status.details())
    {
        return problem;
    }
    let kind = match status.code() as i32 {
        grpc_code::INVALID_ARGUMENT => ErrorKind::InvalidArgument,
        grpc_code::DEADLINE_EXCEEDED => ErrorKind::DeadlineExceeded,
        grpc_code::NOT_FOUND => ErrorKind::NotFound,
        grpc_code::ALREADY_EXISTS => ErrorKind::AlreadyExists,
        grpc_code::PERMISSION_DENIED => ErrorKind::PermissionDenied,
        grpc_code::FAILED_PRECONDITION => ErrorKind::InvalidState,
        grpc_code::ABORTED => ErrorKind::StaleGeneration,
        grpc_code::RESOURCE_EXHAUSTED => ErrorKind::RateLimited,
        grpc_code::UNAUTHENTICATED => ErrorKind::Unauthenticated,
        grpc_code::UNAVAILABLE => ErrorKind::Unavailable,
        // A cancelled or unknown call: a link that broke in the middle.
        1 | 2 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    if kind == ErrorKind::Internal {
        Problem::internal()
    } else if kind == ErrorKind::Unavailable {
        Problem::unavailable("a service behind the API doesn't answer")
    } else {
        Problem::new(kind, kind.as_str(), status.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in ErrorKind::ALL {
            let mut problem =
                Problem::new(kind, "some_code", "what failed").with_hint("do this").with_field("/name", "too long");
            problem.retry_after_secs = Some(3);
            assert_eq!(from_status(&to_status(&problem)), problem);
        }
    }

    #[test]
    fn a_status_of_a_library_becomes_its_kind() {
        assert_eq!(from_status(&Status::unavailable("connection refused")).kind, ErrorKind::Unavailable);
        assert_eq!(from_status(&Status::internal("boom: /etc/secret")), Problem::internal());
        assert_eq!(from_status(&Status::deadline_exceeded("late")).kind, ErrorKind::DeadlineExceeded);
    }
}
