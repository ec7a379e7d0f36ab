//! What grows and must not: events and the audit log past their retention, idempotency keys after a day, used-up tokens. And what must be renewed.

use crate::{app::App, failure::ApiError};
use domain::Timestamp;
use std::time::Duration;
use store::Retention;
use tokio_util::sync::CancellationToken;

const SWEEP_EVERY: Duration = Duration::from_secs(600);
const UPKEEP_EVERY: Duration = Duration::from_secs(10);
/// Idempotency keys and their outcomes.
const KEYS_KEPT_SECS: u64 = 24 * 3600;

/// Runs until `shutdown`. A sweep that fails is tried again at the next tick: it takes no input.
pub async fn run(app: App, shutdown: CancellationToken) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = upkeep.tick() => app.metrics().run_upkeep(),
            _ = sweep.tick() => {
                if let Err(error) = once(&app).await {
                    tracing::warn!(problem = %error.problem(), "a sweep failed; it is tried again");
                }
                app.auth().limits.sweep();
            }
        }
    }
}

/// Everything that is past its time, in slices.
pub async fn once(app: &App) -> Result<(), ApiError> {
    let now = Timestamp::now();
    let ago = |secs: u64| Timestamp(now.0 - i64::try_from(secs).unwrap_or(i64::MAX / 2000) * 1000);
    let keys_before = ago(KEYS_KEPT_SECS);
    let past = [
        (Retention::Events, ago(app.config().api.event_retention_hours * 3600)),
        (Retention::Idempotency, keys_before),
        (Retention::IdentityOperations, keys_before),
        (Retention::RefreshTokens, now),
        (Retention::Audit, ago(app.config().api.audit_retention_days * 24 * 3600)),
    ];
    for (what, before) in past {
        app.store().expire(what, before).await?;
    }
    app.auth().keyring.rotate(app.store()).await
}
