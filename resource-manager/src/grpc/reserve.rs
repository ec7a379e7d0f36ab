//! Reserving ports for instances that aren't committed yet: all or none, and a repeat finds what it made.

use super::port::owner_of;
use crate::{
    Manager,
    claim::Claims,
    failure,
    plan::port::{TakePlan, plan_take},
    topology::Learned,
};
use domain::{
    ErrorKind, InstanceId, NetworkId, PortId, Problem, ProjectId, SecurityGroupId, Timestamp,
    network::{FixedIpAsked, MacAddr, Port, PortOwner, PortState, PortStatus, RateLimit},
    quota::QuotaAmounts,
};
use proto::{
    convert::{parse, parse_optional},
    resource::v1 as pb,
};
use service_kit::context::CallContext;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use store::{
    AddressOwner, CommitError, Constraint, Guard, NetworkUsageAdd, PortInsert, PortSecurityGroupPut, PortTake, Unit,
};

/// What a reservation that names no time gets, and the most that one can have, seconds.
const TTL_SECS: u64 = 120;
const TTL_SECS_MAX: u64 = 3600;

struct Asked {
    port_id: PortId,
    instance_id: InstanceId,
    project_id: ProjectId,
    hostname: String,
    what: What,
}

enum What {
    /// This port, which exists.
    Take,
    New {
        network_id: NetworkId,
        fixed_ips: Vec<FixedIpAsked>,
        /// None: the project's default group.
        groups: Option<Vec<SecurityGroupId>>,
        mac: Option<MacAddr>,
    },
}

fn parse_asked(port: &pb::PortReservation) -> Result<Asked, Problem> {
    let what = if port.existing {
        What::Take
    } else {
        let fixed_ips = port.fixed_ip_asked_json.iter().map(|json| {
            serde_json::from_str(json).map_err(|error| Problem::invalid("fixed_ip_asked_json", error.to_string()))
        });
        let groups = port.security_group_ids.iter().map(|id| parse("security_group_ids", id).map_err(Problem::from));
        let mac: Option<MacAddr> = parse_optional("mac", &port.mac)?;
        What::New {
            network_id: parse("network_id", &port.network_id)?,
            fixed_ips: fixed_ips.collect::<Result<_, _>>()?,
            groups: if port.security_groups_given { Some(groups.collect::<Result<_, _>>()?) } else { None },
            mac: mac
                .map(|mac| mac.unicast().map_err(|error| Problem::invalid("mac", error.to_string())))
                .transpose()?,
        }
    };
    Ok(Asked {
        port_id: parse("port_id", &port.port_id)?,
        instance_id: parse("instance_id", &port.instance_id)?,
        project_id: parse("project_id", &port.project_id)?,
        hostname: port.hostname.to_ascii_lowercase(),
        what,
    })
}

/// One try: the rows as they become, and the unit that makes them so.
struct Attempt<'a> {
    claims: Claims<'a>,
    unit: Unit,
    /// In the order asked.
    ports: Vec<Port>,
    usage: BTreeMap<ProjectId, i64>,
    random_mac: bool,
}

