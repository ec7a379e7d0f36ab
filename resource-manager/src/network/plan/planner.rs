//! The planner: what every decision reads, checks and collects.

use super::{Decision, Plan, PlanContext, Planning, QuotaFit, Verb};
use crate::network::{
    ipam::{Ipam, ScopedAddress},
    topology::{NamedRow, RowChange, Table, Topology, described},
};
use domain::{
    ErrorKind, Name, Problem, ProjectId, SubnetId,
    network::{
        Bounded as _, Change, ChangeOutcome, ExternalNetwork, FloatingIp, Network, NetworkObject, ObjectKind, Peering,
        Port, Router, SecurityGroup, SecurityGroupRule, Subnet,
    },
    quota::QuotaAmounts,
    validate,
};
use operation::Activity;
use std::{fmt::Display, net::IpAddr};
use store::{AddressOwner, AddressRelease, AddressTake, NetworkBump, Op, external_block_id};

/// A plan that is being made.
pub struct Planner<'a> {
    pub(super) topology: &'a Topology,
    pub(super) ipam: &'a mut Ipam,
    pub(super) context: PlanContext,
    /// Draws a number: MACs and VNIs need no secret, only to differ.
    pub(super) rng: &'a mut dyn FnMut() -> u64,
    pub(super) plan: Plan,
}

impl<'a> Planner<'a> {
    pub fn new(
        topology: &'a Topology,
        ipam: &'a mut Ipam,
        context: PlanContext,
        rng: &'a mut dyn FnMut() -> u64,
    ) -> Self {
        Self { topology, ipam, context, rng, plan: Plan::default() }
    }

    /// Decides on a change. `fit`: what the quota leaves of the defaults of a project, for [`Change::ProjectDefaults`].
    pub fn decide(self, change: &Change, fit: QuotaFit) -> Decision<(Plan, ChangeOutcome)> {
        self.finish_with(|planner| {
            validate::check(|violations| change.check(violations))?;
            match change {
                Change::ProjectDefaults => planner.defaults(fit),
                Change::ExternalNetwork(action) => ExternalNetwork::decide(planner, action),
                Change::Network(action) => Network::decide(planner, action),
                Change::Subnet(action) => Subnet::decide(planner, action),
                Change::Port(action) => Port::decide(planner, action),
                Change::Router(action) => Router::decide(planner, action),
                Change::FloatingIp(action) => FloatingIp::decide(planner, action),
                Change::SecurityGroup(action) => SecurityGroup::decide(planner, action),
                Change::SecurityRule(action) => SecurityGroupRule::decide(planner, action),
                Change::Peering(action) => Peering::decide(planner, action),
            }
        })
    }

