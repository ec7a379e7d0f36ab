//! What hosts say of their objects. Of ports it is stored, if it is newer than what is there; of the others an error is an event.

use super::{Link, session};
use crate::{
    Manager,
    network::topology::{Learned, Told},
};
use domain::{
    PortId, Timestamp,
    event::NewEvent,
    network::{Port, PortStatus},
};
use proto::network::v1::{self as pb, ObjectState, manager_message::Message as Down};
use std::{collections::HashMap, sync::Arc};
use store::{EventInsert, PortObserved, Unit};
use tokio::sync::mpsc;

/// Reports that are stored in one commit.
const BATCH: usize = 512;

/// Stores what comes until the stream ends; a report is acknowledged once it is stored (or never will be).
pub(super) async fn store(manager: &Manager, link: &Arc<Link>, mut reports: mpsc::Receiver<pb::Report>) {
    let mut batch = Vec::with_capacity(BATCH);
    while reports.recv_many(&mut batch, BATCH).await > 0 {
        let mut unit = Unit::new();
        let mut changed: HashMap<PortId, Port> = HashMap::new();
        for report in &batch {
            take(manager, link, report, &mut unit, &mut changed);
        }
        if !unit.is_empty()
            && let Err(error) = manager.store.commit(unit).await
        {
            tracing::warn!(host_id = %link.host_id, error = &error as &dyn std::error::Error, "reports can't be stored; the agent repeats them");
            batch.clear();
            continue;
        }
        manager.learn(changed.into_values().map(Learned::Port));
        for report in batch.drain(..) {
            link.reply(Down::ReportAck(pb::ReportAck {
                kind: report.kind,
                id: report.id,
                version: report.version,
                start: report.start,
                counter: report.counter,
            }));
        }
    }
}

fn take(manager: &Manager, link: &Link, report: &pb::Report, unit: &mut Unit, changed: &mut HashMap<PortId, Port>) {
    if let Some(micros) = report.program_us {
        #[allow(clippy::cast_precision_loss)]
        metrics::histogram!("iaas_network_program_seconds").record(micros as f64 / 1e6);
    }
    let state = report.state();
    let Some(told) = told_of(report) else {
        tracing::warn!(host_id = %link.host_id, id = report.id, kind = report.kind, "a report can't be read");
        return;
    };
    let Told::Port(id) = told else {
        if state == ObjectState::Error {
            complain(manager, link, report, told, unit);
        }
        return;
    };
    let known = changed.get(&id).cloned().or_else(|| manager.topology().port(id).cloned());
    let Some(mut port) = known else { return };
    let epoch = report.version.unwrap_or_default().epoch;
    // A host that has it from elsewhere says so as well; what counts is the word of the one it is bound to.
    if port.host_id != Some(link.host_id) || port.epoch != epoch {
        return;
    }
    let status = match state {
        ObjectState::Ready => PortStatus::Ready,
        ObjectState::Active => PortStatus::Active,
        ObjectState::Error => PortStatus::Error,
        ObjectState::Deleted | ObjectState::Unspecified => return,
    };
    if (port.status, port.status_reason.as_str()) == (status, report.reason.as_str()) {
        return;
    }
    if status == PortStatus::Error && port.status_reason != report.reason {
        complain(manager, link, report, told, unit);
    }
    unit.push(PortObserved {
        id,
        epoch,
        start: report.start,
        counter: report.counter,
        status,
        status_reason: report.reason.clone(),
    });
    (port.status, port.status_reason) = (status, report.reason.clone());
    changed.insert(id, port);
}

fn told_of(report: &pb::Report) -> Option<Told> {
    Some(match pb::ObjectKind::try_from(report.kind).ok()? {
        pb::ObjectKind::Network => Told::Network(report.id.parse().ok()?),
        pb::ObjectKind::SecurityGroup => Told::SecurityGroup(report.id.parse().ok()?),
        pb::ObjectKind::Port => Told::Port(report.id.parse().ok()?),
        pb::ObjectKind::FloatingIp => Told::FloatingIp(report.id.parse().ok()?),
        pb::ObjectKind::Unspecified => return None,
    })
}

/// For the tenant whose object it is, without the host's name; the log has it.
fn complain(manager: &Manager, link: &Link, report: &pb::Report, told: Told, unit: &mut Unit) {
    tracing::warn!(host_id = %link.host_id, host = link.host_name, id = report.id, reason = report.reason, "a host can't program an object");
    let topology = manager.topology();
    let (project_id, kind) = match told {
        Told::Network(id) => (topology.network(id).map(|n| n.project_id), "network"),
        Told::SecurityGroup(id) => (topology.security_group(id).map(|g| g.project_id), "security_group"),
        Told::Port(id) => (topology.port(id).map(|p| p.project_id), "port"),
        Told::FloatingIp(id) => (topology.floating_ip(id).map(|f| f.project_id), "floating_ip"),
    };
    unit.push(EventInsert(NewEvent {
        at: Timestamp::now(),
        project_id,
        kind: format!("{kind}.error"),
        object_kind: kind.to_owned(),
        object_id: session::id_of(told),
        message: format!("its host can't program it: {}", report.reason),
        request_id: String::new(),
        data: serde_json::json!({}),
    }));
}
