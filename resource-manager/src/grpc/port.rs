//! Ports of instances that exist: bound to where they run, released when their deletion is accepted, forgotten on proof.

use crate::{
    Manager, failure,
    ipam::ScopedAddress,
    plan::port::{BindPlan, Binding, ForgetPlan, plan_bind, plan_forget, plan_release},
    topology::{Key, Learned},
};
use domain::{
    ErrorKind, InstanceId, PortId, Problem, Timestamp,
    network::{FloatingIp, Port},
    quota::QuotaAmounts,
};
use proto::{convert::parse, resource::v1 as pb};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use store::{
    AddressRelease, CommitError, FloatingIpChange, Guard, NetworkUsageAdd, PortBind, PortDelete, PortDetach,
    PortRelease, Store, Unit,
};

pub(super) fn owner_of(port: &Port) -> Option<InstanceId> {
    port.owner.map(|owner| owner.instance_id)
}

fn parse_binding(port: &pb::PortBinding) -> Result<Binding, Problem> {
    Ok(Binding {
        port_id: parse("port_id", &port.port_id)?,
        instance_id: parse("instance_id", &port.instance_id)?,
        host_id: parse("host_id", &port.host_id)?,
        instance_epoch: port.instance_epoch,
        metadata_digest: port.metadata_digest.clone(),
        hostname: port.hostname.to_ascii_lowercase(),
    })
}

/// Those whose reservation is gone are named; all others are bound.
pub(super) async fn bind(
    manager: &Arc<Manager>,
    request: pb::BindPortsRequest,
) -> Result<pb::BindPortsResponse, Problem> {
    let wanted: Vec<Binding> = request.ports.iter().map(parse_binding).collect::<Result<_, _>>()?;
    let ids: Vec<PortId> = wanted.iter().map(|one| one.port_id).collect();
    // Memory mostly knows; when it is behind, the rows are read.
    let mut rows: HashMap<PortId, Port> = {
        let topology = manager.topology();
        ids.iter().filter_map(|id| topology.port(*id)).map(|port| (port.id, port.clone())).collect()
    };
    if rows.len() < ids.len() {
        rows = load(manager, &ids).await?;
    }
    for _ in 0..failure::TRIES {
        let mut unit = Unit::new();
        let (mut bound, mut answer) = (Vec::new(), pb::BindPortsResponse::default());
        let mut epochs = Vec::new();
        for one in &wanted {
            match plan_bind(rows.get(&one.port_id), one) {
                BindPlan::Done { epoch } => epochs.push((one.port_id, epoch)),
                BindPlan::Bind(port) => {
                    epochs.push((port.id, port.epoch));
                    unit.push(bind_op(&port, one));
                    bound.push(*port);
                }
                BindPlan::Expired => answer.expired_port_ids.push(one.port_id.to_string()),
                BindPlan::Stale { instance_epoch } => {
                    return Err(Problem::new(
                        ErrorKind::StaleGeneration,
                        "stale_epoch",
                        format!("port {} is bound under epoch {instance_epoch} of its instance", one.port_id),
                    ));
                }
            }
        }
        let epochs = epochs.into_iter().map(|(id, epoch)| pb::BoundPort { port_id: id.to_string(), epoch });
        answer.ports = epochs.collect();
        if unit.is_empty() && answer.expired_port_ids.is_empty() {
            return Ok(answer);
        }
        match manager.store.commit(unit).await {
            Ok(()) => {
                manager.learn(bound.into_iter().map(Learned::Port));
                return Ok(answer);
            }
            Err(CommitError::Guard(Guard::PortState)) => rows = load(manager, &ids).await?,
            Err(error) => return Err(failure::of_commit(error)),
        }
    }
    Err(failure::contended("a port"))
}

async fn load(manager: &Manager, ids: &[PortId]) -> Result<HashMap<PortId, Port>, Problem> {
    let rows = manager.store.port_load_many(ids).await.map_err(failure::of_read)?;
    Ok(rows.into_iter().map(|port| (port.id, port)).collect())
}

