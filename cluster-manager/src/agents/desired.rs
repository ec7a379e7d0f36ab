//! What an agent is told of an instance.

use crate::{
    manager::Manager,
    reconcile::plan::{bound, disk_bound},
};
use domain::{HostId, Problem, image::Image, instance::Instance, network::Port};
use operation::read_problem;
use proto::{
    agent::v1 as pb,
    convert::{image_to_desired, spec_to_pb},
};
use store::DiskRow;

/// Whether a host may be told of an instance: nothing unconfirmed is bound or started, and a deletion is always told.
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
) -> pb::DesiredInstance {
    pb::DesiredInstance {
        instance_id: instance.id.to_string(),
        project_id: instance.project_id.to_string(),
        name: instance.name.to_string(),
        epoch: instance.epoch,
        generation: instance.generation,
        spec: Some(spec_to_pb(&instance.spec)),
        disks: disks
            .iter()
            .map(|d| pb::DesiredDisk {
                disk_id: d.id.to_string(),
                role: d.role.clone(),
                pool: d.pool.clone(),
                size_gib: d.size_gib,
                epoch: d.epoch,
            })
            .collect(),
        image: image.map(image_to_desired),
        request_id: request_id.to_owned(),
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
    }
}

/// Everything that a host must be, with the revision it is of. The revision is read first: what is committed meanwhile comes again as
/// a delta.
pub async fn load_snapshot(manager: &Manager, host_id: HostId) -> Result<(i64, Vec<pb::DesiredInstance>), Problem> {
    let revision = manager.revision(host_id);
    let ids = manager.store.instance_list_of_host(host_id).await.map_err(read_problem)?;
    let rows = manager.store.desired_load_many(&ids).await.map_err(read_problem)?;
    let instances = rows
        .iter()
        .filter(|row| {
            row.instance.host_id == Some(host_id) && deliverable(&row.instance.instance, &row.disks, &row.ports)
        })
        .map(|row| render_desired(&row.instance.instance, &row.disks, &row.ports, row.image.as_ref(), ""))
        .collect();
    Ok((revision, instances))
}
