//! Holds memory against the database.
//!
//! What is left behind in the tables is the store's report, which the cluster-manager's checker walks. Here is what only this service can
//! know: that memory, which every decision is made on, is what the rows say. They are compared network by network: what is read at once is what
//! one network has. Between a commit and memory's taking it in they differ for a
//! moment, so only what two looks in a row name is a drift: it is logged, counted in `iaas_leaks_total`, and corrected.

use crate::{
    Manager,
    manager::used,
    network::ipam::{Ipam, Scope, ScopedAddress, Use},
    network::topology::{RowChange, RowKey, Topology},
};
use domain::{NetworkId, PortId, Timestamp, network::Port};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use store::{AddressRow, Page, ReadError};

const APART: Duration = Duration::from_secs(2);
/// The pause behind one network, so that the check costs the same however many there are.
const BETWEEN_SCOPES: Duration = Duration::from_millis(100);
/// Networks read in one go.
const PAGE: u32 = 1000;

/// One way in which memory isn't what the rows say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drift {
    /// Its owner, its quarantine or its being free.
    Address(ScopedAddress),
    /// Its generation, or that it is there.
    Port(PortId),
}

/// What the database says of one network, or of one external network.
#[derive(Default)]
struct ScopeRows {
    addresses: Vec<AddressRow>,
    ports: Vec<Port>,
}

/// Memory and the rows of one scope, as far as they differ. Pure.
fn drift(topology: &Topology, ipam: &Ipam, scope: Scope, rows: &ScopeRows, now: Timestamp) -> Vec<Drift> {
    let mut used_rows: BTreeMap<ScopedAddress, Use> = BTreeMap::new();
    for row in &rows.addresses {
        used_rows.insert((scope, row.address), used(row));
    }
    let mut drifts = Vec::new();
    for (at, row) in &used_rows {
        let in_a_pool = ipam.pools(scope).iter().any(|pool| pool.cidr().contains(at.1));
        let alike = match (row, ipam.used(*at)) {
            // It may be taken over already, or be quarantined in memory still.
            (Use::Quarantined(until), _) if *until <= now => true,
            (row, used) => used == Some(*row),
        };
        if in_a_pool && !alike {
            drifts.push(Drift::Address(*at));
        }
    }
    drifts.extend(ipam.held(scope).filter(|at| !used_rows.contains_key(at)).map(Drift::Address));
    let known = topology.ports_of(NetworkId(scope)).map(|port| (port.id, port.generation));
    let mut known: BTreeMap<PortId, i64> = known.collect();
    for port in &rows.ports {
        if known.remove(&port.id) != Some(port.generation) {
            drifts.push(Drift::Port(port.id));
        }
    }
    drifts.extend(known.into_keys().map(Drift::Port));
    drifts
}

async fn look(manager: &Manager, scope: Scope) -> Result<Vec<Drift>, ReadError> {
    let addresses = manager.store.address_list_of_scope(&scope.to_string()).await?;
    let ports = manager.store.port_list_of_network(NetworkId(scope)).await?;
    let topology = manager.topology();
    Ok(drift(&topology, &manager.ipam(), scope, &ScopeRows { addresses, ports }, Timestamp::now()))
}

/// What two looks in a row, `apart` from each other, both name.
async fn check(manager: &Manager, scope: Scope, apart: Duration) -> Result<Vec<Drift>, ReadError> {
    let first = look(manager, scope).await?;
    if first.is_empty() {
        return Ok(first);
    }
    tokio::time::sleep(apart).await;
    Ok(look(manager, scope).await?.into_iter().filter(|drift| first.contains(drift)).collect())
}

