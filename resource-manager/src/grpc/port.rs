//! Ports of instances. Every call may be repeated: it compares what is asked with what is there, and changes the difference, fenced so that
//! usage moves exactly with the rows. Whoever was faster only makes us look again.

use super::{
    apply::{self, Wish},
    failure::{self, Decided, Given},
};
use crate::{
    Manager,
    network::plan::{BindAsked, Binding, ReserveAsked, ReserveOf},
};
use domain::{
    InstanceId, PortId, Problem, ProjectId,
    network::{Change, FixedIpRequest, MacAddr, Port},
};
use futures::future::try_join_all;
use proto::{convert::parse, resource::v1 as pb};
use service_kit::context::CallContext;
use std::collections::{BTreeSet, HashMap};

const TTL_SECS_MAX: u32 = 3600;
/// Ports in one unit: of a larger call each part stands by itself.
const CHUNK: usize = 500;

fn asked(port: &pb::PortReservation) -> Result<ReserveAsked, Problem> {
    let of = if port.existing {
        ReserveOf::Existing
    } else {
        let fixed_ips = port.fixed_ip_request_json.iter().map(|json| {
            serde_json::from_str::<FixedIpRequest>(json)
                .map_err(|error| Problem::invalid("fixed_ip_request_json", error.to_string()))
        });
        let groups = port.security_group_ids.iter().map(|id| Ok(parse("security_group_ids", id)?));
        let groups: Vec<domain::SecurityGroupId> = groups.collect::<Result<_, Problem>>()?;
        let mac = (!port.mac.is_empty()).then(|| port.mac.parse::<MacAddr>()).transpose();
        ReserveOf::New {
            network_id: parse("network_id", &port.network_id)?,
            fixed_ips: fixed_ips.collect::<Result<_, _>>()?,
            security_group_ids: port.security_groups_given.then_some(groups),
            mac: mac.map_err(|wrong| Problem::invalid("mac", wrong.to_string()))?,
        }
    };
    Ok(ReserveAsked {
        port_id: parse("port_id", &port.port_id)?,
        instance_id: parse("instance_id", &port.instance_id)?,
        project_id: parse("project_id", &port.project_id)?,
        hostname: port.hostname.clone(),
        of,
    })
}

/// All or none. What stands already is not counted again.
pub(super) async fn reserve(
    manager: &Manager,
    context: &CallContext,
    request: pb::ReservePortsRequest,
) -> Result<pb::ReservePortsResponse, Problem> {
    let ttl_secs = match request.ttl_secs {
        0 => manager.config.reservation_ttl_secs,
        asked => asked.min(TTL_SECS_MAX),
    };
    let asked: Vec<ReserveAsked> = request.ports.iter().map(asked).collect::<Result<_, _>>()?;
    let macs = asked.iter().filter_map(|one| match &one.of {
        ReserveOf::New { mac, .. } => *mac,
        ReserveOf::Existing => None,
    });
    let given = Given { name: None, mac: macs.into_iter().next() };
    if !context.dry_run {
        ensure_default_groups(manager, &asked).await?;
    }
    for _ in 0..failure::TRIES {
        let ask = manager.ask(None);
        let expires_at = ask.now.plus_secs(u64::from(ttl_secs));
        let (plan, reserved) = manager.decide(ask, |draft| draft.reserve(&asked, expires_at))?;
        if context.dry_run {
            manager.abandon(&plan);
            for (project_id, amounts) in &plan.usage {
                failure::check_quota(manager, *project_id, amounts).await?;
            }
            return Ok(pb::ReservePortsResponse { ports: reserved.iter().map(reserved_port).collect() });
        }
        let (decided, unit) = (Decided::on(&plan), plan.unit());
        match manager.commit(plan, unit).await {
            Ok(()) => return Ok(pb::ReservePortsResponse { ports: reserved.iter().map(reserved_port).collect() }),
            Err(error) => failure::of_commit(manager, error, &decided, &given).await?,
        }
    }
    Err(failure::contended())
}

fn reserved_port(port: &Port) -> pb::ReservedPort {
    pb::ReservedPort {
        port_id: port.id.to_string(),
        network_id: port.network_id.to_string(),
        mac: port.mac.to_string(),
        fixed_ips: port.fixed_ips.iter().map(|ip| ip.address.to_string()).collect(),
    }
}

/// A project may ask for its first instance before the reconciler has seen that it is there.
async fn ensure_default_groups(manager: &Manager, asked: &[ReserveAsked]) -> Result<(), Problem> {
    let without = asked.iter().filter(|one| matches!(&one.of, ReserveOf::New { security_group_ids: None, .. }));
    let projects: BTreeSet<ProjectId> = without.map(|one| one.project_id).collect();
    for project_id in projects {
        let there = manager.topology().default_group(project_id).is_some();
        if !there {
            let wish = Wish { change: Change::ProjectDefaults, project_id: Some(project_id), expected_generation: 0 };
            apply::apply(manager, &CallContext::system("defaults"), &wish).await?;
        }
    }
    Ok(())
}