    /// The plan of a decision. What was claimed before it failed is released.
    pub(super) fn finish_with<T, E>(mut self, decide: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<(Plan, T), E> {
        match decide(&mut self) {
            Ok(outcome) => Ok((self.plan, outcome)),
            Err(refusal) => {
                self.plan.claimed.iter().for_each(|at| self.ipam.release(*at));
                Err(refusal)
            }
        }
    }

    pub(super) fn op(&mut self, op: impl Into<Op>) {
        self.plan.ops.push(op.into());
    }

    /// Memory takes in this row once the unit stands.
    pub(super) fn put(&mut self, row: impl Into<RowChange>) {
        self.plan.changes.push(row.into());
    }

    pub(super) fn gone<R: Table>(&mut self, id: R::RowId) {
        self.plan.changes.push(RowChange::Gone(R::KEY(id)));
    }

    /// This row matters for the decision.
    pub(super) fn reads<R: Table>(&mut self, id: R::RowId) {
        self.plan.read.push(R::KEY(id));
    }

    pub(super) fn project(&self) -> Decision<ProjectId> {
        self.context.project_id.ok_or_else(|| Problem::invalid("project_id", "a project is needed"))
    }

    /// Takes of the project's quota; negative amounts free it.
    pub(super) fn uses(&mut self, project_id: ProjectId, amounts: QuotaAmounts) {
        let sum = self.plan.usage.entry(project_id).or_default();
        *sum = sum.minus(&amounts.negated());
    }

    /// An object that the project may use.
    pub(super) fn fetch<R: NamedRow>(&mut self, id: R::Id) -> Decision<R> {
        self.reads::<R>(id);
        let usable = |row: &&R| row.project_id().is_none_or(|owner| self.context.project_id == Some(owner));
        let found = R::table(self.topology).get(&id).filter(usable).cloned();
        found.ok_or_else(|| Problem::not_found(R::KIND.label(), id))
    }

    /// An object that is to be changed, if it is at the generation that the caller read.
    pub(super) fn fetch_to_change<R: NamedRow>(&mut self, id: R::Id) -> Decision<R> {
        let object: R = self.fetch(id)?;
        let (expected, generation) = (self.context.expected_generation, object.row_generation());
        if expected == 0 || expected == generation {
            return Ok(object);
        }
        Err(Problem::new(
            ErrorKind::PreconditionFailed,
            "stale_generation",
            format!("{} {} is at generation {generation}, not {expected}", R::KIND.label(), object.label()),
        )
        .with_hint("read it again, and repeat the change if it still makes sense"))
    }

    /// The object `id` gets this name, which is unique among those of the same scope. The database judges that; only a dry run looks.
    pub(super) fn takes_name<R: NamedRow>(
        &mut self,
        name: &Name,
        id: R::Id,
        same_scope: impl Fn(&R) -> bool,
    ) -> Decision<()> {
        self.plan.name = Some((R::KIND, name.clone()));
        let taken = |other: &R| other.name() == Some(name) && other.id() != id && same_scope(other);
        if self.context.dry_run && R::table(self.topology).values().any(taken) {
            return Err(Problem::already_exists(R::KIND.label(), name.as_str()));
        }
        Ok(())
    }

    /// Something changes that hosts get with the network. Once per network in a plan.
    pub(super) fn bump(&mut self, network: &Network) {
        self.reads::<Network>(network.id);
        self.op(NetworkBump { id: network.id, expected_generation: network.generation });
        self.put(Network { generation: network.generation + 1, ..network.clone() });
    }

    /// The address that was claimed becomes its owner's.
    pub(super) fn take(
        &mut self,
        (scope, address): ScopedAddress,
        subnet_id: Option<SubnetId>,
        owner_kind: AddressOwner,
        owner_id: String,
    ) {
        let (scope_id, at) = (scope.to_string(), self.context.now);
        self.op(AddressTake { scope_id, address, subnet_id, block_id: None, owner_kind, owner_id, at });
    }

    /// The address of an external network that was claimed becomes its owner's, as long as the block that it is of is there.
    pub(super) fn take_external(
        &mut self,
        external: &ExternalNetwork,
        address: IpAddr,
        owner_kind: AddressOwner,
        owner_id: String,
    ) -> Decision<()> {
        let Some(block) = external.subnets.iter().find(|subnet| subnet.cidr.contains(address)) else {
            return Err(Problem::invalid(
                "address",
                format!("{address} is in no block of external network {}", external.name),
            ));
        };
        self.op(AddressTake {
            scope_id: external.id.to_string(),
            address,
            subnet_id: None,
            block_id: Some(external_block_id(external.id, block.cidr)),
            owner_kind,
            owner_id,
            at: self.context.now,
        });
        Ok(())
    }

    /// Its owner gives the address up; it is quarantined for so long.
    pub(super) fn release(&mut self, (scope, address): ScopedAddress, owner_id: String, quarantine_secs: u64) {
        let free_at = self.context.now.plus_secs(quarantine_secs);
        self.op(AddressRelease { scope_id: scope.to_string(), address, owner_id, free_at });
        self.plan.quarantined.push(((scope, address), free_at));
    }

    /// The answer of a change, and the activity that it is. `others`: what else the change affects.
    pub(super) fn finish<R: NamedRow>(&mut self, verb: Verb, object: R, others: Vec<String>) -> ChangeOutcome {
        let (label, project_id) = (object.label(), object.project_id());
        let id = object.id().to_string();
        self.finish_object(verb, object.into_object(), &label, &id, project_id, others)
    }

    pub(super) fn finish_object(
        &mut self,
        verb: Verb,
        object: NetworkObject,
        label: &str,
        id: &str,
        project_id: Option<ProjectId>,
        others: Vec<String>,
    ) -> ChangeOutcome {
        let (kind, past) = (object.kind(), verb.past());
        let what = described(kind, label, id);
        let was = if self.context.dry_run { "would be" } else { "was" };
        let also = if others.is_empty() { String::new() } else { format!("; this also affects {}", others.join(", ")) };
        let summary = format!("{what} {was} {past}{also}");
        let affects: Vec<String> = std::iter::once(what).chain(others).collect();
        let (action, event) = (format!("{}.{}", kind.as_str(), verb.action()), format!("{}.{past}", kind.as_str()));
        let message = format!("the {} {label} was {past}", kind.label());
        let activity = Activity::new(kind.as_str(), id, action, event, message).in_project(project_id);
        self.plan.activities.push(activity.with_data(serde_json::json!({ "affects": affects })));
        ChangeOutcome { object: Some(object), summary, affects }
    }
}

/// An object can't go (or change so) because others use it; `users` names them.
pub(super) fn in_use(kind: ObjectKind, label: impl Display, users: &[String], hint: &str) -> Problem {
    const NAMED: usize = 5;
    let mut names = users.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if users.len() > NAMED {
        names = format!("{names} and {} more", users.len() - NAMED);
    }
    Problem::new(
        ErrorKind::InvalidState,
        format!("{}_in_use", kind.as_str()),
        format!("the {} {label} is in use by {names}", kind.label()),
    )
    .with_hint(hint)
}

pub(super) fn scoped(scope: impl Into<uuid::Uuid>, address: IpAddr) -> ScopedAddress {
    (scope.into(), address)
}
