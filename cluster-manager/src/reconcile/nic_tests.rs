//! Tests of what the plan does about NICs.

use super::{
    deadline::Deadlines,
    plan::{HostView, ReconcileTarget, Step, plan_step},
    tests::{confirmed, disk_row},
};
use crate::agents::desired::{deliverable, render_desired};
use domain::{
    HostId, InstanceId, NetworkId, PortId,
    instance::{Instance, InstanceState as S, Nic},
    network::{MacAddr, Port, PortOwner, PortState, PortStatus, RateLimit},
    testing::{NOW, instance},
};
use proto::sync::v1::desired_object::Object;
use store::DiskRow;

const DIGEST: &str = "d1";

/// An instance with `nics` NICs, and their ports, bound as they must be.
fn with_nics(state: S, nics: u8) -> (Instance, Vec<Port>) {
    let mut row = instance(state);
    row.spec.nics = (0..nics)
        .map(|n| Nic {
            port_id: PortId::new(),
            network_id: NetworkId::new(),
            mac: MacAddr::local([0, 0, 0, 0, n]),
            addresses: vec![[10, 0, 0, n].into()],
            security_group_ids: None,
        })
        .collect();
    let ports = row.spec.nics.iter().map(|nic| port(&row, nic)).collect();
    (row, ports)
}

fn port(row: &Instance, nic: &Nic) -> Port {
    Port {
        id: nic.port_id,
        project_id: row.project_id,
        network_id: nic.network_id,
        name: None,
        mac: nic.mac,
        fixed_ips: vec![],
        allowed_addresses: vec![],
        security_group_ids: vec![],
        rate_limit: RateLimit::default(),
        hostname: "web".into(),
        state: PortState::Active,
        owner: Some(PortOwner { instance_id: row.id, with_instance: true }),
        host_id: row.host_id,
        epoch: 7,
        instance_epoch: row.epoch,
        metadata_digest: DIGEST.into(),
        expires_at: None,
        status: PortStatus::Active,
        status_reason: String::new(),
        generation: 2,
        created_at: NOW,
    }
}

fn step_with(row: &Instance, disk: Option<&DiskRow>, ports: &[Port]) -> Step {
    let target = ReconcileTarget {
        instance: row,
        disks: disk.map(std::slice::from_ref).unwrap_or_default(),
        ports,
        metadata_digest: DIGEST,
        image_found: true,
        host: Some(HostView { connected: true, lost: false, starts: 0 }),
        last_failure: None,
    };
    plan_step(target, &Deadlines::default(), NOW)
}

fn step(row: &Instance, ports: &[Port]) -> Step {
    step_with(row, Some(&confirmed(row)), ports)
}

#[test]
fn nothing_is_delivered_before_every_port_is_bound_to_this_host_and_epoch_with_its_metadata() {
    let (row, ports) = with_nics(S::Pending, 2);
    let bind = Step::Bind { disks: false, ports: true };
    assert_eq!(step(&row, &ports), Step::Deliver);
    assert_eq!(step(&row, &ports[..1]), Step::ReservePorts);
    type Changed = (&'static str, fn(&mut Port));
    let changes: [Changed; 5] = [
        ("reserved", |p| (p.state, p.expires_at) = (PortState::Reserved, Some(NOW))),
        ("taken, not confirmed", |p| p.expires_at = Some(NOW)),
        ("of another host", |p| p.host_id = Some(HostId::new())),
        ("of an older epoch", |p| p.instance_epoch -= 1),
        ("with old metadata", |p| p.metadata_digest = "d0".into()),
    ];
    for (what, change) in changes {
        let mut ports = ports.clone();
        change(&mut ports[1]);
        assert_eq!(step(&row, &ports), bind, "{what}");
        let rows = [confirmed(&row)];
        let bound = what == "with old metadata";
        assert_eq!(deliverable(&row, &rows, &ports), bound, "{what}");
    }
    let reserved = disk_row(&row);
    let mut unbound = ports.clone();
    unbound[0].host_id = None;
    assert_eq!(step_with(&row, Some(&reserved), &unbound), Step::Bind { disks: true, ports: true }, "side by side");
    assert_eq!(step_with(&row, Some(&reserved), &ports), Step::Bind { disks: true, ports: false });
    assert_eq!(step_with(&row, None, &ports[..1]), Step::ReserveDisks);
    let mut foreign = ports.clone();
    foreign[0].owner = Some(PortOwner { instance_id: InstanceId::new(), with_instance: true });
    assert!(!deliverable(&row, &[confirmed(&row)], &foreign));
    assert!(!deliverable(&row, &[confirmed(&row)], &ports[1..]));
}

#[test]
fn a_settled_instance_whose_metadata_changed_is_bound_again_and_settles() {
    let (row, mut ports) = with_nics(S::Running, 1);
    assert_eq!(step(&row, &ports), Step::Settled);
    ports[0].metadata_digest = "d0".into();
    assert_eq!(step(&row, &ports), Step::Bind { disks: false, ports: true });
}

#[test]
fn a_removed_nic_keeps_its_port_until_the_host_proves_that_it_is_detached() {
    let (mut row, ports) = with_nics(S::Running, 2);
    let gone = row.spec.nics.remove(1).port_id;
    row.generation += 1;
    assert_eq!(step(&row, &ports), Step::Deliver, "first the host");
    row.status.observed_generation = row.generation;
    assert_eq!(step(&row, &ports), Step::RemovePorts { ports: vec![gone] });
    assert_eq!(step(&row, &ports[..1]), Step::Settled);
    // A reservation of a NIC that is on its way in is nobody's leftover.
    let mut coming = ports.clone();
    coming[1].expires_at = Some(NOW);
    assert_eq!(step(&row, &coming), Step::Settled);
}

#[test]
fn a_deletion_releases_what_was_made_with_the_instance_and_holds_the_rest_until_proof() {
    let (row, mut ports) = with_nics(S::Deleting, 2);
    assert_eq!(step_with(&row, None, &ports), Step::Release { disks: false, ports: true });
    assert_eq!(step(&row, &ports), Step::Release { disks: true, ports: true });
    ports[0].state = PortState::Releasing;
    ports[1].owner = Some(PortOwner { instance_id: row.id, with_instance: false });
    assert_eq!(step_with(&row, None, &ports), Step::Deliver, "a port that exists by itself is not released");
    let mut homeless = row.clone();
    homeless.host_id = None;
    assert_eq!(step_with(&homeless, None, &ports), Step::RemoveRow);
    assert!(deliverable(&row, &[], &[]), "a deletion is always delivered");
}

#[test]
fn a_host_gets_the_ports_in_the_order_of_the_nics() {
    let (row, mut ports) = with_nics(S::Pending, 3);
    ports.rotate_left(1);
    let object = render_desired(&row, &[], &ports, None, "").object;
    let Some(Object::Instance(desired)) = object else { panic!("an instance") };
    let macs: Vec<String> = row.spec.nics.iter().map(|nic| nic.mac.to_string()).collect();
    assert_eq!(desired.ports.iter().map(|p| p.mac.clone()).collect::<Vec<_>>(), macs);
    assert!(desired.ports.iter().all(|p| p.epoch == 7));
}
