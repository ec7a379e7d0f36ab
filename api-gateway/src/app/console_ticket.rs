//! Tickets that open a console.
//!
//! Browsers can't send a token with a WebSocket's handshake, and a token in a URL ends up in logs. So a caller with the right asks for a
//! ticket first: good for one session within a minute, for that instance and that principal.
//!
//! **Any gateway takes a ticket of any other.** A ticket is signed with the keys that access tokens are signed with, and says all that there is to
//! know, so none is remembered before it is used. Using it inserts its id as an operation of the gateway's, and that id is unique: of two gateways
//! that get one ticket, one opens the console. **Rejected:** tickets in a gateway's memory. Behind a load balancer half of them would be refused.

use crate::{
    app::App,
    auth::{caller::Caller, identity::Identity, token},
    failure::ApiError,
};
use domain::{
    ErrorKind, InstanceId, Problem, ProjectId, Timestamp,
    instance::Instance,
    policy::{self, Action, Decision, Resource},
};
use operation::{Activity, AuditOutcome};
use service_kit::context::CallContext;
use std::{sync::Arc, time::Duration};
use store::{CommitError, Constraint, OperationTable, Unit};

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

    /// What a ticket grants to its principal, as they are now.
    fn of(claims: &token::TicketClaims, identity: Arc<Identity>) -> Self {
        let context = CallContext {
            request_id: claims.request_id.clone(),
            operation_id: None,
            principal: identity.label.clone(),
            principal_name: identity.display.clone(),
            dry_run: false,
        };
        Self { project_id: claims.project, instance_id: claims.instance, identity, context }
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

/// Gives the caller a ticket for the console of an instance, and when it ends. The audit log says who looked into whose machine.
pub async fn issue(app: &App, caller: &Caller, instance: &Instance) -> Result<(String, Timestamp), ApiError> {
    let detail = format!("a ticket for the console of {}", instance.name);
    let activity =
        Activity::new("instance", instance.id, "instance.console", "", detail).in_project(instance.project_id);
    let entry = activity.audit_entry(&caller.context(None, false), AuditOutcome::Accepted, Timestamp::now());
    app.auth().audit.write(entry).await?;
    let identity = &caller.identity;
    let request = token::TicketRequest {
        user_id: identity.user_id,
        session_version: identity.session_version,
        api_key_id: identity.api_key.as_ref().map(|key| key.id),
        project_id: instance.project_id,
        instance_id: instance.id,
        request_id: &caller.request_id,
    };
    let ticket = token::issue_ticket(&app.auth().keyring, &request, TICKET_SECS)?;
    Ok((ticket, Timestamp::now().plus_secs(TICKET_SECS)))
}

/// Uses a ticket up, if its principal still has the right.
pub async fn redeem(app: &App, ticket: &str) -> Result<Grant, ApiError> {
    let auth = app.auth();
    let claims = match token::verify_ticket(&auth.keyring, app.store(), ticket).await {
        Err(error) if error.problem().kind == ErrorKind::Unauthenticated => return Err(bad_ticket().into()),
        claims => claims?,
    };
    let identity = auth.identities.current(claims.sub, claims.sv, claims.key).await?.ok_or_else(bad_ticket)?;
    let grant = Grant::of(&claims, identity);
    if !grant.stands(app).await? {
        return Err(bad_ticket().into());
    }
    let used = OperationTable::Identity.insert(claims.jti, String::new(), Timestamp::now());
    match app.store().commit(Unit::new().op(used)).await {
        Ok(()) => Ok(grant),
        Err(CommitError::Constraint(Constraint::OperationRepeated)) => Err(bad_ticket().into()),
        Err(error) => Err(error.into()),
    }
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
