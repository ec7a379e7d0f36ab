//! Instances: desired state, what their hosts last reported, and what they claim. Written by the cluster-manager.
//!
//! Every write is fenced in its `WHERE`. A desired-state write names the generation it was decided on and raises it; a report names the
//! epoch it is of and the generation the manager decided on, and is stored only if its fence (epoch, generation, start, counter) is
//! greater than the stored one; a deletion names the epoch whose end was proven.

mod list;

use crate::{DiskRow, ReadError, Store};
use domain::{
    DiskId, HostId, ImageId, InstanceId, Name, ProjectId, Timestamp,
    explain::PlacementRecord,
    flavor::Size,
    image::Image,
    instance::{Binding, Instance, InstanceSpec, InstanceState, InstanceStatus, ReportFence},
    network::Port,
};
pub(crate) use list::Conditions;
pub use list::{HostClaims, InstanceFilter};
use std::collections::{BTreeMap, HashMap};

op! {
    /// Never observed, never crashed, its quota held.
    InstanceInsert {
        id: InstanceId,
        project_id: ProjectId,
        name: Name,
        tags: BTreeMap<String, String>,
        generation: i64,
        epoch: i64,
        host_id: Option<HostId>,
        root_disk_id: Option<DiskId>,
        image_id: ImageId,
        spec: InstanceSpec,
        placement: Option<PlacementRecord>,
        claim_vcpus: u32,
        /// This includes QEMU's overhead.
        claim_memory_mib: u64,
        claim_disk_gib: u64,
        state: InstanceState,
        step: String,
        reason: String,
        deadline_at: Option<Timestamp>,
        /// Later decisions must know of it ([`crate::AttachedRow`]).
        attached: bool,
        cpu_baseline: Option<String>,
        numa_node: Option<u32>,
        created_at: Timestamp,
    }
    on instance, Insert by (id): insert {
        quota_released = "FALSE", crash_count = "0", observed_epoch = "0", observed_generation = "0",
        observed_start = "0", observed_counter = "0", updated_at = "r.created_at"
    }
}

op! {
    /// A change of desired state: the whole of it, decided on `expected_generation` (and, where given, `expected_state`). The generation
    /// becomes `expected_generation + 1`. An epoch never falls. An image that is gone fails the guard as well.
    InstanceDesired {
        id: InstanceId,
        expected_generation: i64,
        expected_state: Option<InstanceState>,
        name: Name,
        tags: BTreeMap<String, String>,
        spec: InstanceSpec,
        /// The image that it holds from now on. `None`: its deletion is accepted, and it needs none.
        image_id: Option<ImageId>,
        epoch: i64,
        host_id: Option<HostId>,
        root_disk_id: Option<DiskId>,
        placement: Option<PlacementRecord>,
        claim_vcpus: u32,
        claim_memory_mib: u64,
        claim_disk_gib: u64,
        quota_released: bool,
        state: InstanceState,
        step: String,
        reason: String,
        deadline_at: Option<Timestamp>,
        at: Timestamp,
    }
    on instance, Change by (id), guard InstanceGeneration:
    "UPDATE instance SET generation = r.expected_generation + 1, name = r.name, tags = r.tags, spec = r.spec,
        image_id = r.image_id, epoch = r.epoch,
        root_used_seq = CASE WHEN instance.epoch = r.epoch THEN instance.root_used_seq END, host_id = r.host_id, root_disk_id = r.root_disk_id,
        placement = r.placement, claim_vcpus = r.claim_vcpus, claim_memory_mib = r.claim_memory_mib,
        claim_disk_gib = r.claim_disk_gib, quota_released = r.quota_released, state = r.state, step = r.step,
        reason = r.reason, deadline_at = r.deadline_at, updated_at = r.at
     FROM {rows} WHERE instance.id = r.id AND instance.generation = r.expected_generation
     AND instance.epoch <= r.epoch AND (r.expected_state IS NULL OR instance.state = r.expected_state)"
}

op! {
    /// It goes to another host, under a higher epoch: its old one is lost. What it is to be stays as it is; what was observed of it is of
    /// an epoch that it has left. Raises the generation.
    InstanceMove {
        id: InstanceId,
        expected_generation: i64,
        expected_epoch: i64,
        epoch: i64,
        host_id: HostId,
        placement: Option<PlacementRecord>,
        claim_vcpus: u32,
        claim_memory_mib: u64,
        claim_disk_gib: u64,
        cpu_baseline: Option<String>,
        numa_node: Option<u32>,
        root_used_seq: Option<u64>,
        state: InstanceState,
        step: String,
        reason: String,
        deadline_at: Option<Timestamp>,
        at: Timestamp,
    }
    on instance, Change by (id), guard InstanceGeneration:
    "UPDATE instance SET generation = r.expected_generation + 1, epoch = r.epoch, host_id = r.host_id, placement = r.placement,
        claim_vcpus = r.claim_vcpus, claim_memory_mib = r.claim_memory_mib, claim_disk_gib = r.claim_disk_gib,
        cpu_baseline = r.cpu_baseline, numa_node = r.numa_node, root_used_seq = r.root_used_seq, started_at = NULL, guest_up_at = NULL,
        state = r.state, step = r.step, reason = r.reason, deadline_at = r.deadline_at, updated_at = r.at
     FROM {rows} WHERE instance.id = r.id AND instance.generation = r.expected_generation
     AND instance.epoch = r.expected_epoch AND instance.epoch < r.epoch"
}