pub(super) async fn bind(manager: &Manager, request: pb::BindPortsRequest) -> Result<pb::BindPortsResponse, Problem> {
    let asked = request.ports.iter().map(|port| {
        Ok(BindAsked {
            port_id: parse("port_id", &port.port_id)?,
            instance_id: parse("instance_id", &port.instance_id)?,
            host_id: parse("host_id", &port.host_id)?,
            instance_epoch: port.instance_epoch,
            metadata_digest: port.metadata_digest.clone(),
            hostname: port.hostname.clone(),
        })
    });
    let mut distinct: HashMap<PortId, BindAsked> = HashMap::new();
    for one in asked.collect::<Result<Vec<BindAsked>, Problem>>()? {
        distinct.insert(one.port_id, one);
    }
    let mut asked: Vec<BindAsked> = distinct.into_values().collect();
    asked.sort_by_key(|one| one.port_id);
    let outcomes = try_join_all(asked.chunks(CHUNK).map(|chunk| bind_chunk(manager, chunk))).await?;
    let mut response = pb::BindPortsResponse::default();
    for (one, outcome) in asked.iter().zip(outcomes.into_iter().flatten()) {
        let port_id = one.port_id.to_string();
        match outcome {
            Binding::Bound { epoch } => response.ports.push(pb::BoundPort { port_id, epoch }),
            Binding::Expired => response.expired_port_ids.push(port_id),
        }
    }
    Ok(response)
}

async fn bind_chunk(manager: &Manager, asked: &[BindAsked]) -> Result<Vec<Binding>, Problem> {
    for _ in 0..failure::TRIES {
        let (plan, outcomes) = manager.decide(manager.ask(None), |draft| draft.bind(asked))?;
        let (decided, unit) = (Decided::on(&plan), plan.unit());
        match manager.commit(plan, unit).await {
            Ok(()) => return Ok(outcomes),
            Err(error) => failure::of_commit(manager, error, &decided, &Given::default()).await?,
        }
    }
    Err(failure::contended())
}

fn instance_ids(texts: &[String]) -> Result<Vec<InstanceId>, Problem> {
    let ids = texts.iter().map(|text| Ok(parse("instance_ids", text)?)).collect::<Result<BTreeSet<_>, Problem>>()?;
    Ok(ids.into_iter().collect())
}

async fn ports_of(manager: &Manager, ids: &[InstanceId]) -> Result<Vec<Port>, Problem> {
    if ids.is_empty() {
        return Ok(vec![]);
    }
    manager.store.port_load_many_of_instances(ids).await.map_err(|e| failure::of_read(&e))
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
    for _ in 0..failure::TRIES {
        let ports = ports_of(manager, ids).await?;
        let plan = manager.decide(manager.ask(None), |draft| draft.release_ports(&ports));
        let (decided, unit) = (Decided::on(&plan), plan.unit());
        match manager.commit(plan, unit).await {
            Ok(()) => return Ok(()),
            Err(error) => failure::of_commit(manager, error, &decided, &Given::default()).await?,
        }
    }
    Err(failure::contended())
}

pub(super) async fn forget(
    manager: &Manager,
    request: pb::RemovePortsRequest,
) -> Result<pb::RemovePortsResponse, Problem> {
    let ids = instance_ids(&request.instance_ids)?;
    let single = request.ports.iter().map(|one| {
        let port_id: PortId = parse("port_id", &one.port_id)?;
        let instance_id: InstanceId = parse("instance_id", &one.instance_id)?;
        Ok((port_id, instance_id))
    });
    let single: HashMap<PortId, InstanceId> = single.collect::<Result<_, Problem>>()?;
    for _ in 0..failure::TRIES {
        let mut ports = ports_of(manager, &ids).await?;
        if !single.is_empty() {
            let port_ids: Vec<PortId> = single.keys().copied().collect();
            let found = manager.store.port_load_many(&port_ids).await.map_err(|e| failure::of_read(&e))?;
            let theirs = |port: &Port| port.owner.map(|owner| owner.instance_id) == single.get(&port.id).copied();
            ports.extend(found.into_iter().filter(theirs));
        }
        ports.sort_by_key(|port| port.id);
        ports.dedup_by_key(|port| port.id);
        let rest = try_join_all(ports.chunks(CHUNK).map(|chunk| forget_chunk(manager, chunk))).await?;
        if rest.into_iter().all(|done| done) {
            return Ok(pb::RemovePortsResponse {});
        }
    }
    Err(failure::contended())
}

/// False: some changed meanwhile; read them again.
pub(crate) async fn forget_chunk(manager: &Manager, ports: &[Port]) -> Result<bool, Problem> {
    let plan = manager.decide(manager.ask(None), |draft| draft.remove_ports(ports));
    let (decided, unit) = (Decided::on(&plan), plan.unit());
    match manager.commit(plan, unit).await {
        Ok(()) => Ok(true),
        Err(error) => failure::of_commit(manager, error, &decided, &Given::default()).await.map(|()| false),
    }
}
