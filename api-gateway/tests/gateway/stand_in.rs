//! A stand-in for the resource-manager: real gRPC, real rows, and no judgement of its own. It keeps what it is told, so that the gateway's
//! reads have something to read, and refuses what a test tells it to.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{
    ErrorKind, NetworkId, PortId, Problem, ProjectId, SubnetId, Timestamp,
    network::{
        Change, ChangeOutcome, FixedIp, FixedIpAsked, FloatingTarget, MacAddr, NetworkObject, PortState, Remote,
        SecurityRule, Vni,
    },
};
use prost::Message as _;
use proto::{
    resource::v1::{self as pb, resource_manager_server::ResourceManager},
    status::to_status,
};
use service_kit::context::CallContext;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};
use store::*;
use tonic::{Request, Response, Status};

/// One call as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub context: CallContext,
    pub project_id: String,
    pub expected_generation: i64,
    pub change: Change,
}

#[derive(Clone)]
pub struct StandIn(Arc<Inner>);

struct Inner {
    store: Store,
    asked: Mutex<Vec<Asked>>,
    reserved: Mutex<Vec<pb::PortReservation>>,
    refusal: Mutex<Option<Problem>>,
}

impl StandIn {
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Inner { store, asked: Mutex::default(), reserved: Mutex::default(), refusal: Mutex::default() }))
    }

    /// All calls so far, but those for new projects' defaults.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.0.asked.lock().expect("not poisoned");
        asked.iter().filter(|asked| asked.change != Change::ProjectDefaults).cloned().collect()
    }

    pub fn defaults_asked(&self) -> usize {
        let asked = self.0.asked.lock().expect("not poisoned");
        asked.iter().filter(|asked| asked.change == Change::ProjectDefaults).count()
    }

    /// The ports that instances were to get, as the cluster-manager passed them on.
    pub fn reserved(&self) -> Vec<pb::PortReservation> {
        self.0.reserved.lock().expect("not poisoned").clone()
    }

    /// The next call is refused so.
    pub fn refuse(&self, problem: Problem) {
        *self.0.refusal.lock().expect("not poisoned") = Some(problem);
    }

    async fn answer(&self, asked: &Asked) -> Result<ChangeOutcome, Problem> {
        let store = &self.0.store;
        if let Some(id) = asked.context.operation_id
            && let Some(text) = store.operation_find(OperationTable::Resource, id).await.expect("a read")
        {
            let bytes = BASE64_STANDARD.decode(text).expect("base64");
            let answer = pb::ApplyResponse::decode(bytes.as_slice()).expect("an answer");
            return Ok(serde_json::from_str(&answer.outcome_json).expect("an outcome"));
        }
        if let Some(problem) = self.0.refusal.lock().expect("not poisoned").take() {
            return Err(problem);
        }
        let project_id = asked.project_id.parse().unwrap_or_else(|_| ProjectId::new());
        let (mut unit, object) = self.decide(project_id, asked.expected_generation, &asked.change).await?;
        let word = if asked.context.dry_run { "would be done" } else { "done" };
        let name = serde_json::to_value(&asked.change).expect("JSON")["do"].as_str().expect("a tag").to_owned();
        let outcome = ChangeOutcome { object, summary: format!("{name}: {word}"), touches: vec![name] };
        if asked.context.dry_run {
            return Ok(outcome);
        }
        if let Some(id) = asked.context.operation_id {
            let answer = pb::ApplyResponse { outcome_json: serde_json::to_string(&outcome).expect("JSON") };
            let outcome = BASE64_STANDARD.encode(answer.encode_to_vec());
            unit.push(ResourceOperationInsert { id, outcome, created_at: Timestamp::now() });
        }
        store.commit(unit).await.map_err(|error| match error {
            CommitError::Constraint(_) => Problem::new(ErrorKind::AlreadyExists, "name_taken", "the name is taken"),
            CommitError::Guard(_) => Problem::invalid_state("something needs it"),
            other => panic!("{other}"),
        })?;
        Ok(outcome)
    }

    async fn decide(
        &self,
        project_id: ProjectId,
        expected: i64,
        change: &Change,
    ) -> Result<(Unit, Option<NetworkObject>), Problem> {
        let (store, created_at) = (&self.0.store, Timestamp::now());
        let stale = |now: i64| match expected {
            0 => Ok(()),
            n if n == now => Ok(()),
            _ => Err(Problem::new(ErrorKind::StaleGeneration, "stale_generation", "it changed")),
        };
        macro_rules! found {
            ($find:ident, $id:expr) => {{
                let found = store.$find(*$id).await.expect("a read");
                let found = found.ok_or_else(|| Problem::not_found("object", $id))?;
                stale(found.generation)?;
                found
            }};
        }
        let unit = Unit::new();
        Ok(match change {
            Change::ProjectDefaults => (unit, None),
            Change::ExternalNetworkCreate { id, name, description, subnets } => {
                let (id, name, description, subnets) = (*id, name.clone(), description.clone(), subnets.clone());
                let row = ExternalNetworkInsert { id, name, description, subnets, created_at };
                let object = domain::network::ExternalNetwork {
                    id,
                    name: row.name.clone(),
                    description: row.description.clone(),
                    subnets: row.subnets.clone(),
                    generation: 1,
                    created_at,
                };
                (unit.op(row), Some(NetworkObject::ExternalNetwork(object)))
            }
            Change::ExternalNetworkUpdate { id, description, subnets } => {
                let mut now = found!(external_network_find, id);
                now.description = description.clone().unwrap_or(now.description);
                now.subnets = subnets.clone().unwrap_or(now.subnets);
                let op = ExternalNetworkChange {
                    id: *id,
                    expected_generation: now.generation,
                    description: now.description.clone(),
                    subnets: now.subnets.clone(),
                };
                now.generation += 1;
                (unit.op(op), Some(NetworkObject::ExternalNetwork(now)))
            }
            Change::ExternalNetworkDelete { id } => (unit.op(ExternalNetworkDelete { id: *id }), None),
            Change::NetworkCreate { id, name, description, mtu } => {
                let bytes = id.0.as_bytes();
                let vni =
                    Vni::try_from(u32::from_be_bytes([0, bytes[13], bytes[14], bytes[15]]).max(1)).expect("a VNI");
                let (id, name, description, mtu) = (*id, name.clone(), description.clone(), *mtu);
                let row = NetworkInsert { id, project_id, name, description, vni, mtu, created_at };
                let object = domain::network::Network {
                    id,
                    project_id,
                    name: row.name.clone(),
                    description: row.description.clone(),
                    vni,
                    mtu,
                    generation: 1,
                    created_at,
                };
                (unit.op(row), Some(NetworkObject::Network(object)))
            }
            Change::NetworkUpdate { id, name, description } => {
                let mut now = found!(network_find, id);
                now.name = name.clone().unwrap_or(now.name);
                now.description = description.clone().unwrap_or(now.description);
                let op = NetworkChange {
                    id: *id,
                    expected_generation: now.generation,
                    name: now.name.clone(),
                    description: now.description.clone(),
                };
                now.generation += 1;
                (unit.op(op), Some(NetworkObject::Network(now)))
            }
            Change::NetworkDelete { id } => {
                let now = found!(network_find, id);
                let op = NetworkDelete { id: *id, expected_generation: now.generation };
                (unit.op(op), Some(NetworkObject::Network(now)))
            }
            Change::SubnetCreate { id, network_id, name, spec, dhcp } => {
                let (id, network_id, name, spec, dhcp) = (*id, *network_id, name.clone(), spec.clone(), *dhcp);
                let row = SubnetInsert { id, project_id, network_id, name, spec, dhcp, created_at };
                let object = domain::network::Subnet {
                    id,
                    project_id,
                    network_id,
                    name: row.name.clone(),
                    spec: row.spec.clone(),
                    dhcp,
                    generation: 1,
                    created_at,
                };
                (unit.op(row), Some(NetworkObject::Subnet(object)))
            }
            Change::SubnetUpdate { id, change } => {
                let mut now = found!(subnet_find, id);
                now.name = change.name.clone().unwrap_or(now.name);
                now.spec.dns = change.dns.clone().unwrap_or(now.spec.dns);
                now.dhcp = change.dhcp.unwrap_or(now.dhcp);
                let op = SubnetUpdate {
                    id: *id,
                    expected_generation: now.generation,
                    name: now.name.clone(),
                    spec: now.spec.clone(),
                    dhcp: now.dhcp,
                };
                now.generation += 1;
                (unit.op(op), Some(NetworkObject::Subnet(now)))
            }
            Change::SubnetDelete { id } => {
                let now = found!(subnet_find, id);
                (unit.op(SubnetDelete { id: *id, expected_generation: now.generation }), None)
            }
            Change::PortCreate {
                id,
                network_id,
                name,
                mac,
                fixed_ips,
                allowed_addresses,
                security_group_ids,
                rate_limit,
            } => {
                let [.., a, b, c, d, e] = *id.0.as_bytes();
                let row = PortInsert {
                    id: *id,
                    project_id,
                    network_id: *network_id,
                    name: Some(name.clone()),
                    mac: mac.unwrap_or_else(|| MacAddr::local([a, b, c, d, e])),
                    fixed_ips: self.fixed_ips(*network_id, fixed_ips, e).await,
                    allowed_addresses: allowed_addresses.clone(),
                    rate_limit: *rate_limit,
                    hostname: String::new(),
                    state: PortState::Active,
                    instance_id: None,
                    with_instance: false,
                    expires_at: None,
                    generation: 1,
                    created_at,
                };
                let groups = security_group_ids.clone().unwrap_or_default();
                let object = domain::network::Port {
                    id: *id,
                    project_id,
                    network_id: *network_id,
                    name: row.name.clone(),
                    mac: row.mac,
                    fixed_ips: row.fixed_ips.clone(),
                    allowed_addresses: row.allowed_addresses.clone(),
                    security_group_ids: groups.clone(),
                    rate_limit: row.rate_limit,
                    hostname: String::new(),
                    state: PortState::Active,
                    owner: None,
                    host_id: None,
                    epoch: 0,
                    instance_epoch: 0,
                    metadata_digest: String::new(),
                    expires_at: None,
                    status: domain::network::PortStatus::Down,
                    status_reason: String::new(),
                    generation: 1,
                    created_at,
                };
                let members = groups
                    .into_iter()
                    .map(|security_group_id| PortSecurityGroupPut { port_id: *id, security_group_id });
                (members.fold(unit.op(row), Unit::op), Some(NetworkObject::Port(object)))
            }
            Change::PortUpdate { id, change } => {
                let mut now = found!(port_find, id);
                now.name = change.name.clone().or(now.name);
                now.allowed_addresses = change.allowed_addresses.clone().unwrap_or(now.allowed_addresses);
                now.rate_limit = change.rate_limit.unwrap_or(now.rate_limit);
                let op = PortUpdate {
                    id: *id,
                    expected_generation: now.generation,
                    name: now.name.clone(),
                    allowed_addresses: now.allowed_addresses.clone(),
                    rate_limit: now.rate_limit,
                };
                now.generation += 1;
                (unit.op(op), Some(NetworkObject::Port(now)))
            }
            Change::PortDelete { id } => {
                let now = found!(port_find, id);
                (unit.op(PortDelete { id: *id, expected_generation: now.generation }), None)
            }
            Change::RouterCreate { id, name, network_id, external_network_id, source_nat } => {
                let (id, name, network_id, external_network_id, source_nat) =
                    (*id, name.clone(), *network_id, *external_network_id, *source_nat);
                let row =
                    RouterInsert { id, project_id, name, network_id, external_network_id, source_nat, created_at };
                let object = domain::network::Router {
                    id,
                    project_id,
                    name: row.name.clone(),
                    network_id,
                    external_network_id,
                    source_nat,
                    generation: 1,
                    created_at,
                };
                (unit.op(row), Some(NetworkObject::Router(object)))
            }
            Change::RouterUpdate { id, name, source_nat } => {
                let mut now = found!(router_find, id);
                now.name = name.clone().unwrap_or(now.name);
                now.source_nat = source_nat.unwrap_or(now.source_nat);
                let (name, source_nat) = (now.name.clone(), now.source_nat);
                let op = RouterUpdate { id: *id, expected_generation: now.generation, name, source_nat };
                now.generation += 1;
                (unit.op(op), Some(NetworkObject::Router(now)))
            }
            Change::RouterDelete { id } => {
                let now = found!(router_find, id);
                (unit.op(RouterDelete { id: *id, expected_generation: now.generation }), None)
            }
            Change::FloatingIpCreate { id, external_network_id, address, description, target } => {
                let (port_id, fixed_ip) = self.target(target).await;
                let address = address.unwrap_or_else(|| IpAddr::from([203, 0, 113, id.0.as_bytes()[15]]));
                let (id, external_network_id, description) = (*id, *external_network_id, description.clone());
                let row = FloatingIpInsert {
                    id,
                    project_id,
                    external_network_id,
                    address,
                    description,
                    port_id,
                    fixed_ip,
                    created_at,
                };
                let object = domain::network::FloatingIp {
                    id,
                    project_id,
                    external_network_id,
                    address,
                    description: row.description.clone(),
                    port_id,
                    fixed_ip,
                    generation: 1,
                    created_at,
                };
                (unit.op(row), Some(NetworkObject::FloatingIp(object)))
            }
            Change::FloatingIpUpdate { id, description, target } => {
                let mut now = found!(floating_ip_find, id);
                now.description = description.clone().unwrap_or(now.description);
                if let Some(target) = target {
                    (now.port_id, now.fixed_ip) = self.target(target).await;
                }
                let op = FloatingIpChange {
                    id: *id,
                    expected_generation: now.generation,
                    description: now.description.clone(),
                    port_id: now.port_id,
                    fixed_ip: now.fixed_ip,
                };
                now.generation += 1;
                (unit.op(op), Some(NetworkObject::FloatingIp(now)))
            }
            Change::FloatingIpDelete { id } => {
                let now = found!(floating_ip_find, id);
                (unit.op(FloatingIpDelete { id: *id, expected_generation: now.generation }), None)
            }
            Change::SecurityGroupCreate { id, name, description, rules } => {
                let (id, name, description) = (*id, name.clone(), description.clone());
                let row = SecurityGroupInsert { id, project_id, name, description, created_at };
                let stored = rules.iter().map(|(rule_id, rule, description)| domain::network::SecurityGroupRule {
                    id: *rule_id,
                    security_group_id: id,
                    rule: *rule,
                    description: description.clone(),
                });
                let object = domain::network::SecurityGroup {
                    id,
                    project_id,
                    name: row.name.clone(),
                    description: row.description.clone(),
                    rules: stored.collect(),
                    generation: 1,
                    created_at,
                };
                let ops = object.rules.iter().map(rule_insert).collect::<Vec<_>>();
                (ops.into_iter().fold(unit.op(row), Unit::op), Some(NetworkObject::SecurityGroup(object)))
            }
            Change::SecurityGroupUpdate { id, name, description } => {
                let mut now = found!(security_group_find, id);
                now.name = name.clone().unwrap_or(now.name);
                now.description = description.clone().unwrap_or(now.description);
                let (name, description) = (now.name.clone(), now.description.clone());
                let op = SecurityGroupChange { id: *id, expected_generation: now.generation, name, description };
                now.generation += 1;
                (unit.op(op), Some(NetworkObject::SecurityGroup(now)))
            }
            Change::SecurityGroupDelete { id } => {
                let now = found!(security_group_find, id);
                (unit.op(SecurityGroupDelete { id: *id, expected_generation: now.generation }), None)
            }
            Change::SecurityRuleCreate { id, security_group_id, rule, description } => {
                let object = domain::network::SecurityGroupRule {
                    id: *id,
                    security_group_id: *security_group_id,
                    rule: *rule,
                    description: description.clone(),
                };
                (unit.op(rule_insert(&object)), Some(NetworkObject::SecurityRule(object)))
            }
            Change::SecurityRuleDelete { id, security_group_id } => {
                (unit.op(SecurityRuleDelete { id: *id, security_group_id: *security_group_id }), None)
            }
            Change::PeeringCreate { id, name, network_id, peer_network_id } => {
                let (network_id, peer_network_id) =
                    (*network_id.min(peer_network_id), *network_id.max(peer_network_id));
                let (id, name) = (*id, name.clone());
                let row = PeeringInsert { id, project_id, name, network_id, peer_network_id, created_at };
                let object = domain::network::Peering {
                    id,
                    project_id,
                    name: row.name.clone(),
                    network_id,
                    peer_network_id,
                    generation: 1,
                    created_at,
                };
                (unit.op(row), Some(NetworkObject::Peering(object)))
            }
            Change::PeeringDelete { id } => {
                let now = found!(peering_find, id);
                (unit.op(PeeringDelete { id: *id, expected_generation: now.generation }), None)
            }
        })
    }

    /// A port for an instance: made, or taken as it is.
    async fn reserve(&self, unit: &mut Unit, asked: &pb::PortReservation) -> pb::ReservedPort {
        let store = &self.0.store;
        let id = asked.port_id.parse().expect("an id");
        if let Some(port) = store.port_find(id).await.expect("a read") {
            let instance_id = asked.instance_id.parse().expect("an id");
            if port.owner.is_none() {
                unit.push(PortTake {
                    id,
                    expected_generation: port.generation,
                    instance_id,
                    hostname: asked.hostname.clone(),
                    expires_at: Timestamp::now().plus_secs(60),
                });
            }
            return reserved(port.id, port.network_id, port.mac, &port.fixed_ips);
        }
        let network_id = asked.network_id.parse().expect("an id");
        let wanted: Vec<FixedIpAsked> =
            asked.fixed_ip_asked_json.iter().map(|json| serde_json::from_str(json).expect("JSON")).collect();
        let [.., a, b, c, d, e] = *id.0.as_bytes();
        let row = PortInsert {
            id,
            project_id: asked.project_id.parse().expect("an id"),
            network_id,
            name: None,
            mac: MacAddr::local([a, b, c, d, e]),
            fixed_ips: self.fixed_ips(network_id, &wanted, e).await,
            allowed_addresses: vec![],
            rate_limit: domain::network::RateLimit::default(),
            hostname: asked.hostname.clone(),
            state: PortState::Reserved,
            instance_id: Some(asked.instance_id.parse().expect("an id")),
            with_instance: true,
            expires_at: Some(Timestamp::now().plus_secs(60)),
            generation: 1,
            created_at: Timestamp::now(),
        };
        let answer = reserved(row.id, row.network_id, row.mac, &row.fixed_ips);
        unit.push(row);
        answer
    }

    async fn target(&self, target: &FloatingTarget) -> (Option<PortId>, Option<IpAddr>) {
        match target {
            FloatingTarget::Nothing => (None, None),
            FloatingTarget::Port { port_id, fixed_ip } => {
                let port = self.0.store.port_find(*port_id).await.expect("a read");
                let first = port.and_then(|port| port.fixed_ips.first().map(|f| f.address));
                (Some(*port_id), fixed_ip.or(first))
            }
        }
    }

    async fn fixed_ips(&self, network_id: NetworkId, asked: &[FixedIpAsked], last: u8) -> Vec<FixedIp> {
        let subnets = self.0.store.subnet_list_of_network(network_id).await.expect("a read");
        let any = |id: SubnetId| {
            let subnet = subnets.iter().find(|s| s.id == id).expect("a subnet");
            let IpAddr::V4(base) = subnet.spec.cidr.addr() else { panic!("the stand-in knows IPv4 alone") };
            let [a, b, c, _] = base.octets();
            FixedIp { subnet_id: id, address: IpAddr::from([a, b, c, last.max(5)]) }
        };
        if asked.is_empty() {
            return subnets.iter().take(1).map(|s| any(s.id)).collect();
        }
        let one = |asked: &FixedIpAsked| match *asked {
            FixedIpAsked::AnyOf(id) => any(id),
            FixedIpAsked::Address(address) => {
                let subnet = subnets.iter().find(|s| s.spec.cidr.contains(address)).expect("a subnet");
                FixedIp { subnet_id: subnet.id, address }
            }
        };
        asked.iter().map(one).collect()
    }
}