pub(super) async fn reserve(
    manager: &Arc<Manager>,
    context: &CallContext,
    request: pb::ReservePortsRequest,
) -> Result<pb::ReservePortsResponse, Problem> {
    let ttl_secs = match u64::from(request.ttl_secs) {
        0 => TTL_SECS,
        asked => asked.min(TTL_SECS_MAX),
    };
    let asked: Vec<Asked> = request.ports.iter().map(parse_asked).collect::<Result<_, _>>()?;
    let ids: Vec<PortId> = asked.iter().map(|one| one.port_id).collect();
    for _ in 0..failure::TRIES {
        let now = Timestamp::now();
        let there = manager.store.port_load_many(&ids).await.map_err(failure::of_read)?;
        let there: HashMap<PortId, Port> = there.into_iter().map(|port| (port.id, port)).collect();
        let attempt = attempt(manager, &asked, &there, now, now.plus_secs(ttl_secs))?;
        if context.dry_run {
            refuse_over_quota(manager, &attempt.usage).await?;
            return Ok(answer(&attempt.ports));
        }
        let Attempt { claims, unit, ports, usage, random_mac } = attempt;
        if unit.is_empty() {
            return Ok(answer(&ports));
        }
        match manager.store.commit(unit).await {
            Ok(()) => {
                claims.firm();
                manager.learn(ports.iter().cloned().map(Learned::Port));
                return Ok(answer(&ports));
            }
            // A repeat of this call won, or somebody took the port.
            Err(CommitError::Guard(Guard::PortExists | Guard::PortState)) => {}
            // Memory was behind the rows.
            Err(CommitError::Guard(Guard::AddressTaken)) => claims.look().await,
            Err(CommitError::Guard(Guard::NetworkQuota)) => refuse_over_quota(manager, &usage).await?,
            Err(CommitError::Constraint(Constraint::PortMac)) if random_mac => {}
            Err(CommitError::Constraint(Constraint::PortMac)) => {
                let problem = Problem::new(ErrorKind::AlreadyExists, "mac_taken", "another port has that MAC address");
                return Err(problem.with_hint("leave the MAC out to get one that is free"));
            }
            Err(CommitError::Constraint(Constraint::ForeignKey(_))) => {
                let problem = Problem::new(
                    ErrorKind::NotFound,
                    "not_found",
                    "the network, a security group or the project was deleted a moment ago",
                );
                return Err(problem.with_hint("list what there is: iaasctl network list"));
            }
            Err(error @ CommitError::Unavailable(_)) => {
                claims.look().await;
                return Err(failure::of_commit(error));
            }
            Err(error) => return Err(failure::of_commit(error)),
        }
    }
    Err(failure::contended("the network's addresses"))
}

fn answer(ports: &[Port]) -> pb::ReservePortsResponse {
    let ports = ports.iter().map(|port| pb::ReservedPort {
        port_id: port.id.to_string(),
        network_id: port.network_id.to_string(),
        mac: port.mac.to_string(),
        fixed_ips: port.fixed_ips.iter().map(|ip| ip.address.to_string()).collect(),
    });
    pb::ReservePortsResponse { ports: ports.collect() }
}

/// The figures as they are now; fine when there is room meanwhile.
async fn refuse_over_quota(manager: &Manager, usage: &BTreeMap<ProjectId, i64>) -> Result<(), Problem> {
    for (project_id, ports) in usage {
        let limit = manager.store.quota_limit_find(*project_id).await.map_err(failure::of_read)?;
        let limit = limit.map(|row| row.limit).unwrap_or_default();
        let used = manager.store.quota_usage(*project_id).await.map_err(failure::of_read)?;
        let asked = QuotaAmounts { ports: *ports, ..QuotaAmounts::NONE };
        if let Some(problem) = QuotaAmounts::refusal(&limit, &used, &asked) {
            return Err(problem);
        }
    }
    Ok(())
}

fn attempt<'a>(
    manager: &'a Arc<Manager>,
    asked: &[Asked],
    there: &HashMap<PortId, Port>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Attempt<'a>, Problem> {
    let mut attempt = Attempt {
        claims: Claims::new(manager),
        unit: Unit::new(),
        ports: Vec::with_capacity(asked.len()),
        usage: BTreeMap::new(),
        random_mac: false,
    };
    for one in asked {
        let standing = there.get(&one.port_id);
        match &one.what {
            What::Take => attempt.take(one, standing, expires_at)?,
            What::New { .. } => match standing {
                // A repeat.
                Some(port) if owner_of(port) == Some(one.instance_id) => attempt.ports.push(port.clone()),
                Some(_) => return Err(Problem::already_exists("port", one.port_id)),
                None => attempt.make(manager, one, now, expires_at)?,
            },
        }
    }
    let usage = attempt.usage.clone();
    for (project_id, ports) in usage {
        let amounts = QuotaAmounts { ports, ..QuotaAmounts::NONE };
        attempt.unit.push(NetworkUsageAdd::take(project_id, &amounts));
    }
    Ok(attempt)
}

