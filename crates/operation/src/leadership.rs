//! How a manager serves: as the leader of its role, or as a standby that waits to be.
//!
//! A standby keeps nothing in memory: what it would keep, it would have to keep up to date from a database that others write. It runs, has its
//! connections to the database and to its callers open, and reads what it decides on when its term has begun, as after a start. Whoever calls
//! it meanwhile is told who leads ([`service_kit::leader`]).
//!
//! A leader whose term is over ends everything that it did as the leader (its background work, its hosts' streams, its callers' connections), and
//! is a standby again. The grace that hosts have to connect after a manager's start counts from its term's beginning, so that nobody is taken for
//! lost because a manager was away.

use anyhow::Context as _;
use service_kit::{
    leader::{LeaderService, Standing, StandingNow, serve_waiting},
    transport::{GrpcListener, SharedListener},
};
use std::{future::Future, sync::Arc, time::Duration};
use store::{Candidate, Leadership, ManagerRole, RoleState, Store};
use tokio_util::sync::CancellationToken;

/// How often a process that waits looks whether somebody else leads.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a manager leads with, for one term.
pub struct Turn {
    /// Every unit that is committed by it is fenced by the term.
    pub store: Store,
    pub listener: GrpcListener,
    /// Ends with the process, or with the term.
    pub shutdown: CancellationToken,
    /// To be served beside the manager's own services.
    pub leader: LeaderService,
}

/// Runs a manager until `shutdown`: `lead` serves for one term, and returns when its turn's shutdown is cancelled. An end before that, or an
/// error while the term stands, is the manager's.
pub async fn serve_in_turns<F, Fut>(
    store: &Store,
    role: ManagerRole,
    listener: GrpcListener,
    shutdown: CancellationToken,
    lead: F,
) -> anyhow::Result<()>
where
    F: Fn(Turn) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let candidate = Candidate::new(role, listener.address());
    let listener = listener.shared(&shutdown);
    while let Some(leadership) = wait_to_lead(store, &candidate, &listener, &shutdown).await? {
        let over = shutdown.child_token();
        let (ended, end) = (leadership.ended(), over.clone());
        let watch = tokio::spawn(async move {
            ended.await;
            end.cancel();
        });
        let turn = Turn {
            store: leadership.store.clone(),
            listener: GrpcListener::Shared(listener.clone()),
            shutdown: over,
            leader: LeaderService(standing_of_leader(leadership.store.clone(), leadership.term())),
        };
        let served = lead(turn).await;
        let lost = !leadership.store.leads();
        leadership.resign().await;
        watch.abort();
        if shutdown.is_cancelled() || !lost {
            return served;
        }
        if let Err(error) = served {
            let error = format!("{error:#}");
            tracing::warn!(role = role.as_str(), error, "the end of a term was met as an error");
        }
        tracing::warn!(role = role.as_str(), "this process is a standby now");
    }
    Ok(())
}

/// `None`: it was asked to stop before it led.
async fn wait_to_lead(
    store: &Store,
    candidate: &Candidate,
    listener: &SharedListener,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Leadership>> {
    let waiting = shutdown.child_token();
    let _ends = waiting.clone().drop_guard();
    let role = candidate.role;
    let (listener, standing) = (listener.clone(), standing_of_waiting(store.clone(), role));
    let answer = async {
        // While it isn't known that another process leads, this one probably will in a moment: callers wait rather than be refused.
        while !matches!(standing(), Standing::Waits { leader: Some(_) }) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tracing::info!(role = role.as_str(), "this process is a standby: another one leads the role");
        serve_waiting(role.as_str(), Arc::clone(&standing), listener, waiting).await
    };
    tokio::select! {
        leadership = store.lead(candidate) => Ok(Some(leadership?)),
        () = shutdown.cancelled() => Ok(None),
        served = answer => match served {
            Ok(()) => Ok(None),
            Err(error) => Err(error).context("a standby can't answer its callers"),
        },
    }
}

fn standing_of_leader(store: Store, term: i64) -> StandingNow {
    Arc::new(move || if store.leads() { Standing::Leads { term } } else { Standing::Waits { leader: None } })
}

fn standing_of_waiting(store: Store, role: ManagerRole) -> StandingNow {
    Arc::new(move || {
        let state = store.role_states().into_iter().find(|(of, _)| *of == role);
        let leader = state.and_then(|(_, state)| match state {
            RoleState::Standby { leader } => leader,
            RoleState::Leads { .. } => None,
        });
        Standing::Waits { leader }
    })
}
