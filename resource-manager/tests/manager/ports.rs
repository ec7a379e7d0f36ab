//! Ports of instances, from the reservation to the proof that they are gone.

use crate::world::{QUOTA_PORTS, World};
use domain::{
    ErrorKind, HostId, InstanceId, PortId,
    network::{FixedIpRequest, Port, PortState, PortStatus},
};
use proto::{cluster::v1 as cluster, resource::v1 as pb};
use resource_manager::Config;
use std::{collections::BTreeSet, time::Duration};
use store::{Unit, testing::TestStore};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The reservation with its NIC changed.
fn with_nic(
    mut reservation: pb::PortReservation,
    change: impl FnOnce(&mut cluster::NicRequest),
) -> pb::PortReservation {
    change(reservation.nic.as_mut().expect("a NIC"));
    reservation
}

async fn until(what: &str, mut good: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !good().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

fn at(address: &str) -> String {
    serde_json::to_string(&FixedIpRequest::Address(address.parse().expect("an address"))).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn from_reservation_to_proof() {
    for mut world in World::each().await {
        let (instance, host) = (InstanceId::new(), HostId::new());
        let requests = [world.reservation(instance), world.reservation(instance)];
        // A dry run changes nothing.
        assert_eq!(world.reserve_for(&requests, 0, true).await.expect("would do").len(), 2);
        assert_eq!(world.used().await.ports, 0);
        let ports = world.reserve(&requests).await.expect("reserved");
        assert_eq!(world.reserve(&requests).await.expect("a repeat"), ports);
        assert_eq!(world.used().await.ports, 2);
        for port in &ports {
            assert_eq!(port.addresses.len(), 2, "one of each family");
            let row = world.port(&port.port_id).await.expect("there");
            assert_eq!((row.state, row.security_group_ids.as_slice()), (PortState::Reserved, &[world.group_id][..]));
            assert_eq!(row.hostname, "web");
        }
        // The port is bound, bound again, given new metadata, and moved; across a restart.
        let id = ports[0].port_id.clone();
        let epoch_of = |answer: pb::BindPortsResponse| (answer.ports[0].epoch, answer.expired_port_ids);
        for (epoch, instance_epoch, digest) in [(1, 1, "a"), (1, 1, "a"), (1, 1, "b"), (2, 2, "b")] {
            let bound = world.bind(&id, instance, host, instance_epoch, digest).await.expect("bound");
            assert_eq!(epoch_of(bound), (epoch, vec![]), "{instance_epoch} {digest}");
        }
        world.restart().await;
        assert_eq!(epoch_of(world.bind(&id, instance, host, 2, "b").await.expect("bound")), (2, vec![]));
        let stale = world.bind(&id, instance, host, 1, "b").await.expect_err("an old epoch");
        assert_eq!(stale.kind, ErrorKind::StaleGeneration);
        let row = world.port(&id).await.expect("there");
        assert_eq!((row.state, row.status, row.generation), (PortState::Active, PortStatus::Building, 4));
        let strange = world.bind(&id, InstanceId::new(), host, 1, "b").await.expect("answered");
        assert_eq!(strange.expired_port_ids, std::slice::from_ref(&id));

        // Accepted: the quota is back, the rows and addresses stay until the proof.
        for _ in 0..2 {
            world.release(instance).await;
            assert_eq!(world.used().await.ports, 0);
        }
        assert_eq!(world.port(&id).await.map(|p| p.state), Some(PortState::Releasing));
        for _ in 0..2 {
            world.remove(instance).await;
            assert_eq!((world.port(&id).await, world.used().await.ports), (None, 0));
        }
        // What was released is quarantined: requested by name it is refused, saying until when; others are free.
        let address = &ports[0].addresses[0];
        let named = with_nic(world.reservation(InstanceId::new()), |nic| nic.fixed_ip_request_json = vec![at(address)]);
        let quarantined = world.reserve(&[named]).await.expect_err("it is quarantined");
        assert_eq!((quarantined.kind, quarantined.code.as_str()), (ErrorKind::AlreadyExists, "address_quarantined"));
        assert_eq!(world.store.leak_report().await.expect("read"), []);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_or_none_and_each_refusal_says_why() {
    for mut world in World::each().await {
        let instance = InstanceId::new();
        let good = world.reservation(instance);
        let nic = |change: &dyn Fn(&mut cluster::NicRequest)| with_nic(world.reservation(instance), change);
        let with =
            |addresses: &[&str]| nic(&|nic| nic.fixed_ip_request_json = addresses.iter().map(|a| at(a)).collect());
        let taken = world.reserve(&[with(&["10.0.0.5"])]).await.expect("free")[0].clone();
        let other = ids(&world);
        let bad = [
            (with(&["10.9.0.5"]), "address_outside_subnet"),
            (with(&["10.0.0.1"]), "address_is_gateway"),
            (with(&["10.0.0.7"]), "address_not_usable"),
            (with(&["10.0.0.5"]), "address_taken"),
            (with(&["fd00::5", "fd00::5"]), "address_taken"),
            (nic(&|nic| nic.network_id.clone_from(&other)), "not_found"),
            (pb::PortReservation { project_id: other.clone(), ..world.reservation(instance) }, "not_found"),
            (
                nic(&|nic| (nic.security_groups_given, nic.security_group_ids) = (true, vec![other.clone()])),
                "not_found",
            ),
            (nic(&|nic| nic.mac.clone_from(&taken.mac)), "mac_taken"),
            (nic(&|nic| nic.existing = true), "not_found"),
            (
                with_nic(world.reservation(other_id()), |nic| {
                    (nic.existing, nic.port_id) = (true, taken.port_id.clone())
                }),
                "port_attached",
            ),
        ];
        for (wrong, code) in bad {
            let problem = world.reserve(&[good.clone(), wrong]).await.expect_err(code);
            assert!(problem.code.ends_with(code), "{}: {}", problem.code, problem.detail);
            assert!(problem.hint.is_some() || code == "not_found", "{code} says what to do");
        }
        assert_eq!(world.used().await.ports, 1, "nothing of them was kept");
        let many: Vec<_> = (0..QUOTA_PORTS).map(|_| world.reservation(instance)).collect();
        let over = world.reserve(&many).await.expect_err("one too many");
        assert_eq!(over.kind, ErrorKind::QuotaExceeded);
        // A /29 has five; one is taken. What refused creates claimed is free again: the four that are left can be had.
        let ports = world.reserve(&many[1..]).await.expect("within the quota");
        let addresses: BTreeSet<&String> = ports.iter().flat_map(|p| &p.addresses).chain(&taken.addresses).collect();
        assert_eq!(addresses.len(), 7, "three of each family and the one");
        assert_eq!(world.store.leak_report().await.expect("read"), []);
        world.stop().await;
    }
}

fn other_id() -> InstanceId {
    InstanceId::new()
}

fn ids(_world: &World) -> String {
    PortId::new().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_its_own_is_taken_and_free_again_afterwards() {
    for mut world in World::each().await {
        let id = world.own_port("mine").await.to_string();
        let (one, two, host) = (InstanceId::new(), InstanceId::new(), HostId::new());
        let take = |world: &World, instance| {
            with_nic(world.reservation(instance), |nic| (nic.existing, nic.port_id) = (true, id.clone()))
        };
        world.reserve(&[take(&world, one)]).await.expect("taken");
        world.bind(&id, one, host, 1, "").await.expect("bound");
        let refused = world.reserve(&[take(&world, two)]).await.expect_err("attached");
        assert_eq!(refused.code, "port_attached");
        world.release(one).await;
        world.remove(one).await;
        let free = world.port(&id).await.expect("it stays");
        assert_eq!((free.owner, free.host_id, free.status), (None, None, PortStatus::Down));
        world.reserve(&[take(&world, two)]).await.expect("free again");
        let bound = world.bind(&id, two, host, 1, "").await.expect("bound");
        assert!(bound.ports[0].epoch > free.epoch, "a later epoch than any before");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_whose_owner_never_comes_expires() {
    let mut world = World::on(TestStore::sqlite().await, Config::default()).await;
    let requests = world.reservation(InstanceId::new());
    let port = world.reserve_for(std::slice::from_ref(&requests), 1, false).await.expect("reserved")[0].clone();
    until("the reservation expires", async || world.port(&port.port_id).await.is_none()).await;
    assert_eq!(world.used().await.ports, 0);
    let late = world.bind(&port.port_id, InstanceId::new(), HostId::new(), 1, "").await.expect("answered");
    assert_eq!(late.expired_port_ids, [port.port_id]);
    // It was never used, so it isn't quarantined.
    let again = with_nic(requests, |nic| nic.fixed_ip_request_json = vec![at(&port.addresses[0])]);
    world.reserve(&[again]).await.expect("free at once");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_never_share_an_address() {
    for mut world in World::each().await {
        let limit = domain::quota::QuotaAmounts::DEFAULT_LIMIT;
        world
            .store
            .commit(Unit::new().op(store::QuotaLimitPut::new(world.project_id, &limit, 0)))
            .await
            .expect("a limit");
        // Five addresses of IPv4, twelve that want one.
        let calls = (0..12).map(|_| async { world.reserve(&[world.reservation(InstanceId::new())]).await });
        let answers = futures::future::join_all(calls).await;
        let got: Vec<String> = answers.iter().flatten().map(|ports| ports[0].addresses[0].clone()).collect();
        assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), got.len());
        assert_eq!(got.len(), 5);
        for problem in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert_eq!(problem.code, "no_free_address", "{}", problem.detail);
        }
        assert_eq!(world.used().await.ports, 5);
        let rows: Vec<Port> = world.store.port_load_all().await.expect("read");
        assert_eq!(rows.len(), 5);
        world.stop().await;
    }
}