fn reserved(id: PortId, network_id: NetworkId, mac: MacAddr, fixed_ips: &[FixedIp]) -> pb::ReservedPort {
    pb::ReservedPort {
        port_id: id.to_string(),
        network_id: network_id.to_string(),
        mac: mac.to_string(),
        fixed_ips: fixed_ips.iter().map(|f| f.address.to_string()).collect(),
    }
}

fn rule_insert(rule: &domain::network::SecurityGroupRule) -> SecurityRuleInsert {
    let domain::network::SecurityGroupRule { id, security_group_id, rule, description } = rule.clone();
    let SecurityRule { remote, .. } = rule;
    let remote_group_id = if let Remote::Group(id) = remote { Some(id) } else { None };
    SecurityRuleInsert { id, security_group_id, rule, remote_group_id, description }
}

#[tonic::async_trait]
impl ResourceManager for StandIn {
    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyResponse>, Status> {
        let context = CallContext::extract(&request);
        let pb::ApplyRequest { project_id, expected_generation, change_json } = request.into_inner();
        let change = serde_json::from_str(&change_json).expect("a change");
        let asked = Asked { context, project_id, expected_generation, change };
        self.0.asked.lock().expect("not poisoned").push(asked.clone());
        let outcome = self.answer(&asked).await.map_err(|problem| to_status(&problem))?;
        Ok(Response::new(pb::ApplyResponse { outcome_json: serde_json::to_string(&outcome).expect("JSON") }))
    }

