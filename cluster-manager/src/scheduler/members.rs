//! The placed instances that later decisions depend on: members of groups, protected, preemptible and pinned ones. Their claims are counted
//! apart (an instance that is being created has its claim before anything else).

use super::{bucket_trees::NIL, decision::Placed, ids::IdMap, request::Request};
use domain::{InstanceId, PlacementGroupId, flavor::Size};

#[derive(Debug)]
pub(super) struct PlacedInstance {
    pub slot: u32,
    pub claim: Size,
    pub groups: Box<[PlacementGroupId]>,
    pub preemptible: Option<u8>,
    /// What it holds is as good as promised to others.
    pub being_preempted: bool,
    pub numa_node: Option<u8>,
    /// What a protected instance requests of a backup.
    pub protected: Option<Box<Request>>,
    /// Where it would go if its host were lost, and what it would claim there; [`NIL`]: nowhere.
    pub backup: u32,
    pub backup_claim: Size,
}

impl PlacedInstance {
    pub fn new(slot: u32, placed: &Placed, request: &Request) -> Self {
        Self {
            slot,
            claim: placed.claim,
            groups: request.groups.iter().map(|constraint| constraint.group).collect(),
            preemptible: request.preemptible,
            being_preempted: false,
            numa_node: placed.numa_node,
            protected: request.protected.then(|| Box::new(Request { avoid: Vec::new(), ..request.clone() })),
            backup: NIL,
            backup_claim: Size::default(),
        }
    }

    pub fn lacks_backup(&self) -> bool {
        self.protected.is_some() && self.backup == NIL
    }
}

#[derive(Debug, Default)]
pub(super) struct PlacedInstances {
    all: IdMap<InstanceId, PlacedInstance>,
    groups: IdMap<PlacementGroupId, Vec<InstanceId>>,
}

impl PlacedInstances {
    pub fn insert(&mut self, id: InstanceId, instance: PlacedInstance) {
        for group in &instance.groups {
            self.groups.entry(*group).or_default().push(id);
        }
        self.all.insert(id, instance);
    }

    pub fn remove(&mut self, id: InstanceId) -> Option<PlacedInstance> {
        let instance = self.all.remove(&id)?;
        for group in &instance.groups {
            if let Some(members) = self.groups.get_mut(group) {
                members.retain(|other| *other != id);
                if members.is_empty() {
                    self.groups.remove(group);
                }
            }
        }
        Some(instance)
    }

    pub fn find(&self, id: InstanceId) -> Option<&PlacedInstance> {
        self.all.get(&id)
    }

    pub fn find_mut(&mut self, id: InstanceId) -> Option<&mut PlacedInstance> {
        self.all.get_mut(&id)
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn members(&self, group: PlacementGroupId) -> &[InstanceId] {
        self.groups.get(&group).map_or(&[], Vec::as_slice)
    }

    /// The instances for which `which` holds, by id.
    pub fn select(&self, which: impl Fn(&PlacedInstance) -> bool) -> Vec<InstanceId> {
        let mut ids: Vec<InstanceId> =
            self.all.iter().filter(|(_, instance)| which(instance)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}
