//! The wire's messages as the ledger's types, and observations as messages. Pure; nothing of the wire is trusted.

use super::observation::Observation;
use crate::ledger::{Desired, DesiredImage, Disk, Nic, Version};
use crate::qemu::argv::NICS_MAX;
use domain::image::{DiskFormat, ImageKind, ImagePart, ImagePartKind};
use proto::{
    agent::v1 as agent,
    convert::{InvalidMessage, parse, spec_from_pb, state_to_pb},
    sync::v1::{self as pb, desired_object::Object, report},
};

fn unknown(field: &'static str, value: &str) -> InvalidMessage {
    InvalidMessage { field, detail: format!("unknown value {value}") }
}

#[must_use]
pub fn version_of(object: &pb::DesiredObject) -> Version {
    Version { epoch: object.epoch, generation: object.generation }
}

/// A deletion needs nothing but its id and version: it must never fail for what it doesn't need.
pub fn desired_from_pb(object: pb::DesiredObject) -> Result<Desired, InvalidMessage> {
    let missing = |field| InvalidMessage { field, detail: "is missing".to_owned() };
    let (instance_id, version) = (parse("id", &object.id)?, version_of(&object));
    let deleted_inside = |object: &Object| match object {
        Object::Instance(instance) => instance.spec.as_ref().is_some_and(|spec| spec.deleted),
        Object::Network(_)
        | Object::Port(_)
        | Object::SecurityGroup(_)
        | Object::FloatingIp(_)
        | Object::Protected(_) => false,
    };
    if object.deleted || object.object.as_ref().is_some_and(deleted_inside) {
        let deletion = Desired::deletion(instance_id, version, object.request_id);
        return Ok(Desired { erase_shared: object.erase_shared, ..deletion });
    }
    let Some(Object::Instance(desired)) = object.object else { return Err(missing("instance")) };
    let desired = *desired;
    let mut spec = spec_from_pb(desired.spec.ok_or_else(|| missing("spec"))?)?;
    // What a host needs of them is in the ports.
    spec.nics.clear();
    let image = desired.image.ok_or_else(|| missing("image"))?;
    let part = |part: agent::ImagePart| {
        let kind = ImagePartKind::parse(&part.kind).ok_or_else(|| unknown("image.part.kind", &part.kind))?;
        Ok(ImagePart { kind, sha256: part.sha256, size_bytes: part.size_bytes })
    };
    // A disk without a size stands for a kernel image that runs from memory.
    let disks = desired.disks.iter().filter(|disk| disk.size_gib > 0).map(disk_from_pb).collect::<Result<_, _>>()?;
    let nic = |port: &agent::DesiredPort| {
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
        instance_id,
        project_id: desired.project_id,
        name: desired.name,
        version,
        spec,
        disks,
        image: DesiredImage {
            image_id: parse("image.image_id", &image.image_id)?,
            kind: ImageKind::parse(&image.kind).ok_or_else(|| unknown("image.kind", &image.kind))?,
            format: DiskFormat::parse(&image.format).ok_or_else(|| unknown("image.format", &image.format))?,
            cmdline: image.cmdline,
            parts: image.parts.into_iter().map(part).collect::<Result<_, _>>()?,
        },
        request_id: object.request_id,
        digest: object.digest,
        erase_shared: false,
    })
}

fn disk_from_pb(disk: &agent::DesiredDisk) -> Result<Disk, InvalidMessage> {
    // Files are named after the role.
    let role = disk.role.clone();
    if !(1..=32).contains(&role.len()) || !role.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(InvalidMessage { field: "disk.role", detail: format!("unknown value {role}") });
    }
    let disk_id = parse("disk.disk_id", &disk.disk_id)?;
    Ok(Disk { disk_id, role, size_gib: disk.size_gib, epoch: disk.epoch, used_seq: disk.used_seq })
}

