//! What callers are told when the store fails. A guard or a constraint that has a meaning for one call is matched by that call before;
//! the rest comes here, where it is worded and logged once.

use domain::{ErrorKind, Problem};
use service_kit::{error_chain, leader::not_leader};
use store::{CommitError, Constraint, ReadError};

/// How often a change is decided again because somebody was faster. After that the caller may try.
pub const COMMIT_ATTEMPTS: usize = 16;

#[must_use]
pub fn database_unavailable() -> Problem {
    let mut problem = Problem::new(ErrorKind::Unavailable, "database_unavailable", "the database doesn't answer now")
        .with_hint("try again in a few seconds, with the same Idempotency-Key");
    problem.retry_after_secs = Some(2);
    problem
}

/// The disk of the database is full. Waiting doesn't help by itself, but what comes then may fit.
#[must_use]
pub fn database_full() -> Problem {
    let mut problem = Problem::new(
        ErrorKind::Unavailable,
        "storage_full",
        "the disk that holds the control plane's database is full: nothing new can be made",
    )
    .with_hint("deleting still works; an administrator must free space on that disk");
    problem.retry_after_secs = Some(60);
    problem
}

#[must_use]
pub fn read_problem(error: ReadError) -> Problem {
    match error {
        ReadError::Unavailable(_) if error.disk_full() => {
            tracing::warn!(error = error_chain(&error), "the database can't be read: its disk is full");
            database_full()
        }
        ReadError::Unavailable(_) => {
            tracing::warn!(error = error_chain(&error), "the database can't be read");
            database_unavailable()
        }
        ReadError::Internal(_) => {
            tracing::error!(error = error_chain(&error), "a read failed");
            Problem::internal()
        }
    }
}

#[must_use]
pub fn commit_problem(error: CommitError) -> Problem {
    match error {
        CommitError::Unavailable(_) if error.disk_full() => {
            tracing::warn!(error = error_chain(&error), "a change can't be committed: the database's disk is full");
            database_full()
        }
        CommitError::Unavailable(_) => {
            tracing::warn!(error = error_chain(&error), "a change can't be committed");
            match error.not_leader() {
                Some(role) => not_leader(role.as_str(), None),
                None => database_unavailable(),
            }
        }
        CommitError::Internal(_) => {
            tracing::error!(error = error_chain(&error), "a change failed");
            Problem::internal()
        }
        CommitError::Guard(guard) => {
            tracing::info!(?guard, "a change lost against another one");
            changed_meanwhile()
        }
        CommitError::Constraint(constraint) => broken_constraint(constraint),
    }
}

/// Others changed `what` each time that this change was tried.
#[must_use]
pub fn contended(what: &str) -> Problem {
    Problem::new(ErrorKind::StaleGeneration, "conflict", format!("others kept changing {what} meanwhile"))
        .with_hint("try again")
}

fn changed_meanwhile() -> Problem {
    Problem::new(ErrorKind::StaleGeneration, "conflict", "the object changed meanwhile")
        .with_hint("read it again, and repeat the change if it still makes sense")
}

fn name_taken(kind: &str) -> Problem {
    Problem::new(ErrorKind::AlreadyExists, "name_taken", format!("a {kind} of that name exists already"))
        .with_hint("choose another name, or use the existing object")
}

fn broken_constraint(constraint: Constraint) -> Problem {
    let problem = match constraint {
        Constraint::ProjectName => name_taken("project"),
        Constraint::UserName => name_taken("user"),
        Constraint::ApiKeyName => name_taken("API key"),
        Constraint::SshKeyName => name_taken("SSH key"),
        Constraint::FlavorName => name_taken("flavor"),
        Constraint::HostName => name_taken("host"),
        Constraint::InstanceName => name_taken("instance"),
        Constraint::ImageName => name_taken("image"),
        Constraint::PlacementGroupName => name_taken("placement group"),
        Constraint::ExternalNetworkName => name_taken("external network"),
        Constraint::NetworkName => name_taken("network"),
        Constraint::SubnetName => name_taken("subnet"),
        Constraint::RouterName => name_taken("router"),
        Constraint::SecurityGroupName => name_taken("security group"),
        Constraint::PortName => name_taken("port"),
        Constraint::PeeringName => name_taken("peering"),
        // The parent was deleted between the decision and the commit.
        Constraint::ForeignKey(_) => {
            Problem::new(ErrorKind::NotFound, "parent_not_found", "the object that this belongs to is gone")
                .with_hint("it was deleted meanwhile: list what there is")
        }
        // A repeat gets its stored answer. What is left is a race with another change of the same object.
        Constraint::OperationRepeated
        | Constraint::IdempotencyRepeated
        | Constraint::PrimaryKey(_)
        | Constraint::ChildExists
        | Constraint::DiskRole
        | Constraint::RouterNetwork
        | Constraint::FloatingIpTarget
        | Constraint::PeeringPair
        | Constraint::PlacementPlace => changed_meanwhile(),
        Constraint::ApiKeyPrefix
        | Constraint::HostTokenSecret
        | Constraint::NetworkVni
        | Constraint::PortMac
        | Constraint::UplinkMac
        | Constraint::HostUnderlay
        | Constraint::UsedNotNegative
        | Constraint::EventHeadSingle => {
            tracing::error!(?constraint, "a change broke a constraint that the code should keep");
            return Problem::internal();
        }
    };
    tracing::info!(?constraint, "a change was refused by the database");
    problem
}
/// The request isn't the one that its idempotency key was used for first.
#[must_use]
pub fn key_reused() -> Problem {
    Problem::new(ErrorKind::KeyReused, "key_reused", "this Idempotency-Key was used for another request")
        .with_hint("use a new key for each new request; the same one only to repeat a request")
}
