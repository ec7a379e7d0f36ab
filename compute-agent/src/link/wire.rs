//! The wire's messages as the ledger's words, and observations as messages. Pure; nothing of the wire is trusted.

use super::observation::Observation;
use crate::ledger::{Desired, DesiredImage, Disk, Nic, Version};
use crate::qemu::argv::NICS_MAX;
use domain::image::{DiskFormat, ImageKind, ImagePart, ImagePartKind};
use proto::{
    agent::v1 as pb,
    convert::{InvalidMessage, parse, spec_from_pb, state_to_pb},
};

fn unknown(field: &'static str, value: &str) -> InvalidMessage {
    InvalidMessage { field, detail: format!("unknown value {value}") }
}

pub fn desired_from_pb(desired: pb::DesiredInstance) -> Result<Desired, InvalidMessage> {
    let missing = |field| InvalidMessage { field, detail: "is missing".to_owned() };
    let mut spec = spec_from_pb(desired.spec.ok_or_else(|| missing("spec"))?)?;
    // What a host needs of them is said by the ports.
    spec.nics.clear();
    let image = desired.image.ok_or_else(|| missing("image"))?;
    let part = |part: pb::ImagePart| {
        let kind = ImagePartKind::parse(&part.kind).ok_or_else(|| unknown("image.part.kind", &part.kind))?;
        Ok(ImagePart { kind, sha256: part.sha256, size_bytes: part.size_bytes })
    };
    // A disk without a size stands for a kernel image that runs from memory.
    let disks = desired.disks.iter().filter(|disk| disk.size_gib > 0).map(disk_from_pb).collect::<Result<_, _>>()?;
    let nic = |port: &pb::DesiredPort| {
        Ok(Nic {
            port_id: parse("port.port_id", &port.port_id)?,
            epoch: port.epoch,
            mac: parse("port.mac", &port.mac)?,
        })
    };
    let nics = desired.ports.iter().map(nic).collect::<Result<Vec<_>, InvalidMessage>>()?;
    if nics.len() > NICS_MAX {
        return Err(InvalidMessage { field: "ports", detail: format!("more than {NICS_MAX}") });
    }
    Ok(Desired {
        nics,
        numa_node: desired.numa_node,
        instance_id: parse("instance_id", &desired.instance_id)?,
        project_id: desired.project_id,
        name: desired.name,
        version: Version { epoch: desired.epoch, generation: desired.generation },
        spec,
        disks,
        image: DesiredImage {
            image_id: parse("image.image_id", &image.image_id)?,
            kind: ImageKind::parse(&image.kind).ok_or_else(|| unknown("image.kind", &image.kind))?,
            format: DiskFormat::parse(&image.format).ok_or_else(|| unknown("image.format", &image.format))?,
            cmdline: image.cmdline,
            parts: image.parts.into_iter().map(part).collect::<Result<_, _>>()?,
        },
        request_id: desired.request_id,
    })
}

fn disk_from_pb(disk: &pb::DesiredDisk) -> Result<Disk, InvalidMessage> {
    // Files are named after the role.
    let role = disk.role.clone();
    if !(1..=32).contains(&role.len()) || !role.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(InvalidMessage { field: "disk.role", detail: format!("unknown value {role}") });
    }
    let disk_id = parse("disk.disk_id", &disk.disk_id)?;
    Ok(Disk { disk_id, role, size_gib: disk.size_gib, epoch: disk.epoch })
}

#[must_use]
pub fn report_to_pb(report: &agent_kit::Numbered<Observation>, start: i64) -> pb::Report {
    let observed = &report.observation;
    pb::Report {
        instance_id: observed.instance_id.to_string(),
        epoch: observed.version.epoch,
        generation: observed.version.generation,
        start,
        counter: report.counter,
        state: state_to_pb(observed.state).into(),
        step: observed.step.clone(),
        reason: observed.reason.clone(),
        converged: observed.converged,
        started_at: observed.started_at.map(|at| at.0),
        guest_up_at: observed.guest_up_at.map(|at| at.0),
        crash_count: observed.crash_count,
        exec_ms: observed.exec_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{DiskId, ImageId, InstanceId};
    use proto::cluster::v1::{InstanceSpec, OnCrash, OnHostLoss, Power, Size};

    fn message() -> pb::DesiredInstance {
        let image_id = ImageId::new().to_string();
        pb::DesiredInstance {
            instance_id: InstanceId::new().to_string(),
            project_id: "p".into(),
            name: "web".into(),
            epoch: 2,
            generation: 3,
            spec: Some(InstanceSpec {
                size: Some(Size { vcpus: 1, memory_mib: 128, disk_gib: 1 }),
                image_id: image_id.clone(),
                power: Power::On.into(),
                on_crash: OnCrash::Stop.into(),
                on_host_loss: OnHostLoss::Wait.into(),
                ..Default::default()
            }),
            disks: vec![pb::DesiredDisk {
                disk_id: DiskId::new().to_string(),
                role: "root".into(),
                pool: "local".into(),
                size_gib: 1,
                epoch: 2,
            }],
            image: Some(pb::DesiredImage {
                image_id,
                kind: "disk".into(),
                format: "qcow2".into(),
                cmdline: String::new(),
                parts: vec![pb::ImagePart { kind: "disk".into(), sha256: "ab".repeat(32), size_bytes: 9 }],
            }),
            ports: vec![pb::DesiredPort {
                port_id: domain::PortId::new().to_string(),
                epoch: 4,
                mac: "02:00:00:00:00:07".into(),
            }],
            request_id: "r".into(),
            numa_node: Some(1),
        }
    }

    #[test]
    fn a_command_is_understood_whole_or_says_what_is_wrong() {
        let desired = desired_from_pb(message()).expect("understood");
        assert_eq!(desired.version, Version { epoch: 2, generation: 3 });
        assert_eq!((desired.nics.len(), desired.nics[0].epoch, desired.numa_node), (1, 4, Some(1)));
        assert!(desired.disks[0].is_root() && desired.image.part(ImagePartKind::Disk).is_some());
        let mut diskless = message();
        diskless.disks.clear();
        assert_eq!(desired_from_pb(diskless).expect("understood").disks, []);
        let wrong = |change: fn(&mut pb::DesiredInstance)| {
            let mut bad = message();
            change(&mut bad);
            desired_from_pb(bad).map(|_| ()).map_err(|e| e.field)
        };
        assert_eq!(wrong(|m| m.instance_id = "../../etc".into()), Err("instance_id"));
        assert_eq!(wrong(|m| m.spec = None), Err("spec"));
        assert_eq!(wrong(|m| m.disks[0].disk_id = "x".into()), Err("disk.disk_id"));
        assert_eq!(wrong(|m| m.disks[0].role = "../root".into()), Err("disk.role"));
        assert_eq!(wrong(|m| m.ports[0].port_id = "x".into()), Err("port.port_id"));
        assert_eq!(wrong(|m| m.ports[0].mac = "x".into()), Err("port.mac"));
        assert_eq!(wrong(|m| m.ports = vec![m.ports[0].clone(); 17]), Err("ports"));
        assert_eq!(wrong(|m| m.image.as_mut().expect("image").kind = "tape".into()), Err("image.kind"));
    }
}
