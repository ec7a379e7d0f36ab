//! What a wish comes to: decisions without I/O.
//!
//! A [`Draft`] looks at the rows in memory and at the allocator, and collects a [`Plan`]: the ops of one unit, what memory learns once
//! that unit stands, the addresses that were claimed for it, and what people are told. Every op is fenced by the generation that was
//! looked at, so a plan that is out of date by the time it is committed changes nothing and is made anew.

mod address;
mod binding;
mod default;
mod external_network;
mod floating_ip;
mod network;
mod peering;
mod port;
mod reserve;
mod router;
mod security_group;
mod subnet;
pub mod uplink;
mod words;

pub use binding::{BindAsked, Binding};
pub use default::Fits;
pub use port::mac_taken;
pub use reserve::{ReserveAsked, ReserveOf, Reserved};
pub use words::named;

use crate::{
    network::ipam::{Ipam, Scope, ScopedAddress},
    network::topology::{DEFAULT, Key, Learned, Topology},
};
use domain::{
    ErrorKind, ExternalNetworkId, Name, NetworkId, PortId, Problem, ProjectId, RouterId, SecurityGroupId, SubnetId,
    Timestamp,
    network::{
        Action, Change, ChangeOutcome, ExternalNetwork, Network, NetworkObject, ObjectKind, Port, Router,
        SecurityGroup, Subnet, SubnetSpec,
    },
    quota::QuotaAmounts,
    validate,
};
use std::{collections::BTreeMap, fmt::Display, net::IpAddr};
use store::{AddressOwner, AddressRelease, AddressTake, NetworkBump, Op, Unit};

/// What a wish comes with.
#[derive(Debug, Clone)]
pub struct Ask {
    /// None: of what belongs to no project.
    pub project_id: Option<ProjectId>,
    /// 0: any. Of the object that is changed.
    pub expected_generation: i64,
    pub now: Timestamp,
    pub quarantine_secs: u64,
    /// The VNIs that networks get.
    pub vni: (u32, u32),
    /// Nothing will be committed: what constraints would judge is looked at here.
    pub dry_run: bool,
}

/// What became of an object, for events and the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Create,
    Change,
    Delete,
}

impl Deed {
    /// As the audit log has it.
    #[must_use]
    pub fn action(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
        }
    }

    /// As events have it.
    #[must_use]
    pub fn event(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Change => "changed",
            Self::Delete => "deleted",
        }
    }
}

/// One line for the events and one for the audit log.
#[derive(Debug, Clone)]
pub struct Words {
    /// `network.created`
    pub event: String,
    /// `network.create`
    pub action: String,
    pub object_kind: &'static str,
    pub object_id: String,
    pub project_id: Option<ProjectId>,
    pub message: String,
}

/// A change of the allocator that follows the commit.
#[derive(Debug, Clone)]
pub enum PoolChange {
    Put(Scope, Option<SubnetId>, SubnetSpec),
    RemoveSubnet(Scope, SubnetId),
    /// Blocks of an external network that are left.
    Keep(Scope, Vec<SubnetSpec>),
    RemoveScope(Scope),
}

#[derive(Debug, Default)]
pub struct Plan {
    pub ops: Vec<Op>,
    /// Taken, or (negative) given back.
    pub usage: BTreeMap<ProjectId, QuotaAmounts>,
    pub learned: Vec<Learned>,
    /// Held once the unit stands; else given back.
    pub claimed: Vec<ScopedAddress>,
    /// Rest until then once the unit stands.
    pub resting: Vec<(ScopedAddress, Timestamp)>,
    pub pools: Vec<PoolChange>,
    /// The rows that it was decided on.
    pub seen: Vec<Key>,
    pub words: Vec<Words>,
}

impl Plan {
    /// Its ops and the usage they make.
    #[must_use]
    pub fn unit(&self) -> Unit {
        let mut unit = Unit::new();
        unit.extend(self.ops.iter().cloned());
        let none = |amounts: &QuotaAmounts| *amounts == QuotaAmounts::NONE;
        let usage = self.usage.iter().filter(|(_, amounts)| !none(amounts));
        unit.extend(usage.map(|(project_id, amounts)| store::NetworkUsageAdd::take(*project_id, amounts)));
        unit
    }
}

/// A plan in the making.
pub struct Draft<'a> {
    pub topology: &'a Topology,
    pub ipam: &'a mut Ipam,
    pub ask: Ask,
    /// Draws a number: MACs and VNIs need no secret, only to differ.
    pub dice: &'a mut dyn FnMut() -> u64,
    pub plan: Plan,
}

type Decided<T> = Result<T, Problem>;

impl<'a> Draft<'a> {
    pub fn new(topology: &'a Topology, ipam: &'a mut Ipam, ask: Ask, dice: &'a mut dyn FnMut() -> u64) -> Self {
        Self { topology, ipam, ask, dice, plan: Plan::default() }
    }