op! {
    /// A host's report, newer than the stored one, of this epoch, decided on the row's generation `expected_generation`.
    InstanceObserved {
        id: InstanceId,
        epoch: i64,
        /// The desired generation that the host has caught up with.
        generation: i64,
        expected_generation: i64,
        start: i64,
        counter: i64,
        state: InstanceState,
        step: String,
        reason: String,
        deadline_at: Option<Timestamp>,
        started_at: Option<Timestamp>,
        guest_up_at: Option<Timestamp>,
        crash_count: u32,
        root_used_seq: Option<u64>,
        at: Timestamp,
    }
    on instance, Change by (id), guard InstanceObserved:
    "UPDATE instance SET observed_epoch = r.epoch, observed_generation = r.generation, observed_start = r.start,
        observed_counter = r.counter, state = r.state, step = r.step, reason = r.reason, deadline_at = r.deadline_at,
        started_at = r.started_at, guest_up_at = r.guest_up_at, crash_count = r.crash_count,
        root_used_seq = r.root_used_seq, updated_at = r.at
     FROM {rows} WHERE instance.id = r.id AND instance.generation = r.expected_generation AND instance.epoch = r.epoch
     AND (instance.observed_epoch, instance.observed_generation, instance.observed_start, instance.observed_counter)
        < (r.epoch, r.generation, r.start, r.counter)"
}

op! {
    /// The manager's own view: a deadline passed, what it waits for. The generation stays. Decided on the report that was stored last
    /// (`expected_start`, `expected_counter`): what a host says meanwhile is never covered by what was thought before.
    InstanceProgress {
        id: InstanceId,
        expected_generation: i64,
        expected_start: i64,
        expected_counter: i64,
        state: InstanceState,
        step: String,
        reason: String,
        deadline_at: Option<Timestamp>,
        at: Timestamp,
    }
    on instance, Change by (id), guard InstanceGeneration:
    "UPDATE instance SET state = r.state, step = r.step, reason = r.reason, deadline_at = r.deadline_at, updated_at = r.at
     FROM {rows} WHERE instance.id = r.id AND instance.generation = r.expected_generation
     AND instance.observed_start = r.expected_start AND instance.observed_counter = r.expected_counter"
}

op! {
    /// The row goes above what its host holds: the database was restored from a backup. The state stays until the host reports.
    InstanceLift {
        id: InstanceId,
        expected_generation: i64,
        generation: i64,
        epoch: i64,
        spec: InstanceSpec,
        step: String,
        deadline_at: Option<Timestamp>,
        at: Timestamp,
    }
    on instance, Change by (id), guard InstanceGeneration:
    "UPDATE instance SET generation = r.generation, epoch = r.epoch, spec = r.spec, step = r.step, reason = '',
        deadline_at = r.deadline_at, updated_at = r.at
     FROM {rows} WHERE instance.id = r.id AND instance.generation = r.expected_generation
     AND instance.generation < r.generation AND instance.epoch <= r.epoch"
}

op! {
    /// The row goes, once: its claim is given back in the same unit.
    InstanceDelete { id: InstanceId, epoch: i64 }
    on instance, Change by (id), guard InstanceEpoch:
    "DELETE FROM instance WHERE (id, epoch) IN (SELECT r.id, r.epoch FROM {rows})"
}

/// An instance with what only its owner needs. Reads as the [`Instance`] it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    pub instance: Instance,
    /// What it claims on its host; memory with QEMU's overhead.
    pub claim: Size,
    /// Its quota was given back: its deletion was accepted.
    pub quota_released: bool,
    /// The fence of the last stored report.
    pub fence: ReportFence,
}

impl std::ops::Deref for InstanceRow {
    type Target = Instance;
    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl From<InstanceRow> for Instance {
    fn from(row: InstanceRow) -> Self {
        row.instance
    }
}

/// What an agent's delta needs of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredRow {
    pub instance: InstanceRow,
    /// Its disks, by id.
    pub disks: Vec<DiskRow>,
    /// The ports that it has or is about to have, by id.
    pub ports: Vec<Port>,
    /// `None` when it is gone: only an instance that is being deleted may outlive its image.
    pub image: Option<Image>,
}

