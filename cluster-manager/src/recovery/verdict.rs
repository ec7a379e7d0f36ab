//! The verdict on a host: what proves its loss, what follows from it, and the one unit that makes it.

use super::plan::{Fate, disks_outlive, fate, too_many_lost};
use crate::{agents::register::host_event, host::change, manager::Manager, outcome::store_outcome};
use domain::{
    ErrorKind, HostId, InstanceId, Problem, Timestamp,
    host::{Host, HostState},
    instance::Instance,
    recovery::LossProof,
};
use operation::{Activity, commit_problem, contended, read_problem};
use service_kit::context::CallContext;
use store::{CommitError, Guard, Unit};

const ATTEMPTS: usize = 5;
/// Instances that are read at once.
pub(super) const PAGE: usize = 500;
/// Instances that a plan names.
const NAMED_MAX: usize = 200;

/// What proves that nothing of a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// An operator says so.
    Declared,
    /// The lease of this number lapsed: its guard has ended what may run elsewhere.
    Lease { number: i64 },
}

/// What a verdict comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredLost {
    pub host_id: HostId,
    /// It was lost already: nothing was changed.
    pub already: bool,
    pub recreated: u32,
    pub restarted: u32,
    pub waiting: u32,
    pub deleted: u32,
    /// What becomes of each instance, for people; at most as many as are worth reading.
    pub lines: Vec<String>,
}

/// Declares the host lost.
pub async fn declare(
    manager: &Manager,
    context: &CallContext,
    host_id: HostId,
    proof: Proof,
) -> Result<DeclaredLost, Problem> {
    for _ in 0..ATTEMPTS {
        let host = change::fetch(manager, host_id, None).await?;
        let instances = instances_of(manager, host_id).await?;
        let declared = consequences(&host, &instances);
        if !declared.already {
            check_silent(manager, &host, proof)?;
            check_share(manager, &host, proof)?;
        }
        if context.dry_run {
            return Ok(declared);
        }
        match manager.store.commit(unit(context, &host, proof, &declared)).await {
            Ok(()) => {
                after_commit(manager, &host, proof, &instances);
                return Ok(declared);
            }
            Err(CommitError::Guard(Guard::HostGeneration)) => {}
            Err(error) => return Err(commit_problem(error)),
        }
    }
    Err(contended("the host"))
}

async fn instances_of(manager: &Manager, host_id: HostId) -> Result<Vec<Instance>, Problem> {
    let ids = manager.store.instance_list_of_host(host_id).await.map_err(read_problem)?;
    let mut instances = Vec::with_capacity(ids.len());
    for page in ids.chunks(PAGE) {
        let rows = manager.store.instance_load_many(page).await.map_err(read_problem)?;
        instances.extend(rows.into_iter().map(Instance::from));
    }
    Ok(instances)
}

fn consequences(host: &Host, instances: &[Instance]) -> DeclaredLost {
    let mut declared = DeclaredLost {
        host_id: host.id,
        already: host.state == HostState::Lost,
        recreated: 0,
        restarted: 0,
        waiting: 0,
        deleted: 0,
        lines: Vec::new(),
    };
    for instance in instances {
        let Instance { id, ref name, .. } = *instance;
        let (count, what) = match fate(instance, disks_outlive(instance)) {
            Fate::Recreated if instance.disks().is_empty() => {
                (&mut declared.recreated, "starts elsewhere; it has no disk")
            }
            Fate::Recreated => {
                (&mut declared.recreated, "starts elsewhere from its image; what is on its root disk is lost")
            }
            Fate::Restarts => (&mut declared.restarted, "starts elsewhere with its disks"),
            Fate::Waits => (&mut declared.waiting, "waits for its host, or for its deletion"),
            Fate::Deleted => (&mut declared.deleted, "is being deleted, which completes"),
        };
        *count += 1;
        if declared.lines.len() < NAMED_MAX {
            declared.lines.push(format!("instance {name} ({id}) {what}"));
        }
    }
    if instances.len() > NAMED_MAX {
        declared.lines.push(format!("and {} more instances", instances.len() - NAMED_MAX));
    }
    declared
}