/// All networks and external networks, of memory and of the rows.
async fn scopes(manager: &Manager) -> Result<BTreeSet<Scope>, ReadError> {
    let mut scopes: BTreeSet<Scope> = {
        let topology = manager.topology();
        let ipam = manager.ipam();
        let networks = topology.networks().map(|network| network.id.0);
        let external = topology.external_networks().map(|network| network.id.0);
        networks.chain(external).chain(ipam.scopes()).collect()
    };
    let mut after = None;
    loop {
        let page = manager.store.network_list_all(Page { after, limit: PAGE }).await?;
        scopes.extend(page.iter().map(|network| network.id.0));
        after = page.last().map(|network| network.id.to_string());
        if page.len() < PAGE as usize {
            return Ok(scopes);
        }
    }
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

/// Looks again and again, until the shutdown: at one network at a time, with a pause behind each.
pub async fn run(manager: Arc<Manager>) {
    metrics::counter!("iaas_leaks_total").increment(0);
    loop {
        if manager.stopped_within(Duration::from_secs(manager.config.leak_check_secs)).await {
            return;
        }
        let scopes = match scopes(&manager).await {
            Ok(scopes) => scopes,
            Err(error) => {
                unreadable(&error);
                continue;
            }
        };
        for scope in scopes {
            match check(&manager, scope, APART).await {
                Ok(drifts) => correct(&manager, drifts).await,
                Err(error) => unreadable(&error),
            }
            if manager.stopped_within(BETWEEN_SCOPES).await {
                return;
            }
        }
    }
}

fn unreadable(error: &ReadError) {
    tracing::warn!(error = error as &dyn std::error::Error, "memory can't be held against the database now");
}

async fn correct(manager: &Manager, drifts: Vec<Drift>) {
    for drift in drifts {
        metrics::counter!("iaas_leaks_total").increment(1);
        tracing::error!(?drift, "memory was not what the database says");
        if let Err(error) = repair(manager, drift).await {
            tracing::warn!(error = &error as &dyn std::error::Error, ?drift, "memory can't be corrected now");
        }
    }
}

impl Manager {
    /// Waits; whether the shutdown came meanwhile.
    async fn stopped_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.shutdown.cancelled()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{HostId, SubnetId, network::SubnetSpec};
    use store::AddressOwner;

    #[test]
    fn what_memory_and_the_rows_of_one_network_say_differently_is_found_both_ways() {
        let (scope, subnet_id, now) = (Scope::from(HostId::new().0), SubnetId::new(), Timestamp(1000));
        let spec = SubnetSpec {
            cidr: "10.0.0.0/24".parse().expect("a CIDR"),
            gateway: [10, 0, 0, 1].into(),
            dns: vec![],
            allocation: vec!["10.0.0.2-10.0.0.254".parse().expect("a range")],
            host_routes: vec![],
        };
        let mut ipam = Ipam::default();
        ipam.put_pool(scope, Some(subnet_id), &spec);
        // Another network's addresses are none of its affair.
        let other = Scope::from(HostId::new().0);
        ipam.put_pool(other, Some(SubnetId::new()), &spec);
        let at = |scope, last: u8| (scope, std::net::IpAddr::from([10, 0, 0, last]));
        let row = |last: u8, free_at: Option<i64>| AddressRow {
            scope_id: scope.to_string(),
            address: at(scope, last).1,
            subnet_id: Some(subnet_id),
            owner_kind: AddressOwner::Port,
            owner_id: "x".into(),
            free_at: free_at.map(Timestamp),
        };
        for held in [at(scope, 5), at(scope, 6), at(other, 9)] {
            ipam.set(held, Some(Use::Held));
        }
        let rows = ScopeRows {
            // Held by both, by the rows alone, quarantined until some time ago, outside of the subnet.
            addresses: vec![
                row(5, None),
                row(7, None),
                row(8, Some(999)),
                AddressRow { address: [10, 9, 0, 1].into(), ..row(1, None) },
            ],
            ports: vec![],
        };
        let found = drift(&Topology::default(), &ipam, scope, &rows, now);
        assert_eq!(found, [Drift::Address(at(scope, 7)), Drift::Address(at(scope, 6))]);
        let none = drift(&Topology::default(), &ipam, Scope::from(HostId::new().0), &ScopeRows::default(), now);
        assert_eq!(none, []);
    }
}
