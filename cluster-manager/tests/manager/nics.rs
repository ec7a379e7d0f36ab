//! Tests of instances with NICs, over the real resource-manager.

use crate::{
    cloud::{Cloud, each, eventually, quick},
    storage_proxy::{Failure, Method},
};
use domain::{
    ErrorKind, InstanceId, NetworkId, PortId, SubnetId,
    instance::{Instance, InstanceState as S},
    network::{
        Change as NetworkChange, FixedIpRequest, Network, NetworkObject, NewNetwork, NewPort, NewSubnet, Port,
        PortState, RateLimit, Subnet, SubnetSpec,
    },
    quota::QuotaAmounts,
};
use proto::{
    cluster::v1::{self as pb, change_instance_request::Change},
    resource::v1 as resource,
};
use service_kit::context::CallContext;

struct Net {
    network_id: NetworkId,
    subnet_id: SubnetId,
}

/// A network 10.7.0.0/24 of the project's own.
async fn network(cloud: &Cloud) -> Net {
    cloud.apply(&NetworkChange::ProjectDefaults).await.expect("defaults");
    let (network_id, subnet_id) = (NetworkId::new(), SubnetId::new());
    let name = |text: &str| text.parse().expect("a name");
    let create = NetworkChange::create::<Network>(NewNetwork {
        id: network_id,
        name: name("blue"),
        description: String::new(),
        mtu: None,
    });
    cloud.apply(&create).await.expect("a network");
    let spec = SubnetSpec {
        cidr: "10.7.0.0/24".parse().expect("a block"),
        gateway: [10, 7, 0, 1].into(),
        dns: vec![],
        allocation: vec![],
        host_routes: vec![],
    };
    let create = NetworkChange::create::<Subnet>(NewSubnet {
        id: subnet_id,
        network_id,
        name: name("blue-4"),
        spec,
        dhcp: true,
    });
    cloud.apply(&create).await.expect("a subnet");
    Net { network_id, subnet_id }
}

impl Net {
    fn nic(&self) -> pb::NicRequest {
        pb::NicRequest {
            port_id: PortId::new().to_string(),
            network_id: self.network_id.to_string(),
            ..pb::NicRequest::default()
        }
    }

    fn nic_at(&self, last: u8) -> pb::NicRequest {
        let fixed_ip = FixedIpRequest::Address([10, 7, 0, last].into());
        pb::NicRequest { fixed_ip_request_json: vec![serde_json::to_string(&fixed_ip).expect("JSON")], ..self.nic() }
    }

    /// A port that exists by itself.
    async fn port(&self, cloud: &Cloud, name: &str) -> Port {
        let create = NetworkChange::create::<Port>(NewPort {
            id: PortId::new(),
            network_id: self.network_id,
            name: name.parse().expect("a name"),
            mac: None,
            fixed_ips: vec![FixedIpRequest::AnyOf(self.subnet_id)],
            allowed_addresses: vec![],
            any_address: false,
            security_group_ids: None,
            rate_limit: RateLimit::default(),
        });
        match cloud.apply(&create).await.expect("a port").object {
            Some(NetworkObject::Port(port)) => port,
            other => panic!("{other:?}"),
        }
    }
}

fn with_nics(mut request: pb::CreateInstancesRequest, nics: &[pb::NicRequest]) -> pb::CreateInstancesRequest {
    request.instances[0].nics = nics.to_vec();
    request
}

async fn created(cloud: &Cloud, name: &str, nics: &[pb::NicRequest]) -> Instance {
    let request = with_nics(cloud.request(&[name], &cloud.spec()), nics);
    let answer = cloud.try_create(&cloud.context(), request).await.expect("created");
    proto::convert::instance_from_pb(answer.instances[0].clone()).expect("well-formed")
}

async fn ports_of(cloud: &Cloud, id: InstanceId) -> Vec<Port> {
    cloud.store.port_list_of_instance(id).await.expect("readable")
}