impl Attempt<'_> {
    fn take(&mut self, one: &Asked, standing: Option<&Port>, expires_at: Timestamp) -> Result<(), Problem> {
        match (plan_take(standing, one.project_id, one.instance_id), standing) {
            (TakePlan::Done, Some(port)) => self.ports.push(port.clone()),
            (TakePlan::Take, Some(port)) => {
                self.unit.push(PortTake {
                    id: port.id,
                    expected_generation: port.generation,
                    instance_id: one.instance_id,
                    hostname: one.hostname.clone(),
                    expires_at,
                });
                self.ports.push(Port {
                    owner: Some(PortOwner { instance_id: one.instance_id, with_instance: false }),
                    hostname: one.hostname.clone(),
                    expires_at: Some(expires_at),
                    generation: port.generation + 1,
                    ..port.clone()
                });
            }
            (TakePlan::Attached, Some(port)) => {
                let name = port.name.as_ref().map_or_else(|| port.id.to_string(), ToString::to_string);
                let problem = Problem::new(
                    ErrorKind::InvalidState,
                    "port_attached",
                    format!("the port {name} is attached to another instance"),
                );
                return Err(problem.with_hint("detach it there first: iaasctl instance detach INSTANCE --port PORT"));
            }
            (_, _) => return Err(Problem::not_found("port", one.port_id)),
        }
        Ok(())
    }

    fn make(&mut self, manager: &Manager, one: &Asked, now: Timestamp, expires_at: Timestamp) -> Result<(), Problem> {
        let What::New { network_id, fixed_ips, groups, mac } = &one.what else { return Err(Problem::internal()) };
        let security_group_ids = {
            let topology = manager.topology();
            topology
                .network(*network_id)
                .filter(|network| network.project_id == one.project_id)
                .ok_or_else(|| Problem::not_found("network", network_id))?;
            let mine =
                |id: &SecurityGroupId| topology.security_group(*id).is_some_and(|g| g.project_id == one.project_id);
            match groups {
                Some(ids) => match ids.iter().find(|id| !mine(id)) {
                    Some(unknown) => return Err(Problem::not_found("security group", unknown)),
                    None => ids.clone(),
                },
                None => topology.default_group(one.project_id).into_iter().collect(),
            }
        };
        let fixed_ips = self.claims.fixed_ips(*network_id, fixed_ips, now)?;
        self.random_mac |= mac.is_none();
        let port = Port {
            id: one.port_id,
            project_id: one.project_id,
            network_id: *network_id,
            name: None,
            mac: mac.unwrap_or_else(|| MacAddr::port(random())),
            fixed_ips,
            allowed_addresses: vec![],
            security_group_ids,
            rate_limit: RateLimit::default(),
            hostname: one.hostname.clone(),
            state: PortState::Reserved,
            owner: Some(PortOwner { instance_id: one.instance_id, with_instance: true }),
            host_id: None,
            epoch: 0,
            instance_epoch: 0,
            metadata_digest: String::new(),
            expires_at: Some(expires_at),
            status: PortStatus::Down,
            status_reason: String::new(),
            generation: 1,
            created_at: now,
        };
        insert(&mut self.unit, &port);
        let addresses = port.fixed_ips.iter().map(|ip| ip.address);
        let owner = (AddressOwner::Port, port.id.to_string());
        self.unit.extend(self.claims.takes(network_id.0, addresses, (owner.0, &owner.1), now));
        *self.usage.entry(one.project_id).or_default() += 1;
        self.ports.push(port);
        Ok(())
    }
}

fn random() -> [u8; 5] {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]
}

/// The ops that make a port's row as it is.
fn insert(unit: &mut Unit, port: &Port) {
    unit.push(PortInsert {
        id: port.id,
        project_id: port.project_id,
        network_id: port.network_id,
        name: port.name.clone(),
        mac: port.mac,
        fixed_ips: port.fixed_ips.clone(),
        allowed_addresses: port.allowed_addresses.clone(),
        rate_limit: port.rate_limit,
        hostname: port.hostname.clone(),
        state: port.state,
        instance_id: owner_of(port),
        with_instance: port.owner.is_some_and(|owner| owner.with_instance),
        expires_at: port.expires_at,
        created_at: port.created_at,
    });
    for group_id in &port.security_group_ids {
        unit.push(PortSecurityGroupPut { port_id: port.id, security_group_id: *group_id });
    }
}
