//! What must always hold, and what must hold once things are quiet: compared between the rows and all hosts' realities, by a reader that
//! takes no part.

use crate::{
    host::SimHost,
    ledger::{Machine, Power},
    world::World,
};
use domain::{
    HostId, InstanceId,
    flavor::Size,
    instance::{Instance, InstanceState, Power as DesiredPower, ReportFence},
};
use std::collections::{BTreeMap, HashMap};
use store::{InstanceFilter, InstanceRow, LeakKind, ReadError, Store};

/// Keeps what it observed last, to know what fell.
#[derive(Debug, Default)]
pub struct Checker {
    last: HashMap<InstanceId, (i64, i64, ReportFence)>,
}

const ALL: u32 = 100_000;

async fn rows(store: &Store) -> Result<Vec<InstanceRow>, ReadError> {
    store.instance_list(&InstanceFilter { limit: ALL, ..InstanceFilter::default() }).await
}

impl Checker {
    /// What is broken at this moment: nothing may ever be.
    pub async fn check(&mut self, store: &Store, world: &World) -> Result<Vec<String>, ReadError> {
        let mut broken = world.violations();
        for host in store.host_list().await? {
            let (used, capacity) = (host.used, host.capacity);
            if exceeds(used, capacity) {
                broken.push(format!("host {} has {used:?} claimed of {capacity:?}", host.name));
            }
        }
        for row in rows(store).await? {
            let Instance { id, generation, epoch, ref status, ref name, .. } = row.instance;
            let now = (generation, epoch, row.fence);
            if let Some((g, e, fence)) = self.last.insert(id, now)
                && (generation < g || epoch < e || row.fence < fence)
            {
                broken.push(format!("{name} fell from {:?} to {now:?}", (g, e, fence)));
            }
            if status.observed_generation > generation {
                broken.push(format!("{name} was observed at {} before {generation}", status.observed_generation));
            }
            if !status.state.is_final() && status.deadline_at.is_none() {
                broken.push(format!("{name} is {} without a deadline", status.state.as_str()));
            }
            if status.state == InstanceState::Error && status.reason.is_empty() {
                broken.push(format!("{name} is in error without a reason"));
            }
        }
        Ok(broken)
    }
}

fn exceeds(used: Size, capacity: Size) -> bool {
    used.vcpus > capacity.vcpus || used.memory_mib > capacity.memory_mib || used.disk_gib > capacity.disk_gib
}

/// What isn't as its owner wants yet: empty once all has converged. Takes connected hosts only.
pub async fn unconverged(store: &Store, hosts: &[&SimHost]) -> Result<Vec<String>, ReadError> {
    let mut open = Vec::new();
    let reality: BTreeMap<HostId, BTreeMap<InstanceId, Machine>> =
        hosts.iter().map(|h| (h.id(), h.machines())).collect();
    let rows = rows(store).await?;
    for row in &rows {
        open.extend(difference(&row.instance, &reality));
    }
    for (host_id, machines) in &reality {
        for id in machines.keys() {
            if !rows.iter().any(|r| r.instance.id == *id && r.instance.host_id == Some(*host_id)) {
                open.push(format!("{id} runs on {host_id}, which it isn't bound to"));
            }
        }
    }
    Ok(open)
}

fn difference(row: &Instance, reality: &BTreeMap<HostId, BTreeMap<InstanceId, Machine>>) -> Option<String> {
    let (name, status) = (&row.name, &row.status);
    if row.spec.deleted {
        return Some(format!("{name} is still {}: {}", status.state.as_str(), status.reason));
    }
    if !status.state.is_final() || status.observed_generation != row.generation {
        return Some(format!(
            "{name} is {} at {} of {}: {} {}",
            status.state.as_str(),
            status.observed_generation,
            row.generation,
            status.step,
            status.reason
        ));
    }
    let machine = row.host_id.and_then(|id| reality.get(&id)).and_then(|m| m.get(&row.id));
    let (is, epoch) = (machine.map(|m| m.power), machine.map(|m| m.epoch));
    let desired = match row.spec.power {
        DesiredPower::On => (Some(Power::Running), InstanceState::Running),
        DesiredPower::Off => (None, InstanceState::Stopped),
        DesiredPower::Paused => (Some(Power::Paused), InstanceState::Paused),
    };
    let held = epoch.is_none_or(|e| e == row.epoch);
    ((is, status.state) != desired || !held).then(|| {
        format!("{name} shall be {desired:?}, is {is:?} in epoch {epoch:?}, shown as {}", status.state.as_str())
    })
}

/// What was left behind, once nothing is on its way. Reservations still within their time are no leak.
pub async fn leaks(store: &Store) -> Result<Vec<String>, ReadError> {
    let report = store.leak_report().await?;
    Ok(report
        .into_iter()
        .filter(|l| l.kind != LeakKind::OperationExpired)
        .map(|l| format!("{}: {}", l.kind.as_str(), l.detail))
        .collect())
}