/// Start and counter are the session's.
#[must_use]
pub fn report_to_pb(observation: Observation) -> pb::Report {
    pb::Report {
        kind: pb::ObjectKind::Instance.into(),
        id: observation.instance_id.to_string(),
        epoch: observation.version.epoch,
        generation: observation.version.generation,
        observation: Some(report::Observation::Instance(agent::InstanceObservation {
            state: state_to_pb(observation.state).into(),
            step: observation.step,
            reason: observation.reason,
            converged: observation.converged,
            started_at: observation.started_at.map(|at| at.0),
            guest_up_at: observation.guest_up_at.map(|at| at.0),
            crash_count: observation.crash_count,
            exec_ms: observation.exec_ms,
            root_used_seq: observation.root_used_seq,
        })),
        ..pb::Report::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{DiskId, InstanceId, testing};
    use proto::convert::spec_to_pb;

    fn message() -> pb::DesiredObject {
        let spec = testing::spec();
        let instance = agent::DesiredInstance {
            project_id: "p".into(),
            name: "web".into(),
            spec: Some(spec_to_pb(&spec)),
            disks: vec![agent::DesiredDisk {
                disk_id: DiskId::new().to_string(),
                role: "root".into(),
                pool: "local".into(),
                size_gib: 1,
                epoch: 2,
                used_seq: Some(7),
            }],
            image: Some(agent::DesiredImage {
                image_id: spec.image_id.to_string(),
                kind: "disk".into(),
                format: "qcow2".into(),
                cmdline: String::new(),
                parts: vec![agent::ImagePart { kind: "disk".into(), sha256: "ab".repeat(32), size_bytes: 9 }],
            }),
            ports: vec![agent::DesiredPort {
                port_id: domain::PortId::new().to_string(),
                epoch: 4,
                mac: "02:00:00:00:00:07".into(),
            }],
            numa_node: Some(1),
        };
        pb::DesiredObject {
            kind: pb::ObjectKind::Instance.into(),
            id: InstanceId::new().to_string(),
            epoch: 2,
            generation: 3,
            deleted: false,
            request_id: "r".into(),
            digest: 8,
            erase_shared: false,
            object: Some(Object::Instance(Box::new(instance))),
        }
    }

    fn instance(object: &mut pb::DesiredObject) -> &mut agent::DesiredInstance {
        let Some(Object::Instance(instance)) = &mut object.object else { panic!("an instance") };
        instance
    }

    #[test]
    fn a_command_is_understood_whole_or_says_what_is_wrong() {
        let desired = desired_from_pb(message()).expect("understood");
        assert_eq!((desired.version, desired.digest), (Version { epoch: 2, generation: 3 }, 8));
        assert_eq!((desired.nics.len(), desired.nics[0].epoch, desired.numa_node), (1, 4, Some(1)));
        assert!(desired.disks[0].is_root() && desired.image.part(ImagePartKind::Disk).is_some());
        let mut diskless = message();
        instance(&mut diskless).disks.clear();
        assert_eq!(desired_from_pb(diskless).expect("understood").disks, []);
        let wrong = |change: fn(&mut pb::DesiredObject)| {
            let mut bad = message();
            change(&mut bad);
            desired_from_pb(bad).map(|_| ()).map_err(|e| e.field)
        };
        assert_eq!(wrong(|m| m.id = "../../etc".into()), Err("id"));
        assert_eq!(wrong(|m| m.object = None), Err("instance"));
        assert_eq!(wrong(|m| instance(m).spec = None), Err("spec"));
        assert_eq!(wrong(|m| instance(m).disks[0].disk_id = "x".into()), Err("disk.disk_id"));
        assert_eq!(wrong(|m| instance(m).disks[0].role = "../root".into()), Err("disk.role"));
        assert_eq!(wrong(|m| instance(m).ports[0].port_id = "x".into()), Err("port.port_id"));
        assert_eq!(wrong(|m| instance(m).ports[0].mac = "x".into()), Err("port.mac"));
        assert_eq!(wrong(|m| instance(m).ports = vec![instance(m).ports[0].clone(); 17]), Err("ports"));
        assert_eq!(wrong(|m| instance(m).image.as_mut().expect("image").kind = "tape".into()), Err("image.kind"));
    }

    /// Each way to leave out or spoil what a command may carry, with whether a command that deletes nothing can do without it.
    #[test]
    fn a_deletion_needs_nothing_but_its_id() {
        type Spoil = fn(&mut pb::DesiredObject);
        let spoiled: [(&str, bool, Spoil); 14] = [
            ("object", false, |m| m.object = None),
            ("object of another kind", false, |m| m.object = Some(Object::Network(Default::default()))),
            ("everything of the instance", false, |m| *instance(m) = Default::default()),
            ("spec", false, |m| instance(m).spec = None),
            ("size", false, |m| instance(m).spec.as_mut().expect("spec").size = None),
            ("spec's image", false, |m| instance(m).spec.as_mut().expect("spec").image_id.clear()),
            ("image", false, |m| instance(m).image = None),
            ("image's kind", false, |m| instance(m).image.as_mut().expect("image").kind.clear()),
            ("image's parts", true, |m| instance(m).image.as_mut().expect("image").parts.clear()),
            ("disks", true, |m| instance(m).disks.clear()),
            ("disk's id", false, |m| instance(m).disks[0].disk_id.clear()),
            ("ports", true, |m| instance(m).ports.clear()),
            ("port's MAC", false, |m| instance(m).ports[0].mac.clear()),
            ("kind", true, |m| m.kind = 0),
        ];
        for (what, dispensable, spoil) in spoiled {
            let mut live = message();
            spoil(&mut live);
            assert_eq!(desired_from_pb(live.clone()).is_ok(), dispensable, "a live command without {what}");
            let gone = desired_from_pb(pb::DesiredObject { deleted: true, ..live.clone() });
            let gone = gone.unwrap_or_else(|error| panic!("a deletion without {what}: {error}"));
            assert!(gone.spec.deleted && gone.instance_id.to_string() == live.id, "{what}");
            assert_eq!(gone.version, version_of(&live), "{what}");
        }
        let mut inside = message();
        instance(&mut inside).image = None;
        instance(&mut inside).spec.as_mut().expect("spec").deleted = true;
        assert!(desired_from_pb(inside).expect("understood").spec.deleted, "the instance itself says so");
        let nameless = pb::DesiredObject { id: String::new(), deleted: true, ..message() };
        assert_eq!(desired_from_pb(nameless).map_err(|e| e.field), Err("id"));
    }
}