/// Waits until the ports of an instance are as many, and all bound to its host and epoch.
async fn bound(cloud: &Cloud, id: InstanceId, count: usize) -> Vec<Port> {
    eventually(&format!("{id} has {count} bound ports"), || async {
        let (row, ports) = (cloud.fetch(id).await, ports_of(cloud, id).await);
        let right = |p: &Port| {
            p.state == PortState::Active
                && p.expires_at.is_none()
                && p.host_id == row.host_id
                && p.instance_epoch == row.epoch
        };
        if ports.len() == count && ports.iter().all(right) { Ok(ports) } else { Err(format!("{ports:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nics_are_reserved_kept_changed_and_released() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(2).await;
        let net = network(&cloud).await;
        let own = net.port(&cloud, "own").await;
        let existing = pb::NicRequest { port_id: own.id.to_string(), existing: true, ..pb::NicRequest::default() };
        let instance = created(&cloud, "web", &[net.nic_at(77), existing]).await;
        let nics = &instance.spec.nics;
        assert_eq!((nics.len(), nics[0].addresses.as_slice()), (2, &[[10, 7, 0, 77].into()][..]));
        assert_eq!((nics[1].port_id, nics[1].mac), (own.id, own.mac));
        let id = instance.id;
        cloud.becomes(id, S::Running).await;
        let ports = bound(&cloud, id, 2).await;
        assert!(ports.iter().all(|p| p.hostname == "web" && p.metadata_digest.len() == 64), "{ports:?}");

        // What a guest may read about itself changed: its ports carry it, under the same epoch.
        let describe = pb::Describe { name: Some("db".into()), ..pb::Describe::default() };
        cloud.change(id, Change::Describe(describe)).await.expect("accepted");
        eventually("the ports know its name", || async {
            let now = ports_of(&cloud, id).await;
            let updated = now.iter().zip(&ports).all(|(now, before)| {
                now.hostname == "db" && now.metadata_digest != before.metadata_digest && now.epoch == before.epoch
            });
            if updated { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;

        let third = net.nic();
        let attach = || Change::AttachNic(third.clone());
        let attached = cloud.change(id, attach()).await.expect("accepted");
        assert_eq!(attached.spec.nics.len(), 3);
        assert_eq!(cloud.change(id, attach()).await.expect("a repeat").generation, attached.generation);
        cloud.becomes(id, S::Running).await;
        bound(&cloud, id, 3).await;
        for port_id in [own.id.to_string(), third.port_id] {
            cloud.change(id, Change::DetachNic(pb::DetachNic { port_id })).await.expect("accepted");
        }
        cloud.becomes(id, S::Running).await;
        let left = bound(&cloud, id, 1).await;
        assert_eq!(left[0].id, nics[0].port_id);
        let free = cloud.store.port_find(own.id).await.expect("readable").expect("it is nobody's but the project's");
        assert_eq!((free.owner, free.host_id), (None, None));
        assert_eq!(cloud.used().await.ports, 2);

        cloud.delete(id).await;
        cloud.gone(id).await;
        let delete = NetworkChange::delete::<Port>(own.id);
        cloud.apply(&delete).await.expect("free to go");
        cloud.leaves_nothing().await;
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_resource_manager_is_passed_on_and_leaves_nothing() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let net = network(&cloud).await;
    let holder = created(&cloud, "holder", &[net.nic_at(9)]).await;
    cloud.becomes(holder.id, S::Running).await;
    let refused = async |nics: Vec<pb::NicRequest>| {
        let request = with_nics(cloud.request(&["late"], &cloud.spec()), &nics);
        let id: InstanceId = request.instances[0].id.parse().expect("an id");
        let dry = CallContext { dry_run: true, ..cloud.context() };
        let dry = cloud.try_create(&dry, request.clone()).await.expect_err("refused in a dry run");
        let problem = cloud.try_create(&cloud.context(), request).await.expect_err("refused");
        assert_eq!((dry.kind, &dry.code), (problem.kind, &problem.code));
        eventually("nothing is left", || async {
            let disks = cloud.store.disk_load_many_of_instances(&[id]).await.expect("readable");
            let ports = ports_of(&cloud, id).await;
            if disks.is_empty() && ports.is_empty() { Ok(()) } else { Err(format!("{disks:?} {ports:?}")) }
        })
        .await;
        problem
    };
    let taken = refused(vec![net.nic(), net.nic_at(9)]).await;
    assert!(taken.detail.contains("10.7.0.9"), "{taken:?}");
    let nowhere = Net { network_id: NetworkId::new(), subnet_id: net.subnet_id };
    assert_eq!(refused(vec![nowhere.nic()]).await.kind, ErrorKind::NotFound);
    let twice = net.nic();
    assert_eq!(refused(vec![twice.clone(), twice]).await.errors[0].field, "nics");
    assert_eq!(refused((0..17).map(|_| net.nic()).collect()).await.errors[0].field, "nics");
    cloud.limit(QuotaAmounts { ports: 1, ..QuotaAmounts::DEFAULT_LIMIT }).await;
    assert_eq!(refused(vec![net.nic()]).await.kind, ErrorKind::QuotaExceeded);
    let attach = cloud.change(holder.id, Change::AttachNic(net.nic())).await.expect_err("no quota either");
    assert_eq!(attach.kind, ErrorKind::QuotaExceeded);
    cloud.limit(QuotaAmounts::DEFAULT_LIMIT).await;

    // There is no place for the instance: its ports are released as well.
    let mut large = cloud.spec();
    large.size.memory_mib = 1 << 20;
    large.size.vcpus = 64;
    let request = with_nics(cloud.request(&["large"], &large), &[net.nic()]);
    let problem = cloud.try_create(&cloud.context(), request).await.expect_err("no capacity");
    assert!(matches!(problem.kind, ErrorKind::NoCapacity | ErrorKind::QuotaExceeded), "{problem:?}");
    eventually("one port is used", || async {
        match cloud.used().await.ports {
            1 => Ok(()),
            n => Err(format!("{n} ports")),
        }
    })
    .await;

    // A dry run answers what would be reserved, and takes nothing.
    let context = CallContext { dry_run: true, ..cloud.context() };
    let request = with_nics(cloud.request(&["maybe"], &cloud.spec()), &[net.nic_at(30)]);
    let plan = cloud.try_create(&context, request).await.expect("it would do").plan.expect("a plan");
    assert!(plan.touches.iter().any(|t| t.contains("10.7.0.30")), "{:?}", plan.touches);
    let change = Change::AttachNic(net.nic_at(31));
    let plan = cloud.try_change(&context, holder.id, 0, change).await.expect("it would do").plan.expect("a plan");
    assert!(plan.touches.iter().any(|t| t.contains("10.7.0.31")), "{:?}", plan.touches);
    assert_eq!((cloud.used().await.ports, cloud.fetch(holder.id).await.spec.nics.len()), (1, 1));
    cloud.delete(holder.id).await;
    cloud.gone(holder.id).await;
    cloud.leaves_nothing().await;
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_port_for_each() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(2).await;
    let net = network(&cloud).await;
    let names: Vec<String> = (0..20).map(|n| format!("i{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut request = cloud.request(&names, &cloud.spec());
    request.instances.iter_mut().for_each(|i| i.nics = vec![net.nic(), net.nic()]);
    let answer = cloud.try_create(&cloud.context(), request).await.expect("created");
    let mut addresses = std::collections::BTreeSet::new();
    for instance in &answer.instances {
        let instance = proto::convert::instance_from_pb(instance.clone()).expect("well-formed");
        addresses.extend(instance.spec.nics.iter().flat_map(|nic| nic.addresses.clone()));
        cloud.becomes(instance.id, S::Running).await;
        bound(&cloud, instance.id, 2).await;
        cloud.delete(instance.id).await;
    }
    assert_eq!(addresses.len(), 40);
    cloud.leaves_nothing().await;
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ports_of_a_deleted_instance_are_held_until_its_host_proves_it_gone() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let net = network(&cloud).await;
    let id = created(&cloud, "web", &[net.nic_at(5)]).await.id;
    cloud.becomes(id, S::Running).await;
    hosts[0].crash().await;
    cloud.delete(id).await;
    eventually("its ports are released", || async {
        let ports = ports_of(&cloud, id).await;
        if ports.iter().all(|p| p.state == PortState::Releasing) { Ok(()) } else { Err(format!("{ports:?}")) }
    })
    .await;
    assert_eq!(
        (cloud.used().await.ports, ports_of(&cloud, id).await.len()),
        (0, 1),
        "the quota is back, the address not"
    );
    let request = with_nics(cloud.request(&["next"], &cloud.spec()), &[net.nic_at(5)]);
    cloud.try_create(&cloud.context(), request).await.expect_err("the address is still held");
    hosts[0].restart();
    cloud.gone(id).await;
    cloud.leaves_nothing().await;
    cloud.stop(hosts).await;
}

/// Creates, changes and deletes an instance with NICs while one call to the resource-manager fails in one way.
async fn life_with(cloud: &Cloud, net: &Net, method: Method, failure: Failure, name: &str) {
    let (create, request) =
        (cloud.context(), with_nics(cloud.request(&[name], &cloud.spec()), &[net.nic(), net.nic()]));
    cloud.storage_plan.fail_once(method, failure);
    let life = async {
        let answer = cloud.insist(&create, &request).await.expect("created");
        let instance = proto::convert::instance_from_pb(answer.instances[0].clone()).expect("well-formed");
        let id = instance.id;
        cloud.becomes(id, S::Running).await;
        bound(cloud, id, 2).await;
        let detach = Change::DetachNic(pb::DetachNic { port_id: instance.spec.nics[0].port_id.to_string() });
        eventually("a NIC is detached", || async { cloud.change(id, detach.clone()).await.map_err(|p| p.detail) })
            .await;
        bound(cloud, id, 1).await;
        let attach = Change::AttachNic(net.nic());
        eventually("a NIC is attached", || async { cloud.change(id, attach.clone()).await.map_err(|p| p.detail) })
            .await;
        bound(cloud, id, 2).await;
        let delete = cloud.context();
        eventually("it is deleted", || async { cloud.try_delete(&delete, id).await.map_err(|p| p.detail) }).await;
        cloud.gone(id).await;
    };
    let death = async {
        if failure == Failure::CallerDies {
            cloud.dies().await;
            cloud.restart().await;
        }
    };
    tokio::join!(life, death);
    // What it held is removed after the instance's row is gone.
    eventually("the failure happened", async || {
        if cloud.storage_plan.used_up() { Ok(()) } else { Err(format!("{method:?} {failure:?} never happened")) }
    })
    .await;
    cloud.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_towards_ports_may_fail_lose_its_answer_or_be_the_last_thing_done() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let net = network(&cloud).await;
    for (n, method) in Method::RESOURCE.into_iter().enumerate() {
        for (m, failure) in Failure::ALL.into_iter().enumerate() {
            life_with(&cloud, &net, method, failure, &format!("i{n}-{m}")).await;
        }
    }
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_is_gone_before_it_is_bound_is_made_again_with_the_same_addresses() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let net = network(&cloud).await;
    // It is committed, and then the manager dies at the first thing it does about it.
    cloud.storage_plan.fail_once(Method::BindPorts, Failure::CallerDies);
    let instance = created(&cloud, "web", &[net.nic()]).await;
    cloud.dies().await;
    let nic = &instance.spec.nics[0];
    let remove = resource::RemovePortsRequest {
        instance_ids: vec![],
        ports: vec![resource::PortOfInstance {
            port_id: nic.port_id.to_string(),
            instance_id: instance.id.to_string(),
        }],
    };
    cloud.resources().remove_ports(cloud.context().request(remove)).await.expect("removed");
    assert_eq!(ports_of(&cloud, instance.id).await, vec![]);
    cloud.restart().await;
    cloud.becomes(instance.id, S::Running).await;
    let port = bound(&cloud, instance.id, 1).await.remove(0);
    let addresses: Vec<_> = port.fixed_ips.iter().map(|ip| ip.address).collect();
    assert_eq!((port.id, port.mac, &addresses), (nic.port_id, nic.mac, &nic.addresses));
    cloud.stop(hosts).await;
}
