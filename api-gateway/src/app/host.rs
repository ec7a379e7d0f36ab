//! Hosts, for system admins. The cluster-manager owns them; reads go to the store.

use crate::{
    app::{
        App,
        catalog::shown,
        idempotency::IdempotencyRecord,
        intent::Intent,
        plan::{Done, Plan},
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{HostId, Problem, ProjectId, flavor::Size, host::Host};
use proto::cluster::v1 as pb;
use std::collections::BTreeMap;
use store::OrphanRow;

pub async fn find(app: &App, key: &str) -> Result<Host, ApiError> {
    let found = match key.parse::<HostId>() {
        Ok(id) => app.store().host_find(id).await?,
        Err(_) => app.store().host_find_by_name(key).await?,
    };
    found.ok_or_else(|| Problem::not_found("host", shown(key)).into())
}

/// What these hosts run and no instance is, by host.
pub async fn orphans(app: &App, ids: &[HostId]) -> Result<BTreeMap<HostId, Vec<OrphanRow>>, ApiError> {
    let mut of_hosts: BTreeMap<HostId, Vec<OrphanRow>> = BTreeMap::new();
    for orphan in app.store().orphan_list_of_hosts(ids).await? {
        of_hosts.entry(orphan.host_id).or_default().push(orphan);
    }
    Ok(of_hosts)
}

/// A change that an operator decides on a host. What it doesn't name stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostChange {
    pub cordoned: Option<bool>,
    pub cordon_reason: Option<String>,
    pub draining: Option<bool>,
    /// A project's id or name; empty: the host takes every project's instances.
    pub dedicated_to: Option<String>,
    pub zone: Option<String>,
    pub tags: Option<BTreeMap<String, String>>,
    pub cpu_overcommit_permille: Option<u32>,
    pub memory_overcommit_permille: Option<u32>,
    pub disk_overcommit_permille: Option<u32>,
    pub reserved: Option<HostReserve>,
    /// What a held host knew is given up.
    pub accept_loss: bool,
    /// All capacity that its agent reports is accepted.
    pub accept_capacity: bool,
}

/// What the operator reserves, so that instances can't use it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostReserve {
    pub vcpus: Option<u32>,
    pub memory_mib: Option<u64>,
    pub disk_gib: Option<u64>,
}

/// Changes what an operator decides on a host.
pub async fn change(
    app: &App,
    caller: &Caller,
    key: &str,
    change: HostChange,
    intent: &Intent,
) -> Result<Done<Host>, ApiError> {
    let record =
        IdempotencyRecord::open(app, caller, intent, 0, async { Ok(vec![find(app, key).await?.id.0]) }).await?;
    let id = record.ids.first().map(|id| HostId(*id)).ok_or_else(Problem::internal)?;
    let dedicated_to = match change.dedicated_to.as_deref() {
        Some("") => Some(String::new()),
        Some(key) => Some(project_id(app, key).await?.to_string()),
        None => None,
    };
    let request = pb::ChangeHostRequest {
        host_id: id.to_string(),
        expected_generation: intent.expected_generation(),
        cordoned: change.cordoned,
        cordon_reason: change.cordon_reason.clone(),
        zone: change.zone.clone(),
        replace_tags: change.tags.is_some(),
        tags: change.tags.clone().unwrap_or_default().into_iter().collect(),
        cpu_overcommit_permille: change.cpu_overcommit_permille,
        draining: change.draining,
        dedicated_to,
        memory_overcommit_permille: change.memory_overcommit_permille,
        disk_overcommit_permille: change.disk_overcommit_permille,
        reserved_vcpus: change.reserved.as_ref().and_then(|r| r.vcpus),
        reserved_memory_mib: change.reserved.as_ref().and_then(|r| r.memory_mib),
        reserved_disk_gib: change.reserved.as_ref().and_then(|r| r.disk_gib),
        accept_loss: change.accept_loss,
        accept_capacity: change.accept_capacity,
    };
    app.cluster().change_host(record.request(request)).await.map_err(|status| record.refused(status))?;
    let host = find(app, &id.to_string()).await?;
    if intent.dry_run {
        return Ok(Done::Plan(Plan::of(
            format!("host {} would be changed: {}", host.name, what(&change, &host).join(", ")),
            vec![format!("host {} ({})", host.name, host.id)],
        )));
    }
    Ok(Done::Change(host))
}

async fn project_id(app: &App, key: &str) -> Result<ProjectId, ApiError> {
    let found = match key.parse::<ProjectId>() {
        Ok(id) => app.store().project_find(id).await?,
        Err(_) => app.store().project_find_by_name(key).await?,
    };
    let absent = || Problem::not_found("project", shown(key)).with_field("/dedicated_to", "there is no such project");
    found.map(|project| project.id).ok_or_else(|| absent().into())
}

