//! Ports of instances. Every call may be repeated: it compares what is requested with what is there, and changes the difference, fenced so
//! that usage moves exactly with the rows. If somebody was faster, it is compared again.

use super::{
    apply::{self, ChangeRequest},
    commit::{Basis, commit, contended_change, try_commit},
};
use crate::{
    Manager,
    network::plan::{BindRequest, Binding},
};
use domain::{
    InstanceId, PortId, Problem, ProjectId,
    instance::{Nic, NicRequest, PortRequest, PortReservation},
    network::{Change, Port},
};
use futures::future::try_join_all;
use operation::{COMMIT_ATTEMPTS, read_problem};
use proto::{
    convert::{nic_to_pb, parse, port_reservation_from_pb},
    resource::v1 as pb,
};
use service_kit::context::CallContext;
use std::collections::{BTreeMap, BTreeSet, HashMap};

const TTL_SECS_MAX: u32 = 3600;
/// Ports in one unit: each part of a larger call stands by itself.
const CHUNK: usize = 500;

/// All or none. What stands already is not counted again.
pub(super) async fn reserve(
    manager: &Manager,
    context: &CallContext,
    request: pb::ReservePortsRequest,
) -> Result<pb::ReservePortsResponse, Problem> {
    let ttl_secs = match request.ttl_secs {
        0 => manager.config.reservation_ttl_secs,
        requested => requested.min(TTL_SECS_MAX),
    };
    let requests: Vec<PortReservation> =
        request.ports.iter().map(port_reservation_from_pb).collect::<Result<_, _>>()?;
    let reserved = if context.dry_run {
        let (plan, reserved) = manager.decide(manager.context(None), |planner| planner.reserve(&requests, ttl_secs))?;
        manager.abandon(&plan);
        Basis::of(&plan).check_quota(manager).await?;
        reserved
    } else {
        ensure_default_groups(manager, &requests).await?;
        commit(manager, |planner| planner.reserve(&requests, ttl_secs)).await?
    };
    Ok(pb::ReservePortsResponse { nics: reserved.iter().map(|port| nic_to_pb(&reserved_nic(port))).collect() })
}

fn reserved_nic(port: &Port) -> Nic {
    Nic {
        port_id: port.id,
        network_id: port.network_id,
        mac: port.mac,
        addresses: port.fixed_ips.iter().map(|ip| ip.address).collect(),
        security_group_ids: None,
    }
}

/// A project may request its first instance before the reconciler has seen that the project is there.
async fn ensure_default_groups(manager: &Manager, requests: &[PortReservation]) -> Result<(), Problem> {
    let without = |nic: &NicRequest| matches!(nic.port, PortRequest::New { security_group_ids: None, .. });
    let requests = requests.iter().filter(|request| without(&request.nic));
    let projects: BTreeSet<ProjectId> = requests.map(|request| request.project_id).collect();
    for project_id in projects {
        let exists = manager.topology().default_group(project_id).is_some();
        if !exists {
            let request = ChangeRequest::new(Change::ProjectDefaults, Some(project_id));
            apply::apply(manager, &CallContext::system("defaults"), &request).await?;
        }
    }
    Ok(())
}

pub(super) async fn bind(manager: &Manager, request: pb::BindPortsRequest) -> Result<pb::BindPortsResponse, Problem> {
    let mut distinct: BTreeMap<PortId, BindRequest> = BTreeMap::new();
    for port in request.ports {
        let request = BindRequest {
            port_id: parse("port_id", &port.port_id)?,
            instance_id: parse("instance_id", &port.instance_id)?,
            host_id: parse("host_id", &port.host_id)?,
            instance_epoch: port.instance_epoch,
            metadata_digest: port.metadata_digest,
            hostname: port.hostname,
        };
        distinct.insert(request.port_id, request);
    }
    let requests: Vec<BindRequest> = distinct.into_values().collect();
    let chunks = requests.chunks(CHUNK).map(|chunk| commit(manager, |planner| planner.bind(chunk)));
    let outcomes = try_join_all(chunks).await?;
    let mut response = pb::BindPortsResponse::default();
    for (request, outcome) in requests.iter().zip(outcomes.into_iter().flatten()) {
        let port_id = request.port_id.to_string();
        match outcome {
            Binding::Bound { epoch } => response.ports.push(pb::BoundPort { port_id, epoch }),
            Binding::Expired => response.expired_port_ids.push(port_id),
        }
    }
    Ok(response)
}

fn instance_ids(texts: &[String]) -> Result<Vec<InstanceId>, Problem> {
    let ids = texts.iter().map(|text| Ok(parse("instance_ids", text)?)).collect::<Result<BTreeSet<_>, Problem>>()?;
    Ok(ids.into_iter().collect())
}

async fn ports_of(manager: &Manager, ids: &[InstanceId]) -> Result<Vec<Port>, Problem> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    manager.store.port_load_many_of_instances(ids).await.map_err(read_problem)
}

pub(super) async fn release(
    manager: &Manager,
    request: pb::ReleasePortsRequest,
) -> Result<pb::ReleasePortsResponse, Problem> {
    let ids = instance_ids(&request.instance_ids)?;
    try_join_all(ids.chunks(CHUNK).map(|chunk| release_chunk(manager, chunk))).await?;
    Ok(pb::ReleasePortsResponse {})
}

async fn release_chunk(manager: &Manager, ids: &[InstanceId]) -> Result<(), Problem> {
    for _ in 0..COMMIT_ATTEMPTS {
        let ports = ports_of(manager, ids).await?;
        if try_commit(manager, |planner| Ok((planner.release_ports(&ports), ()))).await?.is_some() {
            return Ok(());
        }
    }
    Err(contended_change())
}

pub(super) async fn remove(
    manager: &Manager,
    request: pb::RemovePortsRequest,
) -> Result<pb::RemovePortsResponse, Problem> {
    let ids = instance_ids(&request.instance_ids)?;
    let single = request.ports.iter().map(|port| {
        let port_id: PortId = parse("port_id", &port.port_id)?;
        let instance_id: InstanceId = parse("instance_id", &port.instance_id)?;
        Ok((port_id, instance_id))
    });
    let single: HashMap<PortId, InstanceId> = single.collect::<Result<_, Problem>>()?;
    for _ in 0..COMMIT_ATTEMPTS {
        let mut ports = ports_of(manager, &ids).await?;
        if !single.is_empty() {
            let port_ids: Vec<PortId> = single.keys().copied().collect();
            let found = manager.store.port_load_many(&port_ids).await.map_err(read_problem)?;
            let theirs = |port: &Port| port.owner.map(|owner| owner.instance_id) == single.get(&port.id).copied();
            ports.extend(found.into_iter().filter(theirs));
        }
        ports.sort_by_key(|port| port.id);
        ports.dedup_by_key(|port| port.id);
        let removed = try_join_all(ports.chunks(CHUNK).map(|chunk| remove_chunk(manager, chunk))).await?;
        if removed.into_iter().all(|done| done) {
            return Ok(pb::RemovePortsResponse {});
        }
    }
    Err(contended_change())
}

/// False: some changed meanwhile; read them again.
pub(crate) async fn remove_chunk(manager: &Manager, ports: &[Port]) -> Result<bool, Problem> {
    let removed = try_commit(manager, |planner| Ok((planner.remove_ports(ports), ()))).await?;
    Ok(removed.is_some())
}
