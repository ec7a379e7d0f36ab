//! Watches which hosts are connected: one that stays away past its grace is shown as disconnected, and one whose disk is full as such.
//!
//! Heartbeats live in memory; only transitions reach the database, and this one task writes all of those that no connection makes. It
//! compares, again and again, what is connected with what the inventory says, and writes the difference: a transition that failed, or
//! that raced with a new connection, is put right by the next look.

use super::register::{host_event, state_message};
use crate::manager::Manager;
use domain::{
    HostId, Timestamp,
    host::{Host, HostState},
};
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
            watch_all(&manager);
            if let Ok(orphans) = manager.store.orphan_count().await {
                metrics::gauge!("iaas_orphans").set(orphans as f64);
            }
        }
        let (mut connected, mut held, mut disk_full) = (0_u32, 0_u32, 0_u32);
        for (host_id, connection) in manager.agents.all() {
            let Some(shown) = manager.host_state(host_id) else { continue };
            let state = match connection {
                // A verdict ends by proof alone.
                Connection::Connected(_) | Connection::Disconnected { .. } if shown == HostState::Lost => {
                    HostState::Lost
                }
                Connection::Connected(_) if shown == HostState::Held => HostState::Held,
                Connection::Connected(stream) if stream.statistics.lock().disk_full => HostState::DiskFull,
                Connection::Connected(_) => HostState::Up,
                Connection::Disconnected { since } if since.elapsed() < manager.config.disconnect_grace() => shown,
                Connection::Disconnected { .. } => HostState::Disconnected,
            };
            connected += u32::from(!matches!(state, HostState::Disconnected | HostState::Lost));
            held += u32::from(state == HostState::Held);
            disk_full += u32::from(state == HostState::DiskFull);
            if state != shown
                && let Err(error) = show(&manager, host_id, state).await
            {
                tracing::warn!(%host_id, error = &error as &dyn std::error::Error, "a host's state can't be stored yet");
            }
        }
        metrics::gauge!("iaas_hosts_connected").set(f64::from(connected));
        metrics::gauge!("iaas_hosts_held").set(f64::from(held));
        metrics::gauge!("iaas_hosts_disk_full").set(f64::from(disk_full));
    }
}

/// A host that the rows show as there is watched, whoever wrote that: a manager that ended a moment ago may have.
fn watch_all(manager: &Manager) {
    let there = |state: HostState| !matches!(state, HostState::Disconnected | HostState::Lost);
    let hosts: Vec<HostId> = manager.inventory().hosts().filter(|host| there(host.state)).map(|host| host.id).collect();
    for host_id in hosts {
        manager.agents.expect(host_id);
    }
}

async fn show(manager: &Manager, host_id: HostId, state: HostState) -> Result<(), ShowError> {
    let Some(host) = manager.store.host_find(host_id).await.map_err(ShowError::Read)? else { return Ok(()) };
    if host.state != state {
        let host = Host { state, ..host };
        let unit = Unit::new()
            .op(store::HostStateSet { id: host_id, state, at: Timestamp::now() })
            .op(store::EventInsert(host_event(&host, state.as_str(), state_message(&host))));
        manager.store.commit(unit).await.map_err(ShowError::Commit)?;
        tracing::info!(%host_id, host = host.name, state = state.as_str(), "a host's state changed");
    }
    manager.inventory().set_state(host_id, state);
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
