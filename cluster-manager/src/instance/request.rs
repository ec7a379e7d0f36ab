//! What is requested of instances and what came of it, in domain types: the wire format ends before.

use crate::placement::capacity_hold::HoldOwner;
use domain::{
    DiskId, InstanceId, Name, Problem, ProjectId,
    explain::PlacementRecord,
    instance::{Instance, InstanceSpec, NicRequest},
    limits,
    placement::Fill,
    quota::QuotaAmounts,
    validate,
};
use std::collections::{BTreeMap, HashSet};

/// A request for one or several instances of one spec.
#[derive(Debug)]
pub struct CreateRequest {
    pub project_id: ProjectId,
    pub instances: Vec<InstanceRequest>,
    /// Its NICs are filled in from what was reserved.
    pub spec: InstanceSpec,
    pub tags: BTreeMap<String, String>,
    pub fill: Fill,
}

/// What is an instance's own in such a request.
#[derive(Debug)]
pub struct InstanceRequest {
    pub id: InstanceId,
    pub name: Name,
    pub root_disk_id: Option<DiskId>,
    pub nics: Vec<NicRequest>,
}

impl CreateRequest {
    /// Refuses a number of instances or NICs that can't be, and names and ports that are given twice.
    pub fn check(&self) -> Result<(), Problem> {
        let (count, bounds) = (self.instances.len(), 1..=limits::CREATE_COUNT as usize);
        validate::check(|v| v.within("count", count, &bounds))?;
        let mut names = HashSet::new();
        if let Some(twice) = self.instances.iter().find(|i| !names.insert(&i.name)) {
            return Err(Problem::invalid("name", format!("`{}` is given twice", twice.name)));
        }
        let mut ports = HashSet::new();
        for instance in &self.instances {
            validate::check(|v| validate::instance::nic_count(v, "nics", instance.nics.len()))?;
            if let Some(twice) = instance.nics.iter().find(|nic| !ports.insert(nic.port_id)) {
                return Err(Problem::invalid("nics", format!("port {} is given twice", twice.port_id)));
            }
        }
        Ok(())
    }

    /// The instances behind the first `count`: those have no place.
    pub fn behind<'a>(&'a self, left_out: &'a LeftOut, count: usize) -> impl Iterator<Item = &'a InstanceRequest> {
        self.instances.iter().skip(count).chain(&left_out.instances)
    }

    #[must_use]
    pub fn not_created(&self, left_out: &LeftOut, count: usize, why: PlacementRecord) -> NotCreated {
        NotCreated { names: self.behind(left_out, count).map(|instance| instance.name.clone()).collect(), why }
    }

    #[must_use]
    pub fn ids(&self) -> Vec<InstanceId> {
        self.instances.iter().map(|i| i.id).collect()
    }

    /// What `count` of its instances take of the project's quota.
    #[must_use]
    pub fn quota(&self, count: usize) -> QuotaAmounts {
        QuotaAmounts::of_instances(self.spec.size, u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Whom capacity may be held for: a request that wants all of its instances.
    #[must_use]
    pub fn hold_owner(&self) -> Option<HoldOwner<'_>> {
        let first = self.instances.first().filter(|_| self.fill == Fill::AllOrNothing)?;
        Some(HoldOwner { project_id: self.project_id, name: &first.name })
    }
}

/// The instances of a request that have no place, and why.
#[derive(Debug, Default)]
pub struct LeftOut {
    pub instances: Vec<InstanceRequest>,
    pub why: Option<PlacementRecord>,
}

/// What came of a create.
#[derive(Debug)]
pub struct Created {
    pub instances: Vec<Instance>,
    pub not_created: Option<NotCreated>,
    /// The plan of a dry run.
    pub plan: Option<Plan>,
}

/// The instances that had no place where as many as fit were requested.
#[derive(Debug)]
pub struct NotCreated {
    pub names: Vec<Name>,
    pub why: PlacementRecord,
}

/// Which instance is to be changed.
#[derive(Debug, Clone, Copy)]
pub struct ChangeTarget {
    pub project_id: ProjectId,
    pub id: InstanceId,
    /// `None`: whatever generation it has.
    pub expected_generation: Option<i64>,
}

/// What came of a change or a deletion.
#[derive(Debug)]
pub struct Changed {
    pub instance: Instance,
    /// The plan of a dry run.
    pub plan: Option<Plan>,
}

/// What a request would do.
#[derive(Debug, Default)]
pub struct Plan {
    pub summary: String,
    pub placement: Option<PlacementRecord>,
    /// What would be left of the project's quota.
    pub quota_left: QuotaAmounts,
    /// The objects that it would change, for people.
    pub affected: Vec<String>,
}