row! {
    struct Columns of instance {
        id: InstanceId,
        project_id: ProjectId,
        name: Name,
        tags: BTreeMap<String, String>,
        generation: i64,
        epoch: i64,
        host_id: Option<HostId>,
        root_disk_id: Option<DiskId>,
        spec: InstanceSpec,
        placement: Option<PlacementRecord>,
        claim_vcpus: u32,
        claim_memory_mib: u64,
        claim_disk_gib: u64,
        quota_released: bool,
        state: InstanceState,
        step: String,
        reason: String,
        deadline_at: Option<Timestamp>,
        started_at: Option<Timestamp>,
        guest_up_at: Option<Timestamp>,
        crash_count: u32,
        observed_epoch: i64,
        observed_generation: i64,
        observed_start: i64,
        observed_counter: i64,
        cpu_baseline: Option<String>,
        numa_node: Option<u32>,
        root_used_seq: Option<u64>,
        created_at: Timestamp,
        updated_at: Timestamp,
    }
}

impl From<Columns> for InstanceRow {
    fn from(row: Columns) -> Self {
        let status = InstanceStatus {
            state: row.state,
            step: row.step,
            reason: row.reason,
            observed_generation: row.observed_generation,
            deadline_at: row.deadline_at,
            started_at: row.started_at,
            guest_up_at: row.guest_up_at,
            crash_count: row.crash_count,
        };
        let instance = Instance {
            id: row.id,
            project_id: row.project_id,
            name: row.name,
            tags: row.tags,
            generation: row.generation,
            epoch: row.epoch,
            host_id: row.host_id,
            root_disk_id: row.root_disk_id,
            spec: row.spec,
            status,
            placement: row.placement,
            binding: Binding {
                cpu_baseline: row.cpu_baseline,
                numa_node: row.numa_node,
                root_used_seq: row.root_used_seq,
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Self {
            instance,
            claim: Size { vcpus: row.claim_vcpus, memory_mib: row.claim_memory_mib, disk_gib: row.claim_disk_gib },
            quota_released: row.quota_released,
            fence: ReportFence {
                epoch: row.observed_epoch,
                generation: row.observed_generation,
                start: row.observed_start,
                counter: row.observed_counter,
            },
        }
    }
}

record! { InstanceRow, from Columns }

impl Store {
    /// `project_id`: it must be of this project; `None`: of any.
    pub async fn instance_find(
        &self,
        project_id: Option<ProjectId>,
        id: InstanceId,
    ) -> Result<Option<InstanceRow>, ReadError> {
        let row: Option<InstanceRow> = self.pool().find("WHERE id = $1", [id.into()]).await?;
        Ok(row.filter(|row| project_id.is_none_or(|p| p == row.project_id)))
    }

    pub async fn instance_find_by_name(
        &self,
        project_id: ProjectId,
        name: &str,
    ) -> Result<Option<InstanceRow>, ReadError> {
        self.pool().find("WHERE project_id = $1 AND name = $2", [project_id.into(), name.into()]).await
    }

    /// The rows that exist, by id.
    pub async fn instance_load_many(&self, ids: &[InstanceId]) -> Result<Vec<InstanceRow>, ReadError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.pool().list_among("id", ids).await
    }

    /// The fence of the last stored report; `None`: no such instance.
    pub async fn instance_fence(&self, id: InstanceId) -> Result<Option<ReportFence>, ReadError> {
        Ok(self.instance_find(None, id).await?.map(|row| row.fence))
    }

    /// The rows that exist, by id, with their disks, ports and images. The instances are read first, so what goes with them is as
    /// new or newer.
    pub async fn desired_load_many(&self, ids: &[InstanceId]) -> Result<Vec<DesiredRow>, ReadError> {
        let instances = self.instance_load_many(ids).await?;
        if instances.is_empty() {
            return Ok(Vec::new());
        }
        let mut disks: HashMap<InstanceId, Vec<DiskRow>> = HashMap::new();
        for disk in self.disk_load_many_of_instances(ids).await? {
            disks.entry(disk.instance_id).or_default().push(disk);
        }
        let mut ports: HashMap<InstanceId, Vec<Port>> = HashMap::new();
        for port in self.port_load_many_of_instances(ids).await? {
            if let Some(owner) = port.owner {
                ports.entry(owner.instance_id).or_default().push(port);
            }
        }
        let mut image_ids: Vec<ImageId> = instances.iter().map(|row| row.spec.image_id).collect();
        image_ids.sort_unstable();
        image_ids.dedup();
        let images: HashMap<ImageId, Image> =
            self.image_load_many(&image_ids).await?.into_iter().map(|image| (image.id, image)).collect();
        let desired = instances.into_iter().map(|instance| DesiredRow {
            disks: disks.remove(&instance.id).unwrap_or_default(),
            ports: ports.remove(&instance.id).unwrap_or_default(),
            image: images.get(&instance.spec.image_id).cloned(),
            instance,
        });
        Ok(desired.collect())
    }
}
