//! Instances on the wire.

use super::{InvalidMessage, missing, parse, parse_optional, unknown};
use crate::{cluster::v1 as pb, resource::v1 as resource};
use domain::{
    Timestamp,
    flavor::Size,
    instance::{
        Binding, DiskPool, Instance, InstanceSpec, InstanceState, InstanceStatus, Nic, NicRequest, OnCrash, OnHostLoss,
        PortRequest, PortReservation, Power,
    },
    placement::PlacementConstraints,
};

#[must_use]
pub fn size_to_pb(size: Size) -> pb::Size {
    pb::Size { vcpus: size.vcpus, memory_mib: size.memory_mib, disk_gib: size.disk_gib }
}

#[must_use]
pub fn size_from_pb(size: pb::Size) -> Size {
    Size { vcpus: size.vcpus, memory_mib: size.memory_mib, disk_gib: size.disk_gib }
}

macro_rules! enums {
    ($($to:ident, $from:ident: $domain:ident <=> $pb:ident { $($variant:ident = $wire:ident),+ $(,)? })+) => {$(
        #[must_use]
        pub fn $to(value: $domain) -> pb::$pb {
            match value { $($domain::$variant => pb::$pb::$wire),+ }
        }

        pub fn $from(value: i32) -> Result<$domain, InvalidMessage> {
            match pb::$pb::try_from(value) {
                $(Ok(pb::$pb::$wire) => Ok($domain::$variant),)+
                Ok(pb::$pb::Unspecified) | Err(_) => Err(unknown(stringify!($domain), value)),
            }
        }
    )+};
}

enums! {
    state_to_pb, state_from_pb: InstanceState <=> InstanceState {
        Pending = Pending, Scheduling = Scheduling, Building = Building, Running = Running, Paused = Paused, Stopped = Stopped,
        Suspended = Suspended, Migrating = Migrating, Recovering = Recovering, Resizing = Resizing, Rebuilding = Rebuilding,
        Deleting = Deleting, Deleted = Deleted, Error = Error,
    }
    power_to_pb, power_from_pb: Power <=> Power { On = On, Off = Off, Paused = Paused }
    on_crash_to_pb, on_crash_from_pb: OnCrash <=> OnCrash { Restart = Restart, Stop = Stop }
    on_host_loss_to_pb, on_host_loss_from_pb: OnHostLoss <=> OnHostLoss { Wait = Wait, Restart = Restart, Recreate = Recreate }
}

#[must_use]
pub fn spec_to_pb(spec: &InstanceSpec) -> pb::InstanceSpec {
    pb::InstanceSpec {
        size: Some(size_to_pb(spec.size)),
        flavor: spec.flavor.clone(),
        image_id: spec.image_id.to_string(),
        power: power_to_pb(spec.power).into(),
        boot_seq: spec.boot_seq,
        boot_hard: spec.boot_hard,
        root_seq: spec.root_seq,
        stop_timeout_secs: spec.stop_timeout_secs,
        on_crash: on_crash_to_pb(spec.on_crash).into(),
        on_host_loss: on_host_loss_to_pb(spec.on_host_loss).into(),
        pool: spec.pool.as_str().to_owned(),
        ssh_keys: spec.ssh_keys.clone(),
        user_data_base64: spec.user_data_base64.clone(),
        zone: spec.zone.clone(),
        placement_json: constraints_to_pb(&spec.placement),
        deleted: spec.deleted,
        nics: spec.nics.iter().map(nic_to_pb).collect(),
    }
}

fn constraints_to_pb(constraints: &PlacementConstraints) -> String {
    if constraints.is_empty() { String::new() } else { serde_json::to_string(constraints).unwrap_or_default() }
}

fn constraints_from_pb(json: &str) -> Result<PlacementConstraints, InvalidMessage> {
    if json.is_empty() {
        return Ok(PlacementConstraints::default());
    }
    serde_json::from_str(json).map_err(|e| InvalidMessage { field: "spec.placement_json", detail: e.to_string() })
}

/// Those who know of no other pool send none.
fn pool_from_pb(text: &str) -> Result<DiskPool, InvalidMessage> {
    if text.is_empty() {
        return Ok(DiskPool::Local);
    }
    DiskPool::parse(text).ok_or_else(|| InvalidMessage { field: "spec.pool", detail: format!("unknown value {text}") })
}

