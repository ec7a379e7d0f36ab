//! Tickets that open a console.
//!
//! Browsers can't send a token with a WebSocket's handshake, and a token in a URL ends up in logs. So a caller with the right asks for a
//! ticket first: random, good for one session within a minute, for that instance and that principal. Tickets live in this process's
//! memory alone; a restart forgets them, which costs the caller one more request.

use crate::{
    app::App,
    auth::{api_key::random_hex, caller::Caller, identity::Identity},
    failure::ApiError,
};
use domain::{
    ErrorKind, InstanceId, Problem, ProjectId, Timestamp,
    instance::Instance,
    policy::{self, Action, Decision, Resource},
};
use operation::{Activity, AuditOutcome};
use parking_lot::Mutex;
use service_kit::context::CallContext;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{AuditInsert, Unit};

pub const TICKET_SECS: u64 = 60;
/// How many unused tickets are kept; beyond that the oldest is dropped.
const TICKETS_MAX: usize = 10_000;

/// Whose console, and for whom.
#[derive(Debug, Clone)]
pub struct Grant {
    pub project_id: ProjectId,
    pub instance_id: InstanceId,
    /// Who requested the ticket. The right is checked again when the ticket is used, and while the session lasts.
    pub identity: Arc<Identity>,
    /// The session's calls carry it.
    pub context: CallContext,
}

impl Grant {
    #[must_use]
    pub fn new(caller: &Caller, project_id: ProjectId, instance_id: InstanceId) -> Self {
        Self { project_id, instance_id, identity: Arc::clone(&caller.identity), context: caller.context(None, false) }
    }

    /// Whether the principal still has the right: roles, keys and users may be removed.
    pub async fn stands(&self, app: &App) -> Result<bool, ApiError> {
        let current = app.auth().identities.again(&self.identity).await?;
        let resource = Resource::Project(self.project_id);
        Ok(current.is_some_and(|identity| {
            policy::decide(&identity.principal, Action::ProjectWrite, resource) == Decision::Allow
        }))
    }
}

#[derive(Default)]
pub struct Tickets {
    /// The tickets by their hashes, so that the time of a lookup reveals nothing about the existing tickets.
    granted: Mutex<HashMap<[u8; 32], (Instant, Grant)>>,
}

impl Tickets {
    /// A new ticket, and when it ends.
    pub fn issue(&self, grant: Grant, now: Instant) -> (String, Timestamp) {
        let ticket = random_hex::<32>();
        let lifetime = Duration::from_secs(TICKET_SECS);
        let mut granted = self.granted.lock();
        granted.retain(|_, (until, _)| *until > now);
        if granted.len() >= TICKETS_MAX
            && let Some(oldest) = granted.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| *key)
        {
            granted.remove(&oldest);
        }
        granted.insert(key_of(&ticket), (now + lifetime, grant));
        (ticket, Timestamp::now().plus_secs(TICKET_SECS))
    }

    /// Uses a ticket up.
    pub fn take(&self, ticket: &str, now: Instant) -> Option<Grant> {
        let mut granted = self.granted.lock();
        granted.remove(&key_of(ticket)).filter(|(until, _)| *until > now).map(|(_, grant)| grant)
    }
}

fn key_of(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}

/// Gives the caller a ticket for the console of an instance, and when it ends. The audit log says who looked into whose machine.
pub async fn issue(app: &App, caller: &Caller, instance: &Instance) -> Result<(String, Timestamp), ApiError> {
    let detail = format!("a ticket for the console of {}", instance.name);
    let activity =
        Activity::new("instance", instance.id, "instance.console", "", detail).in_project(instance.project_id);
    let entry = activity.audit_entry(&caller.context(None, false), AuditOutcome::Accepted, Timestamp::now());
    app.store().commit(Unit::new().op(AuditInsert(entry))).await?;
    Ok(app.tickets().issue(Grant::new(caller, instance.project_id, instance.id), Instant::now()))
}

/// Uses a ticket up, if its principal still has the right.
pub async fn redeem(app: &App, ticket: &str) -> Result<Grant, ApiError> {
    let grant = app.tickets().take(ticket, Instant::now()).ok_or_else(bad_ticket)?;
    if grant.stands(app).await? { Ok(grant) } else { Err(bad_ticket().into()) }
}

fn bad_ticket() -> Problem {
    Problem::new(
        ErrorKind::Unauthenticated,
        "bad_ticket",
        "the console's ticket is unknown, has expired or was used: a ticket opens one session within a minute",
    )
    .with_hint("request a new ticket: POST /v1/instances/{instance}/console-ticket")
}

/// Where the ticket is used: `ws://…/v1/console?ticket=…`.
#[must_use]
pub fn url(app: &App, ticket: &str) -> String {
    let api = &app.config().api;
    let http = api.public_url.clone().unwrap_or_else(|| {
        let scheme = if api.uses_tls() { "https" } else { "http" };
        format!("{scheme}://{}", api.listen)
    });
    let base = match http.strip_prefix("https") {
        Some(rest) => format!("wss{rest}"),
        None => format!("ws{}", http.strip_prefix("http").unwrap_or(&http)),
    };
    format!("{base}/v1/console?ticket={ticket}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{UserId, policy::Principal};

    fn grant() -> Grant {
        let principal = Principal { user_id: UserId::new(), system_admin: false, roles: vec![] };
        let identity = Identity {
            user_id: principal.user_id,
            user_name: "ann".to_owned(),
            system_admin: false,
            principal,
            api_key: None,
            label: "user:x".to_owned(),
            display: "ann".to_owned(),
        };
        Grant {
            project_id: ProjectId::new(),
            instance_id: InstanceId::new(),
            identity: Arc::new(identity),
            context: CallContext::default(),
        }
    }

    #[test]
    fn a_ticket_opens_once_and_within_its_time() {
        let (tickets, now, grant) = (Tickets::default(), Instant::now(), grant());
        let take = |ticket: &str, at| tickets.take(ticket, at).map(|g| g.instance_id);
        let (ticket, _) = tickets.issue(grant.clone(), now);
        let just_in_time = now + Duration::from_secs(TICKET_SECS - 1);
        assert_eq!(take(&ticket, just_in_time), Some(grant.instance_id));
        assert_eq!(take(&ticket, just_in_time), None, "used");
        let (late, _) = tickets.issue(grant, now);
        assert_eq!(take(&late, now + Duration::from_secs(TICKET_SECS)), None, "expired");
        assert_eq!(take("guess", now), None);
        assert!(tickets.granted.lock().is_empty());
    }

    #[test]
    fn unused_tickets_stay_bounded() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        for i in 0..100 {
            tickets.issue(grant(), now + Duration::from_secs(i));
        }
        assert!(tickets.granted.lock().len() <= 60, "expired ones go");
    }
}