/// Takes a host out of the fleet.
pub async fn remove(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<()>, ApiError> {
    let record =
        IdempotencyRecord::open(app, caller, intent, 0, async { Ok(vec![find(app, key).await?.id.0]) }).await?;
    let id = record.ids.first().map(|id| HostId(*id)).ok_or_else(Problem::internal)?;
    let request = pb::RemoveHostRequest { host_id: id.to_string(), expected_generation: intent.expected_generation() };
    app.cluster().remove_host(record.request(request)).await.map_err(|status| record.refused(status))?;
    if intent.dry_run {
        let summary = "the host would be removed from the fleet, and its certificates refused".to_owned();
        return Ok(Done::Plan(Plan::of(summary, vec![format!("host {id}")])));
    }
    Ok(Done::Change(()))
}

/// What declaring a host dead came to.
pub struct Loss {
    pub host_id: HostId,
    pub host_name: String,
    pub declared: pb::DeclareHostLostResponse,
}

/// Declares a host lost, on the operator's word.
pub async fn declare_dead(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Done<Loss>, ApiError> {
    let record =
        IdempotencyRecord::open(app, caller, intent, 0, async { Ok(vec![find(app, key).await?.id.0]) }).await?;
    let id = record.ids.first().map(|id| HostId(*id)).ok_or_else(Problem::internal)?;
    let request = pb::DeclareHostLostRequest { host_id: id.to_string() };
    let declared = app.cluster().declare_host_lost(record.request(request)).await;
    let declared = declared.map_err(|status| record.refused(status))?.into_inner();
    let host_name = find(app, &id.to_string()).await.map_or_else(|_| id.to_string(), |host| host.name);
    if intent.dry_run {
        let pb::DeclareHostLostResponse { already, recreated, restarted, waiting, deleted, lines, .. } = declared;
        let summary = if already {
            format!("host {host_name} is lost already: nothing would be changed")
        } else {
            format!(
                "host {host_name} would be declared dead: {recreated} instances would be recreated elsewhere, {restarted} restarted, {waiting} would \
                 wait, {deleted} deletions would complete"
            )
        };
        return Ok(Done::Plan(Plan::of(summary, lines)));
    }
    Ok(Done::Change(Loss { host_id: id, host_name, declared }))
}

fn ratio(permille: u32) -> f64 {
    f64::from(permille) / 1000.0
}

/// The host with the capacity that it would have.
fn reshaped(change: &HostChange, host: &Host) -> Host {
    let mut next = host.clone();
    if change.accept_capacity {
        (next.accepted, next.offered) = (next.reported, next.reported);
    }
    if let Some(reserved) = &change.reserved {
        next.reserved = Size {
            vcpus: reserved.vcpus.unwrap_or(next.reserved.vcpus),
            memory_mib: reserved.memory_mib.unwrap_or(next.reserved.memory_mib),
            disk_gib: reserved.disk_gib.unwrap_or(next.reserved.disk_gib),
        };
    }
    next.cpu_overcommit_permille = change.cpu_overcommit_permille.unwrap_or(next.cpu_overcommit_permille);
    next.memory_overcommit_permille = change.memory_overcommit_permille.unwrap_or(next.memory_overcommit_permille);
    next.disk_overcommit_permille = change.disk_overcommit_permille.unwrap_or(next.disk_overcommit_permille);
    next.capacity = next.placeable();
    next
}

/// The changes, for people.
fn what(change: &HostChange, host: &Host) -> Vec<String> {
    let mut changes = Vec::new();
    match change.cordoned {
        Some(true) => changes.push("cordoned".to_owned()),
        Some(false) => changes.push("uncordoned".to_owned()),
        None => {}
    }
    match change.draining {
        Some(true) => changes.push("to be drained".to_owned()),
        Some(false) => changes.push("no longer to be drained".to_owned()),
        None => {}
    }
    match change.dedicated_to.as_deref() {
        Some("") => changes.push("for all projects".to_owned()),
        Some(project) => changes.push(format!("for project {project} alone")),
        None => {}
    }
    if change.accept_loss {
        changes.push("taken as it is, without what it has lost".to_owned());
    }
    if change.accept_capacity {
        changes.push(format!("with all the capacity that it reports ({})", amounts(host.reported)));
    }
    if let Some(zone) = &change.zone {
        changes.push(format!("zone {zone}"));
    }
    if change.tags.is_some() {
        changes.push("tags replaced".to_owned());
    }
    if let Some(ratio) = change.cpu_overcommit_permille.map(ratio) {
        changes.push(format!("{ratio} vCPUs per hardware thread"));
    }
    if let Some(ratio) = change.memory_overcommit_permille.map(ratio) {
        changes.push(format!("{ratio} times its memory"));
    }
    if let Some(ratio) = change.disk_overcommit_permille.map(ratio) {
        changes.push(format!("{ratio} times its disk"));
    }
    let next = reshaped(change, host);
    if change.reserved.is_some() {
        changes.push(format!("{} reserved", amounts(next.reserved)));
    }
    if next.capacity != host.capacity {
        changes.push(format!("a capacity of {}", amounts(next.capacity)));
        let beyond = next.beyond_capacity();
        if beyond != Size::default() {
            changes.push(format!("{} less than it holds: its instances stay, but nothing new fits", amounts(beyond)));
        }
    }
    if changes.is_empty() {
        changes.push("nothing".to_owned());
    }
    changes
}

fn amounts(size: Size) -> String {
    format!("{} vCPUs, {} MiB of memory, {} GiB of disk", size.vcpus, size.memory_mib, size.disk_gib)
}
