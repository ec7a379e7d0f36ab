//! Holds memory against the database.
//!
//! What is left behind in the tables is the store's report, which the cluster-manager's checker walks. Here is what only this service can
//! know: that memory, which every decision is made on, is what the rows say. Between a commit and memory's taking it in they differ for a
//! moment, so only what two looks in a row name is a drift: it is logged, counted in `iaas_leaks_total`, and corrected.

use crate::{
    Manager,
    manager::used,
    network::ipam::{Ipam, ScopedAddress, Use},
    network::topology::{RowChange, RowKey, Topology},
};
use domain::{Timestamp, network::Port};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{AddressRow, ReadError};

const APART: Duration = Duration::from_secs(2);

/// One way in which memory isn't what the rows say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drift {
    /// Its owner, its quarantine or its being free.
    Address(ScopedAddress),
    /// Its generation, or that it is there.
    Port(domain::PortId),
}

/// Both, as far as they differ. Pure.
#[must_use]
pub fn drift(topology: &Topology, ipam: &Ipam, addresses: &[AddressRow], ports: &[Port], now: Timestamp) -> Vec<Drift> {
    let mut rows: BTreeMap<ScopedAddress, Use> = BTreeMap::new();
    for row in addresses {
        if let Ok(scope) = row.scope_id.parse() {
            rows.insert((scope, row.address), used(row));
        }
    }
    let mut drifts = Vec::new();
    for (at, row) in &rows {
        let in_a_pool = ipam.pools(at.0).iter().any(|pool| pool.cidr().contains(at.1));
        let alike = match (row, ipam.used(*at)) {
            // It may be taken over already, or be quarantined in memory still.
            (Use::Quarantined(until), _) if *until <= now => true,
            (row, used) => used == Some(*row),
        };
        if in_a_pool && !alike {
            drifts.push(Drift::Address(*at));
        }
    }
    drifts.extend(ipam.held().filter(|at| !rows.contains_key(at)).map(Drift::Address));
    let mut known: BTreeMap<domain::PortId, i64> = topology.ports().map(|port| (port.id, port.generation)).collect();
    for port in ports {
        if known.remove(&port.id) != Some(port.generation) {
            drifts.push(Drift::Port(port.id));
        }
    }
    drifts.extend(known.into_keys().map(Drift::Port));
    drifts
}

async fn look(manager: &Manager) -> Result<Vec<Drift>, ReadError> {
    let addresses = manager.store.address_load_all().await?;
    let ports = manager.store.port_load_all().await?;
    let topology = manager.topology();
    Ok(drift(&topology, &manager.ipam(), &addresses, &ports, Timestamp::now()))
}

/// What two looks in a row, `apart` from each other, both name.
pub async fn check(manager: &Manager, apart: Duration) -> Result<Vec<Drift>, ReadError> {
    let first = look(manager).await?;
    if first.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(apart).await;
    Ok(look(manager).await?.into_iter().filter(|drift| first.contains(drift)).collect())
}

/// As the database has it.
async fn repair(manager: &Manager, drift: Drift) -> Result<(), ReadError> {
    match drift {
        Drift::Address(at) => manager.refresh_addresses(&[at]).await,
        Drift::Port(id) => {
            let port = manager.store.port_find(id).await?;
            manager.apply_committed([port.map_or(RowChange::Gone(RowKey::Port(id)), RowChange::Port)]);
            Ok(())
        }
    }
}

/// Looks again and again, until the shutdown.
pub async fn run(manager: Arc<Manager>) {
    metrics::counter!("iaas_leaks_total").increment(0);
    loop {
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(manager.config.leak_check_secs)) => {}
        }
        let drifts = match check(&manager, APART).await {
            Ok(drifts) => drifts,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "memory can't be held against the database now"
                );
                continue;
            }
        };
        for drift in drifts {
            metrics::counter!("iaas_leaks_total").increment(1);
            tracing::error!(?drift, "memory was not what the database says");
            if let Err(error) = repair(&manager, drift).await {
                tracing::warn!(error = &error as &dyn std::error::Error, ?drift, "memory can't be corrected now");
            }
        }
    }
}
