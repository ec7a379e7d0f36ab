//! Hosts, for system admins. The cluster-manager owns them; reads go to the store.

use crate::{
    app::{App, catalog::shown, idempotency::Ticket, instance::Done},
    auth::scope::Caller,
    http::{intent::Intent, problem::ApiError},
    v1::view::{host::HostChange, plan::PlanView},
};
use domain::{HostId, Problem, ProjectId, Violations, flavor::Size, host::Host, validate};
use proto::cluster::v1 as pb;

pub async fn find(app: &App, key: &str) -> Result<Host, ApiError> {
    let found = match key.parse::<HostId>() {
        Ok(id) => app.store().host_find(id).await?,
        Err(_) => app.store().host_find_by_name(key).await?,
    };
    found.ok_or_else(|| Problem::not_found("host", shown(key)).into())
}

pub fn check_change(body: &HostChange) -> Result<(), Problem> {
    let mut violations = Violations::default();
    if let Some(reason) = &body.cordon_reason {
        violations.description("/cordon_reason", reason);
        let uncordons = body.cordoned == Some(false) && !reason.is_empty();
        violations.unless(!uncordons, "/cordon_reason", || "a host that isn't cordoned has none".to_owned());
    }
    body.zone.iter().for_each(|zone| validate::name(&mut violations, "/zone", zone));
    body.tags.iter().for_each(|tags| validate::tags(&mut violations, "/tags", tags));
    let [cpu, memory, disk] =
        [body.cpu_overcommit, body.memory_overcommit, body.disk_overcommit].map(|r| r.map(permille));
    validate::host::overcommit(&mut violations, "/", cpu, memory, disk);
    violations.finish()
}

