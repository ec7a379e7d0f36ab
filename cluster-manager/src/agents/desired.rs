//! What an agent gets of an instance, and all that a host must run.

use crate::{
    manager::Manager,
    reconcile::plan::{bound, disk_bound},
};
use domain::{
    HostId, Problem,
    host::{Host, HostState},
    image::Image,
    instance::{Instance, ROOT_DISK},
    network::Port,
};
use operation::read_problem;
use proto::{
    agent::v1 as pb,
    convert::{image_to_desired, spec_to_pb},
    sync::v1::{DesiredObject, ObjectKind, desired_object::Object},
};
use service_kit::host_streams::{DesiredState, NotYet, Updates};
use std::sync::Arc;
use store::DiskRow;

/// Whether an instance may be sent to its host: nothing unconfirmed is bound or started, and a deletion is always sent.
#[must_use]
pub fn deliverable(instance: &Instance, disks: &[DiskRow], ports: &[Port]) -> bool {
    let disks_bound = || {
        let mut desired = instance.disks().into_iter();
        desired.all(|disk| disks.iter().any(|row| row.id == disk.id && disk_bound(instance, row)))
    };
    let ports_bound = || {
        let nics = &instance.spec.nics;
        nics.iter().all(|nic| ports.iter().any(|p| p.id == nic.port_id && bound(instance, p)))
    };
    instance.host_id.is_some() && (instance.spec.deleted || (disks_bound() && ports_bound()))
}

#[must_use]
pub fn render_desired(
    instance: &Instance,
    disks: &[DiskRow],
    ports: &[Port],
    image: Option<&Image>,
    request_id: &str,
) -> DesiredObject {
    if instance.spec.deleted {
        return DesiredObject { request_id: request_id.to_owned(), ..render_tombstone(instance, instance.epoch) };
    }
    let desired = pb::DesiredInstance {
        project_id: instance.project_id.to_string(),
        name: instance.name.to_string(),
        spec: Some(spec_to_pb(&instance.spec)),
        disks: disks
            .iter()
            .map(|d| pb::DesiredDisk {
                disk_id: d.id.to_string(),
                role: d.role.clone(),
                pool: d.pool.clone(),
                size_gib: d.size_gib,
                epoch: d.epoch,
                used_seq: instance.binding.root_used_seq.filter(|_| d.role == ROOT_DISK),
            })
            .collect(),
        image: image.map(image_to_desired),
        numa_node: instance.binding.numa_node,
        ports: instance
            .spec
            .nics
            .iter()
            .filter_map(|nic| {
                let port = ports.iter().find(|p| p.id == nic.port_id)?;
                Some(pb::DesiredPort { port_id: port.id.to_string(), epoch: port.epoch, mac: nic.mac.to_string() })
            })
            .collect(),
    };
    DesiredObject {
        kind: ObjectKind::Instance.into(),
        id: instance.id.to_string(),
        epoch: instance.epoch,
        generation: instance.generation,
        deleted: false,
        request_id: request_id.to_owned(),
        digest: content_digest(instance),
        erase_shared: false,
        object: Some(Object::Instance(Box::new(desired))),
    }
}

/// The end of an instance under an epoch: its own, or one that a host still holds although the instance has left it. It carries nothing but
/// the id and the version, so that no deletion can fail for what it doesn't need.
#[must_use]
pub fn render_tombstone(instance: &Instance, epoch: i64) -> DesiredObject {
    DesiredObject {
        kind: ObjectKind::Instance.into(),
        id: instance.id.to_string(),
        epoch,
        generation: instance.generation,
        deleted: true,
        erase_shared: instance.spec.deleted && epoch == instance.epoch,
        ..DesiredObject::default()
    }
}

/// Of all that a generation stands for (FNV-1a, 64 bits; never 0). What is bound to the instance has versions of its own.
#[must_use]
pub fn content_digest(instance: &Instance) -> u64 {
    let content = serde_json::to_vec(&(&instance.name, &instance.spec)).unwrap_or_default();
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    content.iter().fold(0xcbf2_9ce4_8422_2325, hash).max(1)
}

/// All that a host must run, as one stream sends it.
pub struct HostInstances {
    manager: Arc<Manager>,
    host_id: HostId,
    /// A host that is held is given nothing.
    held: bool,
    /// A host that is lost is given nothing but the end of what was taken from it, and starts nothing.
    lost: bool,
    start_floor: i64,
    /// What was collected last.
    revision: i64,
}

impl HostInstances {
    #[must_use]
    pub fn new(manager: Arc<Manager>, host: &Host) -> Self {
        let (held, lost) = (host.state == HostState::Held, host.state == HostState::Lost);
        Self { manager, host_id: host.id, held, lost, start_floor: host.ledger.start_floor, revision: 0 }
    }

    async fn load(&self) -> Result<Vec<DesiredObject>, Problem> {
        let (manager, host_id) = (&self.manager, self.host_id);
        let ids = manager.store.instance_list_of_host(host_id).await.map_err(read_problem)?;
        let rows = manager.store.desired_load_many(&ids).await.map_err(read_problem)?;
        let deliverable = rows.iter().filter(|row| {
            row.instance.host_id == Some(host_id) && deliverable(&row.instance.instance, &row.disks, &row.ports)
        });
        Ok(deliverable
            .map(|row| render_desired(&row.instance.instance, &row.disks, &row.ports, row.image.as_ref(), ""))
            .collect())
    }
}

impl DesiredState<Manager> for HostInstances {
    async fn collect(
        &mut self,
        snapshot: bool,
        mut updates: Updates<Manager>,
    ) -> Result<Vec<DesiredObject>, NotYet<Manager>> {
        if self.held {
            return Ok(Vec::new());
        }
        let revision = self.manager.revision(self.host_id);
        if self.lost {
            self.revision = revision.max(self.revision);
            return Ok(updates.into_values().filter(|update| update.deleted).collect());
        }
        if !snapshot {
            self.revision = revision.max(self.revision);
            return Ok(updates.into_values().collect());
        }
        // The revision was read first: what is committed meanwhile comes again as a delta.
        let mut objects = match self.load().await {
            Ok(objects) => objects,
            Err(problem) => return Err(NotYet { problem, updates }),
        };
        self.revision = revision;
        // An update that the snapshot has as well says nothing more.
        for object in &objects {
            if let Ok(id) = object.id.parse()
                && updates.get(&id).is_some_and(|u| (u.epoch, u.generation) <= (object.epoch, object.generation))
            {
                updates.remove(&id);
            }
        }
        // What the host must end comes before all else: it may run elsewhere by now.
        let (mut ends, others): (Vec<_>, Vec<_>) = updates.into_values().partition(|update| update.deleted);
        ends.append(&mut objects);
        ends.extend(others);
        Ok(ends)
    }

    fn start_floor(&self) -> i64 {
        if self.held { 0 } else { self.start_floor }
    }

    fn starts_withheld(&self) -> bool {
        self.lost
    }

    async fn number(&mut self, _: &mut [DesiredObject]) -> Result<i64, Problem> {
        Ok(self.revision)
    }
}
