//! Watches which hosts are connected: one that stays away past its grace is shown as disconnected.
//!
//! Heartbeats live in memory; only transitions reach the database, and this one task writes all of those that no connection makes. It
//! compares, again and again, what is connected with what the inventory says, and writes the difference: a transition that failed, or
//! that raced with a new connection, is put right by the next look.

use super::register::host_event;
use crate::manager::Manager;
use domain::{HostId, Timestamp, host::HostState};
use service_kit::host_streams::Connection;
use std::{sync::Arc, time::Duration};
use store::Unit;

const COMPARE_EVERY: Duration = Duration::from_millis(200);
/// Rounds between two comparisons of a page of the inventory with the rows.
const REFRESH_EVERY: u32 = 25;

/// Compares until the shutdown.
pub async fn liveness_loop(manager: Arc<Manager>) {
    let (mut rounds, mut refreshed) = (0_u32, None);
    loop {
        tokio::select! {
            () = manager.lifetime.shutdown.cancelled() => return,
            () = tokio::time::sleep(COMPARE_EVERY) => {}
        }
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(REFRESH_EVERY) {
            refreshed = manager.refresh_hosts(refreshed).await;
        }
        let mut connected = 0_u32;
        for (host_id, connection) in manager.agents.all() {
            let shown_up = manager.inventory().find(host_id).is_some_and(|h| h.up);
            let should_be_up = match connection {
                Connection::Connected(_) => {
                    connected += 1;
                    true
                }
                Connection::Disconnected { since } => shown_up && since.elapsed() < manager.config.disconnect_grace(),
            };
            if should_be_up != shown_up
                && let Err(error) = show(&manager, host_id, should_be_up).await
            {
                tracing::warn!(%host_id, error = &error as &dyn std::error::Error, "a host's state can't be stored yet");
            }
        }
        metrics::gauge!("iaas_hosts_connected").set(f64::from(connected));
    }
}

async fn show(manager: &Manager, host_id: HostId, up: bool) -> Result<(), ShowError> {
    let Some(host) = manager.store.host_find(host_id).await.map_err(ShowError::Read)? else { return Ok(()) };
    let (state, verb) = if up { (HostState::Up, "up") } else { (HostState::Disconnected, "disconnected") };
    if host.state != state {
        let unit = Unit::new()
            .op(store::HostStateSet { id: host_id, state, at: Timestamp::now() })
            .op(store::EventInsert(host_event(&host, verb, format!("host {} is {verb}", host.name))));
        manager.store.commit(unit).await.map_err(ShowError::Commit)?;
        tracing::info!(%host_id, host = host.name, state = state.as_str(), "a host's state changed");
    }
    manager.inventory().set_up(host_id, up);
    // What waits for this host now says so, or no longer does.
    let ids = manager.store.instance_list_of_host(host_id).await.map_err(ShowError::Read)?;
    manager.signal.wake(ids, None);
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum ShowError {
    #[error("the host can't be read")]
    Read(#[source] store::ReadError),
    #[error("its state can't be written")]
    Commit(#[source] store::CommitError),
}