    /// Decides. What was claimed before it failed is given back.
    pub fn decide(mut self, change: &Change) -> Decided<(Plan, ChangeOutcome)> {
        match self.dispatch(change) {
            Ok(outcome) => Ok((self.plan, outcome)),
            Err(problem) => {
                self.abandon();
                Err(problem)
            }
        }
    }

    /// [`Change::ProjectDefaults`], as far as the quota has room.
    pub fn decide_defaults(mut self, fits: Fits) -> Decided<(Plan, ChangeOutcome)> {
        self.defaults(fits).map(|outcome| (self.plan, outcome))
    }

    pub fn abandon(self) {
        for at in self.plan.claimed {
            self.ipam.give_back(at);
        }
    }

    fn dispatch(&mut self, change: &Change) -> Decided<ChangeOutcome> {
        validate::network::change(change)?;
        match change {
            // Needs to know what the quota leaves: `Draft::defaults`.
            Change::ProjectDefaults => self.defaults(Fits { network: true, router: true, group: true }),
            Change::ExternalNetwork(action) => match action {
                Action::Create(new) => self.external_network_create(new),
                Action::Update(id, patch) => self.external_network_update(*id, patch),
                Action::Delete(id) => self.external_network_delete(*id),
            },
            Change::Network(action) => match action {
                Action::Create(new) => self.network_create(new),
                Action::Update(id, patch) => self.network_update(*id, patch),
                Action::Delete(id) => self.network_delete(*id),
            },
            Change::Subnet(action) => match action {
                Action::Create(new) => self.subnet_create(new),
                Action::Update(id, patch) => self.subnet_update(*id, patch),
                Action::Delete(id) => self.subnet_delete(*id),
            },
            Change::Port(action) => match action {
                Action::Create(new) => self.port_create(new),
                Action::Update(id, patch) => self.port_update(*id, patch),
                Action::Delete(id) => self.port_delete(*id),
            },
            Change::Router(action) => match action {
                Action::Create(new) => self.router_create(new),
                Action::Update(id, patch) => self.router_update(*id, patch),
                Action::Delete(id) => self.router_delete(*id),
            },
            Change::FloatingIp(action) => match action {
                Action::Create(new) => self.floating_ip_create(new),
                Action::Update(id, patch) => self.floating_ip_update(*id, patch),
                Action::Delete(id) => self.floating_ip_delete(*id),
            },
            Change::SecurityGroup(action) => match action {
                Action::Create(new) => self.security_group_create(new),
                Action::Update(id, patch) => self.security_group_update(*id, patch),
                Action::Delete(id) => self.security_group_delete(*id),
            },
            Change::SecurityRule(action) => match action {
                Action::Create(new) => self.security_rule_create(new),
                Action::Update(_, patch) => match *patch {},
                Action::Delete(id) => self.security_rule_delete(*id),
            },
            Change::Peering(action) => match action {
                Action::Create(new) => self.peering_create(new),
                Action::Update(_, patch) => match *patch {},
                Action::Delete(id) => self.peering_delete(*id),
            },
        }
    }

    fn op(&mut self, op: impl Into<Op>) {
        self.plan.ops.push(op.into());
    }

    fn learn(&mut self, learned: Learned) {
        self.plan.learned.push(learned);
    }

    fn project(&self) -> Decided<ProjectId> {
        self.ask.project_id.ok_or_else(|| Problem::invalid("project_id", "a project is needed"))
    }

    /// Takes from the asking project's quota; negative amounts give back.
    fn uses(&mut self, project_id: ProjectId, amounts: QuotaAmounts) {
        let sum = self.plan.usage.entry(project_id).or_default();
        *sum = sum.minus(&amounts.negated());
    }

    /// Refuses a change of an object that is at another generation than the asker saw.
    fn fence(&self, kind: ObjectKind, key: impl Display, generation: i64) -> Decided<()> {
        let expected = self.ask.expected_generation;
        if expected == 0 || expected == generation {
            return Ok(());
        }
        Err(Problem::new(
            ErrorKind::PreconditionFailed,
            "stale_generation",
            format!("{} {key} is at generation {generation}, not {expected}", kind.label()),
        )
        .with_hint("read it again, and repeat the change if it still makes sense"))
    }

    /// What a unique constraint would say; asked only where nothing is committed.
    fn free_name(&self, kind: ObjectKind, name: &Name, taken: impl FnOnce(&Topology) -> bool) -> Decided<()> {
        if self.ask.dry_run && taken(self.topology) {
            return Err(Problem::already_exists(kind.label(), name.as_str()));
        }
        Ok(())
    }