pub fn nic_request_from_pb(nic: &pb::NicRequest) -> Result<NicRequest, InvalidMessage> {
    let port_id = parse("nic.port_id", &nic.port_id)?;
    if nic.existing {
        return Ok(NicRequest { port_id, port: PortRequest::Existing });
    }
    let fixed_ip = |json: &String| {
        serde_json::from_str(json).map_err(|e| InvalidMessage { field: "nic.fixed_ips", detail: e.to_string() })
    };
    let groups = nic.security_group_ids.iter().map(|id| parse("nic.security_group_ids", id));
    let groups = groups.collect::<Result<_, _>>()?;
    let port = PortRequest::New {
        network_id: parse("nic.network_id", &nic.network_id)?,
        fixed_ips: nic.fixed_ip_request_json.iter().map(fixed_ip).collect::<Result<_, _>>()?,
        security_group_ids: nic.security_groups_given.then_some(groups),
        mac: parse_optional("nic.mac", &nic.mac)?,
    };
    Ok(NicRequest { port_id, port })
}

#[must_use]
pub fn nic_request_to_pb(nic: &NicRequest) -> pb::NicRequest {
    let base = pb::NicRequest { port_id: nic.port_id.to_string(), ..pb::NicRequest::default() };
    match &nic.port {
        PortRequest::Existing => pb::NicRequest { existing: true, ..base },
        PortRequest::New { network_id, fixed_ips, security_group_ids, mac } => pb::NicRequest {
            network_id: network_id.to_string(),
            // Plain data with text keys is always JSON.
            fixed_ip_request_json: fixed_ips.iter().filter_map(|ip| serde_json::to_string(ip).ok()).collect(),
            security_groups_given: security_group_ids.is_some(),
            security_group_ids: security_group_ids.iter().flatten().map(ToString::to_string).collect(),
            mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
            ..base
        },
    }
}

#[must_use]
pub fn port_reservation_to_pb(reservation: &PortReservation) -> resource::PortReservation {
    resource::PortReservation {
        nic: Some(nic_request_to_pb(&reservation.nic)),
        instance_id: reservation.instance_id.to_string(),
        project_id: reservation.project_id.to_string(),
        hostname: reservation.hostname.clone(),
    }
}

pub fn port_reservation_from_pb(reservation: &resource::PortReservation) -> Result<PortReservation, InvalidMessage> {
    Ok(PortReservation {
        nic: nic_request_from_pb(reservation.nic.as_ref().ok_or_else(|| missing("nic"))?)?,
        instance_id: parse("instance_id", &reservation.instance_id)?,
        project_id: parse("project_id", &reservation.project_id)?,
        hostname: reservation.hostname.clone(),
    })
}

#[must_use]
pub fn nic_to_pb(nic: &Nic) -> pb::Nic {
    pb::Nic {
        port_id: nic.port_id.to_string(),
        network_id: nic.network_id.to_string(),
        mac: nic.mac.to_string(),
        addresses: nic.addresses.iter().map(ToString::to_string).collect(),
    }
}

pub fn nic_from_pb(nic: &pb::Nic) -> Result<Nic, InvalidMessage> {
    Ok(Nic {
        port_id: parse("nic.port_id", &nic.port_id)?,
        network_id: parse("nic.network_id", &nic.network_id)?,
        mac: parse("nic.mac", &nic.mac)?,
        addresses: nic.addresses.iter().map(|a| parse("nic.addresses", a)).collect::<Result<_, _>>()?,
        // The cluster-manager's own.
        security_group_ids: None,
    })
}