    async fn reserve_ports(
        &self,
        request: Request<pb::ReservePortsRequest>,
    ) -> Result<Response<pb::ReservePortsResponse>, Status> {
        let dry_run = CallContext::extract(&request).dry_run;
        let (mut unit, mut ports) = (Unit::new(), Vec::new());
        for port in request.into_inner().ports {
            self.0.reserved.lock().expect("not poisoned").push(port.clone());
            if let Some(problem) = self.0.refusal.lock().expect("not poisoned").take() {
                return Err(to_status(&problem));
            }
            ports.push(self.reserve(&mut unit, &port).await);
        }
        if !dry_run {
            self.0.store.commit(unit).await.expect("the ports are reserved");
        }
        Ok(Response::new(pb::ReservePortsResponse { ports }))
    }

    async fn bind_ports(
        &self,
        request: Request<pb::BindPortsRequest>,
    ) -> Result<Response<pb::BindPortsResponse>, Status> {
        let bound = |port: pb::PortBinding| pb::BoundPort { port_id: port.port_id, epoch: 1 };
        let ports = request.into_inner().ports.into_iter().map(bound).collect();
        Ok(Response::new(pb::BindPortsResponse { ports, expired_port_ids: vec![] }))
    }

    async fn release_ports(
        &self,
        _: Request<pb::ReleasePortsRequest>,
    ) -> Result<Response<pb::ReleasePortsResponse>, Status> {
        Ok(Response::new(pb::ReleasePortsResponse {}))
    }

    async fn forget_ports(
        &self,
        _: Request<pb::ForgetPortsRequest>,
    ) -> Result<Response<pb::ForgetPortsResponse>, Status> {
        Ok(Response::new(pb::ForgetPortsResponse {}))
    }
}