fn bind_op(port: &Port, wanted: &Binding) -> PortBind {
    PortBind {
        id: port.id,
        expected_generation: port.generation - 1,
        instance_id: wanted.instance_id,
        host_id: wanted.host_id,
        epoch: port.epoch,
        instance_epoch: port.instance_epoch,
        metadata_digest: port.metadata_digest.clone(),
        hostname: port.hostname.clone(),
        status: port.status,
    }
}

fn instance_ids(texts: &[String]) -> Result<Vec<InstanceId>, Problem> {
    texts.iter().map(|text| parse("instance_ids", text).map_err(Problem::from)).collect()
}

/// A change of several rows: the ops, and what memory learns when they are committed.
#[derive(Default)]
struct Rows {
    unit: Unit,
    learned: Vec<Learned>,
    /// Addresses that rest from then on.
    rest: Vec<ScopedAddress>,
}

impl Rows {
    /// No floating IP stands for the port any more.
    fn dissociate(&mut self, floating_ips: &[FloatingIp], port_id: PortId) {
        for floating in floating_ips.iter().filter(|floating| floating.port_id == Some(port_id)) {
            self.unit.push(FloatingIpChange {
                id: floating.id,
                expected_generation: floating.generation,
                description: floating.description.clone(),
                port_id: None,
                fixed_ip: None,
            });
            self.learned.push(Learned::FloatingIp(FloatingIp {
                port_id: None,
                fixed_ip: None,
                generation: floating.generation + 1,
                ..floating.clone()
            }));
        }
    }

    fn release(&mut self, port: &Port, floating_ips: &[FloatingIp]) {
        let Some(released) = plan_release(port) else { return };
        self.dissociate(floating_ips, port.id);
        self.unit.push(PortRelease { id: port.id, expected_generation: port.generation });
        self.unit.push(one_port_back(port));
        self.learned.push(Learned::Port(released));
    }

    fn forget(&mut self, port: &Port, floating_ips: &[FloatingIp], free_at: Timestamp) {
        match plan_forget(port) {
            ForgetPlan::Delete { gives_quota_back } => {
                self.dissociate(floating_ips, port.id);
                self.unit.push(PortDelete { id: port.id, expected_generation: port.generation });
                if gives_quota_back {
                    self.unit.push(one_port_back(port));
                }
                for ip in &port.fixed_ips {
                    self.unit.push(AddressRelease {
                        scope_id: port.network_id.to_string(),
                        address: ip.address,
                        owner_id: port.id.to_string(),
                        free_at,
                    });
                    self.rest.push((port.network_id.0, ip.address));
                }
                self.learned.push(Learned::Gone(Key::Port(port.id)));
            }
            ForgetPlan::Detach(free) => {
                self.unit.push(PortDetach { id: port.id, expected_generation: port.generation });
                self.learned.push(Learned::Port(*free));
            }
        }
    }
}

fn one_port_back(port: &Port) -> NetworkUsageAdd {
    NetworkUsageAdd::give_back(port.project_id, &QuotaAmounts { ports: 1, ..QuotaAmounts::NONE })
}

/// Those that stand for these ports, as their rows say.
fn floating_ips(manager: &Manager, ports: &[Port]) -> Vec<FloatingIp> {
    let topology = manager.topology();
    ports.iter().flat_map(|port| topology.floating_ips_of(port.id).cloned()).collect()
}

/// Which rows.
enum Which {
    /// All of these instances', and these single ones if they are still these instances'.
    OfInstances { instances: Vec<InstanceId>, single: Vec<(PortId, InstanceId)> },
    /// Those of these whose reservation has expired by then; one that was confirmed meanwhile stands.
    Expired { ports: Vec<PortId>, by: Timestamp },
}