pub fn spec_from_pb(spec: pb::InstanceSpec) -> Result<InstanceSpec, InvalidMessage> {
    Ok(InstanceSpec {
        size: size_from_pb(spec.size.ok_or_else(|| missing("spec.size"))?),
        flavor: spec.flavor,
        image_id: parse("spec.image_id", &spec.image_id)?,
        power: power_from_pb(spec.power)?,
        boot_seq: spec.boot_seq,
        boot_hard: spec.boot_hard,
        root_seq: spec.root_seq,
        stop_timeout_secs: spec.stop_timeout_secs,
        on_crash: on_crash_from_pb(spec.on_crash)?,
        on_host_loss: on_host_loss_from_pb(spec.on_host_loss)?,
        pool: pool_from_pb(&spec.pool)?,
        ssh_keys: spec.ssh_keys,
        user_data_base64: spec.user_data_base64,
        zone: spec.zone,
        placement: constraints_from_pb(&spec.placement_json)?,
        nics: spec.nics.iter().map(nic_from_pb).collect::<Result<_, _>>()?,
        deleted: spec.deleted,
    })
}

#[must_use]
pub fn instance_to_pb(instance: &Instance) -> pb::Instance {
    let status = &instance.status;
    pb::Instance {
        id: instance.id.to_string(),
        project_id: instance.project_id.to_string(),
        name: instance.name.to_string(),
        tags: instance.tags.clone().into_iter().collect(),
        generation: instance.generation,
        epoch: instance.epoch,
        host_id: instance.host_id.map(|id| id.to_string()).unwrap_or_default(),
        root_disk_id: instance.root_disk_id.map(|id| id.to_string()).unwrap_or_default(),
        spec: Some(spec_to_pb(&instance.spec)),
        status: Some(pb::InstanceStatus {
            state: state_to_pb(status.state).into(),
            step: status.step.clone(),
            reason: status.reason.clone(),
            observed_generation: status.observed_generation,
            deadline_at: status.deadline_at.map(|t| t.0),
            started_at: status.started_at.map(|t| t.0),
            guest_up_at: status.guest_up_at.map(|t| t.0),
            crash_count: status.crash_count,
        }),
        placement_json: instance.placement.as_ref().and_then(|p| serde_json::to_string(p).ok()).unwrap_or_default(),
        created_at: instance.created_at.0,
        updated_at: instance.updated_at.0,
        cpu_baseline: instance.binding.cpu_baseline.clone().unwrap_or_default(),
        numa_node: instance.binding.numa_node,
        root_used_seq: instance.binding.root_used_seq,
    }
}