/// An operator may be wrong about a host that speaks.
fn check_silent(manager: &Manager, host: &Host, proof: Proof) -> Result<(), Problem> {
    let connected = manager.agents.find(host.id).is_some() || host.state != HostState::Disconnected;
    match proof {
        Proof::Declared if connected => Err(Problem::new(
            ErrorKind::InvalidState,
            "host_is_connected",
            format!("host {} is {}: its agent speaks, or has spoken seconds ago", host.name, host.state.as_str()),
        )
        .with_hint(
            "what runs on a host that lives would run twice: switch the machine off (or stop its agent and every instance on it), wait until it \
             is shown as disconnected, and repeat this",
        )),
        Proof::Declared | Proof::Lease { .. } => Ok(()),
    }
}

/// When much of a zone looks lost at once, nothing is declared lost by itself.
fn check_share(manager: &Manager, host: &Host, proof: Proof) -> Result<(), Problem> {
    let (away, hosts) = {
        let inventory = manager.inventory();
        let zone = inventory.hosts().filter(|other| *other.zone == *host.zone);
        zone.fold((0, 0), |(away, hosts), other| {
            let gone = other.id == host.id || matches!(other.state, HostState::Lost | HostState::Disconnected);
            (away + usize::from(gone), hosts + 1)
        })
    };
    let share = manager.config.recovery_lost_share_percent;
    let halted = too_many_lost(away, hosts, share);
    let news = manager.recoveries.set_halted(&host.zone, halted);
    let Proof::Lease { .. } = proof else { return Ok(()) };
    if !halted {
        return Ok(());
    }
    if news {
        tracing::error!(
            zone = host.zone,
            away,
            hosts,
            share_percent = share,
            "so much of a zone looks lost at once that nothing is recovered by itself: look at the network between the managers and the hosts; \
             `iaasctl host declare-dead` recovers a host all the same"
        );
    }
    Err(Problem::new(
        ErrorKind::InvalidState,
        "too_many_hosts_lost",
        format!("{away} of {hosts} hosts of zone {} look lost at once, more than {share} %", host.zone),
    )
    .with_hint("look at the network first; `iaasctl host declare-dead` recovers a host all the same"))
}

fn unit(context: &CallContext, host: &Host, proof: Proof, declared: &DeclaredLost) -> Unit {
    let now = Timestamp::now();
    let mut unit = Unit::new();
    store_outcome(&mut unit, context, declared, now);
    if declared.already {
        return unit;
    }
    let (kind, lease_number) = match proof {
        Proof::Declared => (LossProof::Declared, None),
        Proof::Lease { number } => (LossProof::Lease, Some(number)),
    };
    let declared_by = if context.principal_name.is_empty() { &context.principal } else { &context.principal_name };
    unit.push(store::HostLost { id: host.id, silent: proof == Proof::Declared, at: now });
    unit.push(store::HostVerdictInsert {
        host_id: host.id,
        proof: kind,
        lease_number,
        declared_by: declared_by.clone(),
        lost_at: if host.state == HostState::Disconnected { host.state_changed_at } else { now },
        declared_at: now,
    });
    let DeclaredLost { recreated, restarted, waiting, deleted, .. } = declared;
    let message = format!(
        "host {} was declared lost: {recreated} instances are recreated elsewhere, {restarted} restarted, {waiting} wait, {deleted} deletions complete",
        host.name
    );
    let data = serde_json::json!({
        "proof": kind.as_str(), "lease_number": lease_number, "recreated": recreated, "restarted": restarted, "waiting": waiting,
        "deleted": deleted,
    });
    Activity::accepted("host", host.id, "declare_dead", message.clone())
        .with_data(data)
        .record(&mut unit, context, now);
    unit.push(store::EventInsert(host_event(host, "lost", message)));
    unit
}

fn after_commit(manager: &Manager, host: &Host, proof: Proof, instances: &[Instance]) {
    manager.inventory().set_state(host.id, HostState::Lost);
    // A stream that still stands is of a host without a lease: it comes back as one that is lost.
    if let Some(stream) = manager.agents.find(host.id) {
        manager.agents.disconnect(&stream);
    }
    tracing::warn!(host_id = %host.id, host = host.name, ?proof, instances = instances.len(), "a host was declared lost");
    metrics::counter!("iaas_hosts_declared_lost_total").increment(1);
    manager.recoveries.wake();
    let ids: Vec<InstanceId> = instances.iter().map(|instance| instance.id).collect();
    manager.signal.wake(ids, None);
}