async fn select(store: &Store, which: &Which) -> Result<Vec<Port>, Problem> {
    match which {
        Which::OfInstances { instances, single } => {
            let mut ports = if instances.is_empty() {
                Vec::new()
            } else {
                store.port_load_many_of_instances(instances).await.map_err(failure::of_read)?
            };
            if !single.is_empty() {
                let ids: Vec<PortId> = single.iter().map(|(id, _)| *id).collect();
                let known: BTreeSet<PortId> = ports.iter().map(|port| port.id).collect();
                let found = store.port_load_many(&ids).await.map_err(failure::of_read)?;
                let asked = |port: &Port| owner_of(port).is_some_and(|owner| single.contains(&(port.id, owner)));
                ports.extend(found.into_iter().filter(|port| asked(port) && !known.contains(&port.id)));
            }
            Ok(ports)
        }
        Which::Expired { ports, by } => {
            let ports = store.port_load_many(ports).await.map_err(failure::of_read)?;
            Ok(ports.into_iter().filter(|port| port.expires_at.is_some_and(|at| at <= *by)).collect())
        }
    }
}

/// Decides on the rows as they are until a decision is committed. Addresses that come free rest for `quarantine_secs`.
async fn settle(
    manager: &Arc<Manager>,
    which: Which,
    quarantine_secs: u64,
    decide: fn(&mut Rows, &Port, &[FloatingIp], Timestamp),
) -> Result<(), Problem> {
    for _ in 0..failure::TRIES {
        let ports = select(&manager.store, &which).await?;
        let floating_ips = floating_ips(manager, &ports);
        let free_at = Timestamp::now().plus_secs(quarantine_secs);
        let mut rows = Rows::default();
        for port in &ports {
            decide(&mut rows, port, &floating_ips, free_at);
        }
        let Rows { unit, learned, rest } = rows;
        if unit.is_empty() {
            return Ok(());
        }
        match manager.store.commit(unit).await {
            Ok(()) => {
                {
                    let mut ipam = manager.ipam();
                    for at in rest {
                        ipam.rest(at, free_at);
                    }
                }
                manager.learn(learned);
                return Ok(());
            }
            Err(CommitError::Guard(Guard::PortState)) => {}
            Err(CommitError::Guard(Guard::FloatingIpGeneration)) => {
                refresh_floating_ips(manager, &floating_ips).await?
            }
            Err(error) => return Err(failure::of_commit(error)),
        }
    }
    Err(failure::contended("a port"))
}

/// Memory was behind.
async fn refresh_floating_ips(manager: &Manager, known: &[FloatingIp]) -> Result<(), Problem> {
    for floating in known {
        let row = manager.store.floating_ip_find(floating.id).await.map_err(failure::of_read)?;
        manager.learn([row.map_or(Learned::Gone(Key::FloatingIp(floating.id)), Learned::FloatingIp)]);
    }
    Ok(())
}

pub(super) async fn release(
    manager: &Arc<Manager>,
    request: pb::ReleasePortsRequest,
) -> Result<pb::ReleasePortsResponse, Problem> {
    let which = Which::OfInstances { instances: instance_ids(&request.instance_ids)?, single: Vec::new() };
    settle(manager, which, 0, |rows, port, floating_ips, _| rows.release(port, floating_ips)).await?;
    Ok(pb::ReleasePortsResponse {})
}

pub(super) async fn forget(
    manager: &Arc<Manager>,
    request: pb::ForgetPortsRequest,
) -> Result<pb::ForgetPortsResponse, Problem> {
    let single = request
        .ports
        .iter()
        .map(|port| Ok::<_, Problem>((parse("port_id", &port.port_id)?, parse("instance_id", &port.instance_id)?)));
    let which = Which::OfInstances {
        instances: instance_ids(&request.instance_ids)?,
        single: single.collect::<Result<_, _>>()?,
    };
    settle(manager, which, manager.config.quarantine_secs, Rows::forget).await?;
    Ok(pb::ForgetPortsResponse {})
}

/// Reservations that nobody confirmed by then: as if their instances were forgotten. Their addresses were never used and don't rest.
pub(crate) async fn expire(manager: &Arc<Manager>, ports: Vec<PortId>, by: Timestamp) -> Result<(), Problem> {
    settle(manager, Which::Expired { ports, by }, 0, Rows::forget).await
}