pub fn instance_from_pb(instance: pb::Instance) -> Result<Instance, InvalidMessage> {
    let status = instance.status.ok_or_else(|| missing("status"))?;
    let placement = if instance.placement_json.is_empty() {
        None
    } else {
        let parsed = serde_json::from_str(&instance.placement_json);
        Some(parsed.map_err(|e| InvalidMessage { field: "placement_json", detail: e.to_string() })?)
    };
    Ok(Instance {
        id: parse("id", &instance.id)?,
        project_id: parse("project_id", &instance.project_id)?,
        name: parse("name", &instance.name)?,
        tags: instance.tags.into_iter().collect(),
        generation: instance.generation,
        epoch: instance.epoch,
        host_id: parse_optional("host_id", &instance.host_id)?,
        root_disk_id: parse_optional("root_disk_id", &instance.root_disk_id)?,
        spec: spec_from_pb(instance.spec.ok_or_else(|| missing("spec"))?)?,
        status: InstanceStatus {
            state: state_from_pb(status.state)?,
            step: status.step,
            reason: status.reason,
            observed_generation: status.observed_generation,
            deadline_at: status.deadline_at.map(Timestamp),
            started_at: status.started_at.map(Timestamp),
            guest_up_at: status.guest_up_at.map(Timestamp),
            crash_count: status.crash_count,
        },
        placement,
        binding: Binding {
            cpu_baseline: Some(instance.cpu_baseline).filter(|id| !id.is_empty()),
            numa_node: instance.numa_node,
            root_used_seq: instance.root_used_seq,
        },
        created_at: Timestamp(instance.created_at),
        updated_at: Timestamp(instance.updated_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{HostId, ImageId, InstanceId, ProjectId};

    #[test]
    fn an_instance_survives_the_wire() {
        let size = Size { vcpus: 2, memory_mib: 512, disk_gib: 3 };
        for state in InstanceState::ALL {
            let instance = Instance {
                id: InstanceId::new(),
                project_id: ProjectId::new(),
                name: "web-1".parse().expect("a name"),
                tags: [("role".to_owned(), "web".to_owned())].into(),
                generation: 7,
                epoch: 2,
                host_id: Some(HostId::new()),
                root_disk_id: None,
                spec: InstanceSpec {
                    size,
                    flavor: "small".into(),
                    image_id: ImageId::new(),
                    power: Power::Paused,
                    boot_seq: 3,
                    boot_hard: true,
                    root_seq: 1,
                    stop_timeout_secs: 9,
                    on_crash: OnCrash::Stop,
                    on_host_loss: OnHostLoss::Restart,
                    pool: DiskPool::Shared,
                    ssh_keys: vec!["ssh-ed25519 AAAA".into()],
                    user_data_base64: "aGk=".into(),
                    zone: Some("a".into()),
                    placement: PlacementConstraints {
                        required_tags: [("disk".to_owned(), "ssd".to_owned())].into(),
                        groups: vec![domain::PlacementGroupId::new()],
                        preemptible_class: Some(2),
                        ..PlacementConstraints::default()
                    },
                    nics: vec![Nic {
                        port_id: domain::PortId::new(),
                        network_id: domain::NetworkId::new(),
                        mac: domain::network::MacAddr::local([1, 2, 3, 4, 5]),
                        addresses: vec![[10, 0, 0, 5].into()],
                        security_group_ids: None,
                    }],
                    deleted: true,
                },
                status: InstanceStatus {
                    state,
                    step: "x".into(),
                    reason: "y".into(),
                    observed_generation: 6,
                    deadline_at: Some(Timestamp(5)),
                    started_at: None,
                    guest_up_at: Some(Timestamp(4)),
                    crash_count: 1,
                },
                placement: None,
                binding: Binding {
                    cpu_baseline: Some("intel-host-1".into()),
                    numa_node: Some(3),
                    root_used_seq: Some(1),
                },
                created_at: Timestamp(1),
                updated_at: Timestamp(2),
            };
            assert_eq!(instance_from_pb(instance_to_pb(&instance)), Ok(instance));
        }
    }

    #[test]
    fn a_nic_request_is_understood_whole_or_says_what_is_wrong() {
        use domain::{NetworkId, PortId, SecurityGroupId, SubnetId, network::FixedIpRequest};
        let (port_id, network_id, group) = (PortId::new(), NetworkId::new(), SecurityGroupId::new());
        let fixed_ip = FixedIpRequest::AnyOf(SubnetId::new());
        let nic = pb::NicRequest {
            port_id: port_id.to_string(),
            existing: false,
            network_id: network_id.to_string(),
            fixed_ip_request_json: vec![serde_json::to_string(&fixed_ip).expect("JSON")],
            security_groups_given: true,
            security_group_ids: vec![group.to_string()],
            mac: String::new(),
        };
        let port = PortRequest::New {
            network_id,
            fixed_ips: vec![fixed_ip],
            security_group_ids: Some(vec![group]),
            mac: None,
        };
        let request = NicRequest { port_id, port };
        assert_eq!(nic_request_to_pb(&request), nic);
        assert_eq!(nic_request_from_pb(&nic), Ok(request));
        let existing = pb::NicRequest { existing: true, port_id: port_id.to_string(), ..pb::NicRequest::default() };
        assert_eq!(nic_request_from_pb(&existing).map(|nic| nic.port), Ok(PortRequest::Existing));
        for bad in [
            pb::NicRequest { port_id: "x".into(), ..nic.clone() },
            pb::NicRequest { network_id: String::new(), ..nic.clone() },
            pb::NicRequest { fixed_ip_request_json: vec!["{}".into()], ..nic.clone() },
            pb::NicRequest { security_group_ids: vec!["x".into()], ..nic.clone() },
        ] {
            nic_request_from_pb(&bad).expect_err("malformed");
        }
    }

    #[test]
    fn what_does_not_parse_names_the_field() {
        let bad = pb::Instance {
            status: Some(pb::InstanceStatus { state: 1, ..Default::default() }),
            id: "x".into(),
            ..Default::default()
        };
        assert_eq!(instance_from_pb(bad).map_err(|e| e.field), Err("id"));
        assert!(state_from_pb(0).is_err() && state_from_pb(99).is_err());
    }
}
