//! The one error of the gateway's own code: a problem to show the caller. What the store and the other services fail with becomes one here.

use domain::{ErrorKind, Problem};
use store::{CommitError, Constraint, Guard, ReadError};

/// What a route returns when it refuses.
#[derive(Debug)]
pub struct ApiError(pub(crate) Box<Problem>);

impl ApiError {
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0
    }

    #[must_use]
    pub fn into_problem(self) -> Problem {
        *self.0
    }

    /// A bug or a broken store: logs the cause here, once, and tells the caller the fixed text.
    pub fn internal(what: &str, cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(cause = chain(cause), "{what}");
        Self::from(Problem::internal())
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

/// The error and all that caused it, on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Unavailable(_) => {
                tracing::warn!(cause = chain(&error), "a read failed");
                database_unavailable().into()
            }
            ReadError::Internal(_) => Self::internal("a read failed", &error),
        }
    }
}

impl From<CommitError> for ApiError {
    /// The general wording; a route that knows which object it was says so itself, with the cases it expects.
    fn from(error: CommitError) -> Self {
        match &error {
            CommitError::Unavailable(_) => {
                tracing::warn!(cause = chain(&error), "a commit failed");
                database_unavailable().into()
            }
            CommitError::Internal(_) => Self::internal("a commit failed", &error),
            CommitError::Constraint(constraint) => match broken_constraint(*constraint) {
                Some(problem) => problem.into(),
                None => Self::internal("a commit broke a constraint that the code should keep", &error),
            },
            CommitError::Guard(guard) => match failed_guard(*guard) {
                Some(problem) => problem.into(),
                None => Self::internal("a commit failed on a guard that isn't the gateway's", &error),
            },
        }
    }
}

impl From<tonic::Status> for ApiError {
    fn from(status: tonic::Status) -> Self {
        let problem = proto::status::from_status(&status);
        if matches!(problem.kind, ErrorKind::Internal | ErrorKind::Unavailable) {
            tracing::warn!(code = ?status.code(), message = status.message(), "a call to another service failed");
        }
        problem.into()
    }
}

fn database_unavailable() -> Problem {
    let mut problem = Problem::new(ErrorKind::Unavailable, "database_unavailable", "the database doesn't answer now")
        .with_hint("try again in a few seconds, with the same Idempotency-Key");
    problem.retry_after_secs = Some(2);
    problem
}

fn taken(noun: &str) -> Problem {
    Problem::new(ErrorKind::AlreadyExists, "name_taken", format!("a {noun} of that name exists already"))
        .with_hint("choose another name, or use the existing object")
}

fn broken_constraint(constraint: Constraint) -> Option<Problem> {
    match constraint {
        Constraint::ProjectName => Some(taken("project")),
        Constraint::UserName => Some(taken("user")),
        Constraint::ApiKeyName => Some(taken("API key")),
        Constraint::SshKeyName => Some(taken("SSH key")),
        Constraint::FlavorName => Some(taken("flavor")),
        Constraint::HostName => Some(taken("host")),
        Constraint::InstanceName => Some(taken("instance")),
        Constraint::ImageName => Some(taken("image")),
        Constraint::PlacementGroupName => Some(taken("placement group")),
        // The parent was deleted between the look and the commit.
        Constraint::ForeignKey(_) => Some(
            Problem::new(ErrorKind::NotFound, "parent_not_found", "the object that this belongs to is gone")
                .with_hint("it was deleted meanwhile: list what there is"),
        ),
        Constraint::ApiKeyPrefix
        | Constraint::HostTokenSecret
        | Constraint::DiskRole
        | Constraint::ExternalNetworkName
        | Constraint::NetworkName
        | Constraint::NetworkVni
        | Constraint::SubnetName
        | Constraint::RouterName
        | Constraint::RouterNetwork
        | Constraint::SecurityGroupName
        | Constraint::PortName
        | Constraint::PortMac
        | Constraint::UplinkMac
        | Constraint::FloatingIpTarget
        | Constraint::PeeringName
        | Constraint::PeeringPair
        | Constraint::PlacementPlace
        | Constraint::OperationRepeated
        | Constraint::IdempotencyRepeated
        | Constraint::PrimaryKey(_)
        | Constraint::ChildExists
        | Constraint::UsedNotNegative
        | Constraint::EventHeadSingle => None,
    }
}

pub fn placement_group_in_use() -> Problem {
    let detail = "instances are in the placement group, or it was deleted just now";
    Problem::new(ErrorKind::InvalidState, "placement_group_in_use", detail)
        .with_hint("`iaasctl placement-group show` names them; delete them first")
}

fn failed_guard(guard: Guard) -> Option<Problem> {
    match guard {
        Guard::ProjectGeneration | Guard::UserGeneration | Guard::QuotaGeneration => Some(
            Problem::new(ErrorKind::StaleGeneration, "stale_generation", "the object changed meanwhile")
                .with_hint("read it again and decide anew"),
        ),
        Guard::ProjectInUse => Some(
            Problem::new(
                ErrorKind::InvalidState,
                "project_in_use",
                "the project has instances, images, disks, ports, floating IPs, networks or security groups, or was deleted just now",
            )
            .with_hint("delete its instances, images, floating IPs, ports and own networks first; disks go with their instances, the default network with the project"),
        ),
        Guard::PlacementGroupInUse => Some(placement_group_in_use()),
        Guard::RefreshToken
        | Guard::HostCapacity
        | Guard::ComputeQuota
        | Guard::StorageQuota
        | Guard::NetworkQuota
        | Guard::ExternalNetworkGeneration
        | Guard::NetworkGeneration
        | Guard::SubnetGeneration
        | Guard::PortGeneration
        | Guard::RouterGeneration
        | Guard::FloatingIpGeneration
        | Guard::SecurityGroupGeneration
        | Guard::PeeringGeneration
        | Guard::SecurityRuleGone
        | Guard::ExternalNetworkInUse
        | Guard::NetworkInUse
        | Guard::SubnetInUse
        | Guard::SecurityGroupInUse
        | Guard::PortExists
        | Guard::PortState
        | Guard::AddressTaken
        | Guard::PlacementAnchor
        | Guard::InstanceGeneration
        | Guard::InstanceObserved
        | Guard::InstanceEpoch
        | Guard::HostGeneration
        | Guard::HostInUse
        | Guard::HostToken
        | Guard::HostAdmission
        | Guard::ImageGeneration
        | Guard::ImageInUse
        | Guard::DiskExists
        | Guard::DiskState => None,
    }
}
