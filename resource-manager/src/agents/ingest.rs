//! What hosts say of their objects. Of ports it is stored, if it is newer than what is there; of the others an error is an event.

use crate::{
    Manager,
    network::topology::{ObjectKey, RowChange},
};
use domain::{
    HostId, PortId, Timestamp,
    event::NewEvent,
    network::{Port, PortStatus},
};
use futures::future::join_all;
use proto::{
    network::v1::{NetworkObservation, ObjectState},
    sync::v1::{self as pb, report::Observation},
};
use service_kit::host_streams::{HostStream, Incoming, ack_of};
use std::{collections::HashMap, sync::Arc};
use store::{EventInsert, PortObserved, Unit};

/// Reports that are stored in one commit.
const BATCH: usize = 512;

/// Stores what all hosts report, until the shutdown; a report is acknowledged once it is stored (or never will be).
pub async fn run(manager: Arc<Manager>) {
    let Some(mut reports) = manager.streams.take_reports() else { return };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            () = manager.shutdown.cancelled() => return,
            taken = reports.recv_many(&mut batch, BATCH) => if taken == 0 { return },
        }
        // Each host's reports are a commit of their own (the writer merges those that wait): what one can't store holds up no other.
        let mut by_host: HashMap<HostId, Vec<Incoming<Manager>>> = HashMap::new();
        for incoming in batch.drain(..) {
            by_host.entry(incoming.stream.host_id).or_default().push(incoming);
        }
        join_all(by_host.values().map(|batch| store(&manager, batch))).await;
    }
}

async fn store(manager: &Manager, batch: &[Incoming<Manager>]) {
    let mut unit = Unit::new();
    let mut changed: HashMap<PortId, Port> = HashMap::new();
    for Incoming { stream, report } in batch {
        take(manager, stream, report, &mut unit, &mut changed);
    }
    if !unit.is_empty()
        && let Err(error) = manager.store.commit(unit).await
    {
        let host_id = batch.first().map(|incoming| incoming.stream.host_id.to_string());
        tracing::warn!(
            host_id,
            error = &error as &dyn std::error::Error,
            "reports can't be stored; the agent repeats them"
        );
        return;
    }
    manager.apply_committed(changed.into_values().map(RowChange::Port));
    for Incoming { stream, report } in batch {
        let forgotten = needs_no_tombstone(manager, stream, report);
        stream.acknowledge([pb::ReportAck { forgotten, ..ack_of(report) }]);
    }
}

/// The host proved that it has the object no more, and must not have it.
fn needs_no_tombstone(manager: &Manager, stream: &HostStream<Manager>, report: &pb::Report) -> bool {
    let Some(Observation::Network(observed)) = &report.observation else { return false };
    let Some(key) = ObjectKey::parse(report.kind, &report.id) else { return false };
    observed.state() == ObjectState::Deleted && manager.topology().render(stream.host_id, key).is_none()
}

fn take(
    manager: &Manager,
    stream: &HostStream<Manager>,
    report: &pb::Report,
    unit: &mut Unit,
    changed: &mut HashMap<PortId, Port>,
) {
    let (Some(Observation::Network(observed)), Some(key)) =
        (&report.observation, ObjectKey::parse(report.kind, &report.id))
    else {
        tracing::warn!(host_id = %stream.host_id, id = report.id, kind = report.kind, "a report can't be read");
        return;
    };
    if let Some(micros) = observed.program_us {
        #[allow(clippy::cast_precision_loss)]
        metrics::histogram!("iaas_network_program_seconds").record(micros as f64 / 1e6);
    }
    let state = observed.state();
    let ObjectKey::Port(id) = key else {
        if state == ObjectState::Error {
            record_failure(manager, stream, key, observed, unit);
        }
        return;
    };
    let known = changed.get(&id).cloned().or_else(|| manager.topology().port(id).cloned());
    let Some(mut port) = known else {
        if state == ObjectState::Ready {
            let host_id = stream.host_id;
            let ended = manager.kept.released(host_id, key);
            manager.streams.push(ended.into_iter().map(|key| (host_id, key, ())));
        }
        return;
    };
    let epoch = report.epoch;
    // A host that has it from elsewhere reports it as well; what counts is the report of the one it is bound to.
    if port.host_id != Some(stream.host_id) || port.epoch != epoch {
        return;
    }
    let status = match state {
        ObjectState::Ready => PortStatus::Ready,
        ObjectState::Active => PortStatus::Active,
        ObjectState::Error => PortStatus::Error,
        ObjectState::Deleted | ObjectState::Unspecified => return,
    };
    if (port.status, port.status_reason.as_str()) == (status, observed.reason.as_str()) {
        return;
    }
    if status == PortStatus::Error && port.status_reason != observed.reason {
        record_failure(manager, stream, key, observed, unit);
    }
    unit.push(PortObserved {
        id,
        epoch,
        start: report.start,
        counter: report.counter,
        status,
        status_reason: observed.reason.clone(),
    });
    (port.status, port.status_reason) = (status, observed.reason.clone());
    changed.insert(id, port);
}

/// For the tenant whose object it is, without the host's name; the log has it.
fn record_failure(
    manager: &Manager,
    stream: &HostStream<Manager>,
    key: ObjectKey,
    observed: &NetworkObservation,
    unit: &mut Unit,
) {
    let object_id = key.id();
    tracing::warn!(host_id = %stream.host_id, host = stream.host_name, id = object_id, reason = observed.reason, "a host can't program an object");
    let (project_id, kind) = (manager.topology().project_of(key), key.kind_name());
    unit.push(EventInsert(NewEvent {
        at: Timestamp::now(),
        project_id,
        kind: format!("{kind}.error"),
        object_kind: kind.to_owned(),
        object_id,
        message: format!("its host can't program it: {}", observed.reason),
        request_id: String::new(),
        data: serde_json::json!({}),
    }));
}