    fn network(&mut self, id: NetworkId) -> Decided<Network> {
        self.plan.seen.push(Key::Network(id));
        let mine = |network: &&Network| Some(network.project_id) == self.ask.project_id;
        self.topology.network(id).filter(mine).cloned().ok_or_else(|| Problem::not_found("network", id))
    }

    fn subnet(&mut self, id: SubnetId) -> Decided<Subnet> {
        self.plan.seen.push(Key::Subnet(id));
        let mine = |subnet: &&Subnet| Some(subnet.project_id) == self.ask.project_id;
        self.topology.subnet(id).filter(mine).cloned().ok_or_else(|| Problem::not_found("subnet", id))
    }

    fn port(&mut self, id: PortId) -> Decided<Port> {
        self.plan.seen.push(Key::Port(id));
        let mine = |port: &&Port| Some(port.project_id) == self.ask.project_id;
        self.topology.port(id).filter(mine).cloned().ok_or_else(|| Problem::not_found("port", id))
    }

    fn router(&mut self, id: RouterId) -> Decided<Router> {
        self.plan.seen.push(Key::Router(id));
        let mine = |router: &&Router| Some(router.project_id) == self.ask.project_id;
        self.topology.router(id).filter(mine).cloned().ok_or_else(|| Problem::not_found("router", id))
    }

    fn security_group(&mut self, id: SecurityGroupId) -> Decided<SecurityGroup> {
        self.plan.seen.push(Key::SecurityGroup(id));
        let mine = |group: &&SecurityGroup| Some(group.project_id) == self.ask.project_id;
        self.topology.security_group(id).filter(mine).cloned().ok_or_else(|| Problem::not_found("security group", id))
    }

    /// Every project may use it.
    fn external_network(&mut self, id: ExternalNetworkId) -> Decided<ExternalNetwork> {
        self.plan.seen.push(Key::ExternalNetwork(id));
        self.topology.external_network(id).cloned().ok_or_else(|| Problem::not_found("external network", id))
    }

    /// Something that hosts are told with the network changes. Once per network in a plan.
    fn touch(&mut self, network: &Network) {
        self.plan.seen.push(Key::Network(network.id));
        self.op(NetworkBump { id: network.id, expected_generation: network.generation });
        let touched = Network { generation: network.generation + 1, ..network.clone() };
        self.learn(Learned::Network(touched));
    }

    /// The address that was claimed becomes its owner's.
    fn take(&mut self, at: ScopedAddress, subnet_id: Option<SubnetId>, owner_kind: AddressOwner, owner_id: String) {
        let (scope, address) = at;
        self.op(AddressTake {
            scope_id: scope.to_string(),
            address,
            subnet_id,
            owner_kind,
            owner_id,
            at: self.ask.now,
        });
    }

    /// Its owner gives it up; it rests so long.
    fn release(&mut self, (scope, address): ScopedAddress, owner_id: String, rest_secs: u64) {
        let free_at = self.ask.now.plus_secs(rest_secs);
        self.op(AddressRelease { scope_id: scope.to_string(), address, owner_id, free_at });
        self.plan.resting.push(((scope, address), free_at));
    }

    /// The answer, and the words about it.
    fn done(&mut self, deed: Deed, object: NetworkObject, key: impl Display, touches: Vec<String>) -> ChangeOutcome {
        let kind = object.kind();
        let (id, project_id) = words::whose(&object, self.ask.project_id);
        let what = named(kind, &key, &id);
        let verb = deed.event();
        let also = if touches.is_empty() { String::new() } else { format!("; also touched: {}", touches.join(", ")) };
        let summary =
            if self.ask.dry_run { format!("{what} would be {verb}{also}") } else { format!("{what} was {verb}{also}") };
        self.plan.words.push(Words {
            event: format!("{}.{}", kind.as_str(), deed.event()),
            action: format!("{}.{}", kind.as_str(), deed.action()),
            object_kind: kind.as_str(),
            object_id: id,
            project_id,
            message: format!("the {} {key} was {verb}", kind.label()),
        });
        let touches = std::iter::once(what).chain(touches).collect();
        ChangeOutcome { object: Some(object), summary, affects: touches }
    }
}

/// Something can't go (or change so) because others use it; `by` names them.
fn in_use(kind: ObjectKind, key: impl Display, by: &[String], hint: &str) -> Problem {
    const NAMED: usize = 5;
    let mut names = by.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if by.len() > NAMED {
        names = format!("{names} and {} more", by.len() - NAMED);
    }
    Problem::new(
        ErrorKind::InvalidState,
        format!("{}_in_use", kind.as_str()),
        format!("the {} {key} is in use by {names}", kind.label()),
    )
    .with_hint(hint)
}

/// How an address is written in answers.
fn scoped(scope: impl Into<uuid::Uuid>, address: IpAddr) -> ScopedAddress {
    (scope.into(), address)
}
