//! What a host holds of a port may be of a higher epoch than its row, when the database was restored from a backup. The host would refuse the
//! row's epoch for ever, so before it gets anything one unit brings the rows of those ports up to what it holds. A port that is bound is bound
//! again after that, under an epoch of its own: who had it in the lost days must not answer for its addresses any more.

use crate::{
    Manager,
    network::topology::{ObjectKey, RowChange},
};
use domain::{HostId, PortId, Problem, Timestamp, event::NewEvent, network::Port};
use operation::{COMMIT_ATTEMPTS, commit_problem, contended, read_problem};
use proto::sync::v1::Holding;
use std::collections::BTreeMap;
use store::{CommitError, EventInsert, Guard, PortLift, Unit};

fn held_epochs(holdings: &[Holding]) -> BTreeMap<PortId, i64> {
    let epoch = |held: &Holding| match ObjectKey::parse(held.kind, &held.id)? {
        ObjectKey::Port(id) => Some((id, held.epoch.max(held.acquired_epoch))),
        ObjectKey::Protected(_) | ObjectKey::Network(_) | ObjectKey::SecurityGroup(_) | ObjectKey::FloatingIp(_) => {
            None
        }
    };
    holdings.iter().filter_map(epoch).collect()
}

/// Brings the rows of ports up to the epochs that the host holds. Decided again when they change meanwhile.
pub(super) async fn lift_ports(manager: &Manager, host_id: HostId, holdings: &[Holding]) -> Result<(), Problem> {
    let held = held_epochs(holdings);
    for _ in 0..COMMIT_ATTEMPTS {
        let behind: Vec<(Port, i64)> = {
            let topology = manager.topology();
            let row = |(id, epoch): (&PortId, &i64)| Some((topology.port(*id)?.clone(), *epoch));
            held.iter().filter_map(row).filter(|(port, epoch)| port.epoch < *epoch).collect()
        };
        if behind.is_empty() {
            return Ok(());
        }
        match manager.store.commit(unit(&behind)).await {
            Ok(()) => {
                metrics::counter!("iaas_rows_lifted_total").increment(behind.len() as u64);
                tracing::warn!(%host_id, ports = behind.len(), "the database was older than what a host holds: ports are bound again above that");
                let lifted = behind.into_iter().map(|(port, epoch)| Port {
                    epoch,
                    instance_epoch: 0,
                    generation: port.generation + 1,
                    ..port
                });
                manager.apply_committed(lifted.map(RowChange::Port));
                return Ok(());
            }
            Err(CommitError::Guard(Guard::PortState)) => {
                let keys: Vec<_> =
                    behind.iter().map(|(port, _)| crate::network::topology::RowKey::Port(port.id)).collect();
                manager.refresh(&keys).await.map_err(read_problem)?;
            }
            Err(error) => return Err(commit_problem(error)),
        }
    }
    Err(contended("the ports"))
}

fn unit(behind: &[(Port, i64)]) -> Unit {
    let at = Timestamp::now();
    let mut unit = Unit::new();
    for (port, epoch) in behind {
        unit.push(PortLift { id: port.id, expected_generation: port.generation, epoch: *epoch });
        unit.push(EventInsert(NewEvent {
            at,
            project_id: Some(port.project_id),
            kind: "port.restored".to_owned(),
            object_kind: "port".to_owned(),
            object_id: port.id.to_string(),
            message: "its host had moved on after the database was saved; it is bound again".to_owned(),
            request_id: String::new(),
            data: serde_json::json!({ "from_epoch": port.epoch, "to_epoch": epoch }),
        }));
    }
    unit
}
