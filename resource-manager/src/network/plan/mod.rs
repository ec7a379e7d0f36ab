//! What a change comes to: decisions without I/O.
//!
//! A [`Planner`] reads the rows in memory and the allocator, and collects a [`Plan`]: the ops of one unit, the rows that memory takes in
//! once that unit stands, the addresses that were claimed for it, and what people read about it. Every op is fenced by the generation that
//! was read, so a plan that is out of date by the time it is committed changes nothing and is made anew.
//!
//! A kind of object that people change implements `Planning` in a file of its own.

mod address;
mod binding;
mod default;
mod external_network;
mod floating_ip;
mod network;
mod peering;
mod planner;
mod port;
mod reserve;
mod router;
mod security_group;
mod subnet;
pub mod uplink;

pub use binding::{BindRequest, Binding};
pub use default::QuotaFit;
pub use planner::Planner;
pub use port::mac_taken;

use crate::network::{
    ipam::{Scope, ScopedAddress},
    topology::{RowChange, RowKey},
};
use domain::{
    Name, Problem, ProjectId, SubnetId, Timestamp,
    network::{Action, ActionOn, ChangeOutcome, MacAddr, ObjectKind, Resource, SubnetSpec},
    quota::QuotaAmounts,
};
use operation::Activity;
use std::collections::BTreeMap;
use store::{Op, Unit};

type Decision<T> = Result<T, Problem>;

/// How changes of one kind of object are decided.
trait Planning: Resource {
    fn create(planner: &mut Planner<'_>, new: &Self::New) -> Decision<ChangeOutcome>;
    fn update(planner: &mut Planner<'_>, id: Self::Id, patch: &Self::Patch) -> Decision<ChangeOutcome>;
    fn delete(planner: &mut Planner<'_>, id: Self::Id) -> Decision<ChangeOutcome>;

    fn decide(planner: &mut Planner<'_>, action: &ActionOn<Self>) -> Decision<ChangeOutcome> {
        match action {
            Action::Create(new) => Self::create(planner, new),
            Action::Update(id, patch) => Self::update(planner, *id, patch),
            Action::Delete(id) => Self::delete(planner, *id),
        }
    }
}

/// What a change comes with.
#[derive(Debug, Clone)]
pub struct PlanContext {
    /// None: the change is of what belongs to no project.
    pub project_id: Option<ProjectId>,
    /// The generation that the object to change must have. 0: any.
    pub expected_generation: i64,
    pub now: Timestamp,
    pub quarantine_secs: u64,
    /// The first and the last VNI that networks get.
    pub vni: (u32, u32),
    /// Nothing will be committed: what constraints would judge is looked up in memory.
    pub dry_run: bool,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Change,
    Delete,
}

impl Verb {
    /// As the audit log has it.
    fn action(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
        }
    }

    /// As events and sentences have it.
    fn past(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Change => "changed",
            Self::Delete => "deleted",
        }
    }
}

/// A change of the allocator that follows the commit.
#[derive(Debug, Clone)]
pub enum PoolChange {
    Put(Scope, Option<SubnetId>, SubnetSpec),
    RemoveSubnet(Scope, SubnetId),
    /// The blocks of an external network that are left.
    Retain(Scope, Vec<SubnetSpec>),
    RemoveScope(Scope),
}

#[derive(Debug, Default)]
pub struct Plan {
    pub ops: Vec<Op>,
    /// What the plan takes of quotas, or (negative) frees.
    pub usage: BTreeMap<ProjectId, QuotaAmounts>,
    /// What memory takes in once the unit stands.
    pub changes: Vec<RowChange>,
    /// Addresses that are held once the unit stands, and released if it doesn't.
    pub claimed: Vec<ScopedAddress>,
    /// Addresses that are quarantined until then, once the unit stands.
    pub quarantined: Vec<(ScopedAddress, Timestamp)>,
    pub pools: Vec<PoolChange>,
    /// The rows that it was decided on.
    pub read: Vec<RowKey>,
    pub activities: Vec<Activity>,
    /// What the caller chose and a unique constraint may refuse.
    pub name: Option<(ObjectKind, Name)>,
    pub mac: Option<MacAddr>,
}

impl Plan {
    /// Its ops and the usage that they make.
    #[must_use]
    pub fn unit(&self) -> Unit {
        let mut unit = Unit::new();
        unit.extend(self.ops.iter().cloned());
        let usage = self.usage.iter().filter(|(_, amounts)| **amounts != QuotaAmounts::NONE);
        unit.extend(usage.map(|(project_id, amounts)| store::NetworkUsageAdd::take(*project_id, amounts)));
        unit
    }
}