/// Changes what an operator decides on a host.
pub async fn change(
    app: &App,
    caller: &Caller,
    key: &str,
    body: &HostChange,
    intent: &Intent,
) -> Result<Done<Host>, ApiError> {
    check_change(body)?;
    let ticket = Ticket::open(app, caller, intent, async || Ok(vec![find(app, key).await?.id.0])).await?;
    let id = ticket.ids.first().map(|id| HostId(*id)).ok_or_else(Problem::internal)?;
    let dedicated_to = match body.dedicated_to.as_deref() {
        Some("") => Some(String::new()),
        Some(key) => Some(project_id(app, key).await?.to_string()),
        None => None,
    };
    let request = pb::ChangeHostRequest {
        host_id: id.to_string(),
        expected_generation: intent.expected_generation(),
        cordoned: body.cordoned,
        cordon_reason: body.cordon_reason.clone(),
        zone: body.zone.clone(),
        replace_tags: body.tags.is_some(),
        tags: body.tags.clone().unwrap_or_default().into_iter().collect(),
        cpu_overcommit_permille: body.cpu_overcommit.map(permille),
        draining: body.draining,
        dedicated_to,
        memory_overcommit_permille: body.memory_overcommit.map(permille),
        disk_overcommit_permille: body.disk_overcommit.map(permille),
        reserved_vcpus: body.reserved.as_ref().and_then(|r| r.vcpus),
        reserved_memory_mib: body.reserved.as_ref().and_then(|r| r.memory_mib),
        reserved_disk_gib: body.reserved.as_ref().and_then(|r| r.disk_gib),
    };
    app.cluster().change_host(ticket.request(request)).await.map_err(|status| ticket.refused(status))?;
    let host = find(app, &id.to_string()).await?;
    if intent.dry_run {
        return Ok(Done::Plan(PlanView {
            summary: format!("host {} would be changed: {}", host.name, what(body, &host).join(", ")),
            placement: None,
            quota_left: None,
            touches: vec![format!("host {} ({})", host.name, host.id)],
        }));
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

/// Takes a host out of the fleet. The plan, for a dry run.
pub async fn remove(app: &App, caller: &Caller, key: &str, intent: &Intent) -> Result<Option<PlanView>, ApiError> {
    let ticket = Ticket::open(app, caller, intent, async || Ok(vec![find(app, key).await?.id.0])).await?;
    let id = ticket.ids.first().map(|id| HostId(*id)).ok_or_else(Problem::internal)?;
    let request = pb::RemoveHostRequest { host_id: id.to_string(), expected_generation: intent.expected_generation() };
    app.cluster().remove_host(ticket.request(request)).await.map_err(|status| ticket.refused(status))?;
    Ok(intent.dry_run.then(|| PlanView {
        summary: "the host would be removed from the fleet, and its certificates refused".to_owned(),
        placement: None,
        quota_left: None,
        touches: vec![format!("host {id}")],
    }))
}

/// `ratio` was checked.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn permille(ratio: f64) -> u32 {
    (ratio * 1000.0).round() as u32
}

/// The host with the room that it would have.
fn reshaped(body: &HostChange, host: &Host) -> Host {
    let mut next = host.clone();
    if let Some(reserved) = &body.reserved {
        next.reserved = Size {
            vcpus: reserved.vcpus.unwrap_or(next.reserved.vcpus),
            memory_mib: reserved.memory_mib.unwrap_or(next.reserved.memory_mib),
            disk_gib: reserved.disk_gib.unwrap_or(next.reserved.disk_gib),
        };
    }
    next.cpu_overcommit_permille = body.cpu_overcommit.map_or(next.cpu_overcommit_permille, permille);
    next.memory_overcommit_permille = body.memory_overcommit.map_or(next.memory_overcommit_permille, permille);
    next.disk_overcommit_permille = body.disk_overcommit.map_or(next.disk_overcommit_permille, permille);
    next.capacity = next.placeable();
    next
}

/// For people.
fn what(body: &HostChange, host: &Host) -> Vec<String> {
    let mut changes = Vec::new();
    match body.cordoned {
        Some(true) => changes.push("cordoned".to_owned()),
        Some(false) => changes.push("uncordoned".to_owned()),
        None => {}
    }
    match body.draining {
        Some(true) => changes.push("to be emptied".to_owned()),
        Some(false) => changes.push("no more to be emptied".to_owned()),
        None => {}
    }
    match body.dedicated_to.as_deref() {
        Some("") => changes.push("for all projects".to_owned()),
        Some(project) => changes.push(format!("for project {project} alone")),
        None => {}
    }
    if let Some(zone) = &body.zone {
        changes.push(format!("zone {zone}"));
    }
    if body.tags.is_some() {
        changes.push("tags replaced".to_owned());
    }
    if let Some(ratio) = body.cpu_overcommit {
        changes.push(format!("{ratio} vCPUs per hardware thread"));
    }
    if let Some(ratio) = body.memory_overcommit {
        changes.push(format!("{ratio} times its memory"));
    }
    if let Some(ratio) = body.disk_overcommit {
        changes.push(format!("{ratio} times its disk"));
    }
    let next = reshaped(body, host);
    if body.reserved.is_some() {
        changes.push(format!("{} kept from instances", amounts(next.reserved)));
    }
    if next.capacity != host.capacity {
        changes.push(format!("room for {} in all", amounts(next.capacity)));
        let beyond = next.beyond_capacity();
        if beyond != Size::default() {
            changes.push(format!("{} less than it holds: that stays, nothing new fits", amounts(beyond)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_named() {
        let bad = HostChange {
            cordoned: Some(false),
            cordon_reason: Some("disk".into()),
            zone: Some("Zone A".into()),
            tags: Some([(String::new(), "x".into())].into()),
            cpu_overcommit: Some(f64::NAN),
            draining: None,
            dedicated_to: None,
            reserved: None,
            memory_overcommit: Some(10.1),
            disk_overcommit: Some(-1.0),
        };
        let fields: Vec<_> = check_change(&bad).expect_err("bad").errors.into_iter().map(|e| e.field).collect();
        assert_eq!(
            fields,
            ["/cordon_reason", "/zone", "/tags/", "/cpu_overcommit", "/memory_overcommit", "/disk_overcommit"]
        );
        assert_eq!(check_change(&HostChange { cpu_overcommit: Some(4.0), ..HostChange::default() }), Ok(()));
        assert_eq!((permille(4.0), permille(1.5), permille(0.1)), (4000, 1500, 100));
    }
}
