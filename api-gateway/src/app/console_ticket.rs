//! Tickets that open a console.
//!
//! Browsers can't send a token with a WebSocket's handshake, and a token in a URL ends up in logs. So a caller with the right asks for a
//! ticket first: random, good for one session within a minute, for that instance and that principal. Tickets live in this process's
//! memory alone; a restart forgets them, which costs the caller one more request. Users share the places of unused tickets: nobody's ticket
//! goes because others take many.

use crate::{
    app::App,
    auth::{api_key::random_hex, caller::Caller, identity::Identity},
    failure::ApiError,
};
use domain::{
    ErrorKind, InstanceId, Problem, ProjectId, Timestamp, UserId,
    instance::Instance,
    policy::{self, Action, Decision, Resource},
};
use operation::{Activity, AuditOutcome};
use parking_lot::Mutex;
use service_kit::{
    context::CallContext,
    share::{Place, Pool, SharedPool},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

pub const TICKET_SECS: u64 = 60;
/// How often the right is checked while a session lasts.
const RIGHT_CHECKED_EVERY: Duration = Duration::from_secs(5);

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

    /// Ends when the principal has lost the right. A database that doesn't answer for a moment takes no right away.
    pub async fn lost(&self, app: &App) {
        let mut checks = tokio::time::interval(RIGHT_CHECKED_EVERY);
        loop {
            checks.tick().await;
            if let Ok(false) = self.stands(app).await {
                return;
            }
        }
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

pub struct Tickets {
    granted: Mutex<Granted>,
    places: SharedPool<UserId>,
}

#[derive(Default)]
struct Granted {
    /// The tickets by their hashes, so that the time of a lookup reveals nothing about the existing tickets.
    by_hash: HashMap<[u8; 32], Ticket>,
    /// In the order in which they end.
    ends: VecDeque<(Instant, [u8; 32])>,
}

struct Ticket {
    until: Instant,
    grant: Grant,
    _place: Place<UserId>,
}

impl Granted {
    fn drop_expired(&mut self, now: Instant) {
        while let Some((until, hash)) = self.ends.front().copied()
            && until <= now
        {
            self.ends.pop_front();
            self.by_hash.remove(&hash);
        }
    }
}

impl Tickets {
    /// `max`: how many unused tickets are kept.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { granted: Mutex::default(), places: SharedPool::new(Pool::ConsoleTickets, max) }
    }

    /// A new ticket, and when it ends.
    pub fn issue(&self, grant: Grant, now: Instant) -> Result<(String, Timestamp), Problem> {
        let ticket = random_hex::<32>();
        let (hash, until) = (key_of(&ticket), now + Duration::from_secs(TICKET_SECS));
        let mut granted = self.granted.lock();
        granted.drop_expired(now);
        let place = self.places.take(grant.identity.user_id).map_err(|_| too_many_tickets())?;
        granted.ends.push_back((until, hash));
        granted.by_hash.insert(hash, Ticket { until, grant, _place: place });
        Ok((ticket, Timestamp::now().plus_secs(TICKET_SECS)))
    }

    /// Uses a ticket up.
    pub fn take(&self, ticket: &str, now: Instant) -> Option<Grant> {
        let mut granted = self.granted.lock();
        granted.drop_expired(now);
        granted.by_hash.remove(&key_of(ticket)).filter(|ticket| ticket.until > now).map(|ticket| ticket.grant)
    }
}

fn too_many_tickets() -> Problem {
    let detail = "too many console tickets are waiting to be used";
    let mut problem = Problem::new(ErrorKind::RateLimited, "too_many_tickets", detail)
        .with_hint("use the tickets that you have; an unused one ends after a minute");
    problem.retry_after_secs = Some(TICKET_SECS);
    problem
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
    app.auth().audit.write(entry).await?;
    Ok(app.tickets().issue(Grant::new(caller, instance.project_id, instance.id), Instant::now())?)
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
    use domain::policy::Principal;

    fn grant() -> Grant {
        let principal = Principal { user_id: UserId::new(), system_admin: false, roles: vec![] };
        let identity = Identity {
            user_id: principal.user_id,
            user_name: "ann".to_owned(),
            system_admin: false,
            session_version: 1,
            home_project_id: None,
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
        let (tickets, now, grant) = (Tickets::new(100), Instant::now(), grant());
        let take = |ticket: &str, at| tickets.take(ticket, at).map(|g| g.instance_id);
        let (ticket, _) = tickets.issue(grant.clone(), now).expect("a ticket");
        let just_in_time = now + Duration::from_secs(TICKET_SECS - 1);
        assert_eq!(take(&ticket, just_in_time), Some(grant.instance_id));
        assert_eq!(take(&ticket, just_in_time), None, "used");
        let (late, _) = tickets.issue(grant, now).expect("a ticket");
        assert_eq!(take(&late, now + Duration::from_secs(TICKET_SECS)), None, "expired");
        assert_eq!(take("guess", now), None);
        assert!(tickets.granted.lock().by_hash.is_empty() && tickets.places.taken() == 0);
    }

    #[test]
    fn unused_tickets_stay_bounded() {
        let (tickets, now) = (Tickets::new(100), Instant::now());
        for i in 0..100 {
            tickets.issue(grant(), now + Duration::from_secs(i)).expect("a ticket");
        }
        let granted = tickets.granted.lock();
        assert!(granted.by_hash.len() <= 60 && granted.ends.len() <= 60, "expired ones go");
    }

    #[test]
    fn who_takes_many_takes_nobody_elses() {
        let (tickets, now, hog) = (Tickets::new(100), Instant::now(), grant());
        let (others, _) = tickets.issue(grant(), now).expect("a ticket");
        let taken = std::iter::from_fn(|| tickets.issue(hog.clone(), now).ok()).count();
        assert!(taken < 100, "{taken}");
        tickets.issue(grant(), now).expect("the next one gets a ticket");
        assert!(tickets.take(&others, now).is_some(), "a ticket that was given stays");
    }
}
