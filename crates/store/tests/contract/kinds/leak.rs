//! Each kind of leak is made on purpose, seen, and mended.

use crate::fixture::{
    Lab, T0, claim, compute, delete_disk, disk_insert, external_network_insert, instance_insert, network_insert,
    network_usage, port_insert, release, router_insert, storage, subnet_insert,
};
use domain::{
    FloatingIpId, HostId, InstanceId, OperationId, ProjectId, Timestamp,
    network::{FixedIp, PortStatus},
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::*;

async fn found(lab: &Lab) -> Vec<LeakKind> {
    let leaks = lab.leak_report().await.unwrap();
    assert_eq!(page_by_page(lab).await, leaks, "whatever the size of a page");
    assert!(leaks.iter().all(|leak| !leak.detail.is_empty()));
    let kinds: BTreeSet<LeakKind> = leaks.into_iter().map(|leak| leak.kind).collect();
    kinds.into_iter().collect()
}

/// The report in the smallest pages: no row is left out between two of them, and none comes twice.
async fn page_by_page(lab: &Lab) -> Vec<Leak> {
    let (mut leaks, mut cursor) = (Vec::new(), LeakCursor::default());
    loop {
        let (found, next) = lab.leak_page(&cursor, 1).await.unwrap();
        leaks.extend(found);
        match next {
            Some(next) => cursor = next,
            None => return leaks,
        }
    }
}

pub async fn walk(lab: &Lab) {
    assert_eq!(lab.leak_report().await.unwrap(), [], "what the walks before left behind");
    let project = lab.project("leak").await;
    let (host, image) = (lab.host("leak-host").await, lab.image(project, "leak-image").await);
    let id = lab.instance(project, host, image, "whole").await;
    assert_eq!(lab.leak_report().await.unwrap(), [], "a whole instance is no leak");

    lab.one(claim(host)).await;
    assert_eq!(found(lab).await, [LeakKind::HostClaim]);
    lab.one(release(host)).await;
    lab.one(compute(project, 1)).await;
    assert_eq!(found(lab).await, [LeakKind::ComputeUsage]);
    lab.one(compute(project, -1)).await;
    lab.one(storage(project, 1)).await;
    assert_eq!(found(lab).await, [LeakKind::StorageUsage]);
    lab.one(storage(project, -1)).await;
    for usage in [StorageUsageAdd::image(project, 1, 0), StorageUsageAdd::image(project, 0, 1)] {
        let back = StorageUsageAdd::image(project, -usage.images, -usage.image_gib);
        lab.one(usage).await;
        assert_eq!(found(lab).await, [LeakKind::ImageUsage]);
        lab.one(back).await;
    }
    for usage in [IdentityUsageAdd::ssh_keys, IdentityUsageAdd::placement_groups] {
        lab.one(usage(project, 1)).await;
        assert_eq!(found(lab).await, [LeakKind::IdentityUsage]);
        lab.one(usage(project, -1)).await;
    }

    let now = Timestamp::now();
    let fresh = DiskInsert { expires_at: now, ..disk_insert(project, InstanceId::new()) };
    lab.all(Unit::new().op(fresh.clone()).op(storage(project, 1))).await;
    assert_eq!(found(lab).await, [], "the sweeper has time");
    let confirm = DiskConfirm { id: fresh.id, instance_id: fresh.instance_id, host_id: host, epoch: 1 };
    lab.one(confirm).await;
    assert_eq!(found(lab).await, [LeakKind::DiskWithoutInstance]);
    let fresh = lab.disk_find(fresh.id).await.unwrap().unwrap();
    lab.all(Unit::new().op(delete_disk(&fresh)).op(storage(project, -1))).await;
    let old = DiskInsert { expires_at: T0, ..disk_insert(project, InstanceId::new()) };
    lab.all(Unit::new().op(old.clone()).op(storage(project, 1))).await;
    assert_eq!(found(lab).await, [LeakKind::ReservationExpired]);
    lab.all(Unit::new().op(DiskExpire { id: old.id, expected_generation: 1, at: now }).op(storage(project, -1))).await;

    lab.one(ComputeOperationInsert { id: OperationId::new(), outcome: String::new(), created_at: T0 }).await;
    assert_eq!(found(lab).await, [LeakKind::OperationExpired]);
    lab.one(ComputeOperationExpire { before: now }).await;

    let lost = instance_insert(project, Some(HostId::new()), image, "lost");
    lab.all(Unit::new().op(lost.clone()).op(compute(project, 1))).await;
    assert_eq!(found(lab).await, [LeakKind::InstanceWithoutHost]);
    lab.all(Unit::new().op(InstanceDelete { id: lost.id, epoch: 1 }).op(compute(project, -1))).await;

    let disk = lab.disk_list_of_instance(id).await.unwrap().remove(0);
    // A release gives the quota back, the row waits for proof.
    lab.all(Unit::new().op(DiskRelease { id: disk.id, expected_generation: 1 }).op(storage(project, -1))).await;
    assert_eq!(found(lab).await, []);
    lab.one(delete_disk(&DiskRow { state: DiskState::Releasing, ..disk })).await;
    assert_eq!(found(lab).await, [LeakKind::InstanceWithoutDisk]);
    lab.all(Unit::new().op(InstanceDelete { id, epoch: 1 }).op(release(host)).op(compute(project, -1))).await;
    assert_eq!(found(lab).await, []);
    networks(lab, project).await;
    assert_eq!(LeakKind::ALL.len(), 17, "a new kind needs a case here; those of placement are beside its walk");
}

async fn networks(lab: &Lab, project: ProjectId) {
    let network = network_insert(project, "leaky");
    lab.one(network.clone()).await;
    assert_eq!(found(lab).await, [LeakKind::NetworkUsage]);
    lab.one(network_usage(project, 1)).await;
    assert_eq!(found(lab).await, []);

    let subnet = subnet_insert(project, network.id, "leaky", "10.0.0.0/24");
    let one = QuotaAmounts { subnets: 1, ..QuotaAmounts::NONE };
    lab.all(Unit::new().op(subnet.clone()).op(NetworkUsageAdd::take(project, &one))).await;
    let now = Timestamp::now();
    let address: std::net::IpAddr = "10.0.0.5".parse().expect("an address");
    let port = PortInsert {
        fixed_ips: vec![FixedIp { subnet_id: subnet.id, address }],
        instance_id: Some(InstanceId::new()),
        expires_at: Some(now),
        ..port_insert(project, network.id)
    };
    let of_port = QuotaAmounts { ports: 1, ..QuotaAmounts::NONE };
    lab.all(Unit::new().op(port.clone()).op(NetworkUsageAdd::take(project, &of_port))).await;
    assert_eq!(found(lab).await, [LeakKind::OwnerWithoutAddress]);
    let take = AddressTake {
        scope_id: network.id.to_string(),
        address,
        subnet_id: Some(subnet.id),
        block_id: None,
        owner_kind: AddressOwner::Port,
        owner_id: port.id.to_string(),
        at: now,
    };
    lab.one(take.clone()).await;
    assert_eq!(found(lab).await, [], "the sweeper has time");
    let bind = PortBind {
        id: port.id,
        expected_generation: 1,
        instance_id: port.instance_id.expect("named"),
        host_id: HostId::new(),
        epoch: 1,
        instance_epoch: 1,
        metadata_digest: String::new(),
        hostname: String::new(),
        status: PortStatus::Building,
    };
    lab.one(bind).await;
    assert_eq!(found(lab).await, [LeakKind::PortWithoutInstance]);
    let delete = PortDelete { id: port.id, expected_generation: 2 };
    lab.all(Unit::new().op(delete).op(NetworkUsageAdd::release(project, &of_port))).await;
    assert_eq!(found(lab).await, [LeakKind::AddressWithoutOwner]);
    let quarantine =
        |free_at| AddressRelease { scope_id: take.scope_id.clone(), address, owner_id: take.owner_id.clone(), free_at };
    lab.one(quarantine(now)).await;
    assert_eq!(found(lab).await, []);
    lab.one(AddressSweep { before: now }).await;
    lab.one(AddressTake { at: T0, ..take.clone() }).await;
    lab.one(quarantine(T0)).await;
    assert_eq!(found(lab).await, [LeakKind::AddressUnswept]);
    assert!(lab.address_quarantine_over(now).await.unwrap());
    lab.one(AddressSweep { before: now }).await;
    assert!(!lab.address_quarantine_over(now).await.unwrap());

    let old = PortInsert { instance_id: Some(InstanceId::new()), ..port_insert(project, network.id) };
    lab.all(Unit::new().op(old.clone()).op(NetworkUsageAdd::take(project, &of_port))).await;
    assert_eq!(found(lab).await, [LeakKind::ReservationExpired]);
    let release = PortRelease { id: old.id, expected_generation: 1 };
    lab.all(Unit::new().op(release).op(NetworkUsageAdd::release(project, &of_port))).await;
    assert_eq!(found(lab).await, [LeakKind::PortWithoutInstance], "releasing, and its instance is gone");
    lab.one(PortDelete { id: old.id, expected_generation: 2 }).await;

    let outside = external_network_insert("leaky");
    lab.one(outside.clone()).await;
    let host = HostId::new();
    let uplink = UplinkPut {
        network_id: network.id,
        host_id: host,
        external_network_id: outside.id,
        addresses: vec!["203.0.113.9/24".into()],
        mac: port.mac,
    };
    let takes = |address: &str, owner_kind, owner_id: String| AddressTake {
        scope_id: outside.id.to_string(),
        address: address.parse().expect("an address"),
        subnet_id: None,
        block_id: None,
        owner_kind,
        owner_id,
        at: now,
    };
    let owner = format!("{}/{host}", network.id);
    lab.all(Unit::new().op(uplink).op(takes("203.0.113.9", AddressOwner::Uplink, owner.clone()))).await;
    assert_eq!(found(lab).await, [LeakKind::UplinkWithoutRouter]);
    let router = router_insert(project, "leaky", network.id, outside.id);
    let of_router = QuotaAmounts { routers: 1, ..QuotaAmounts::NONE };
    lab.all(Unit::new().op(router.clone()).op(NetworkUsageAdd::take(project, &of_router))).await;
    assert_eq!(found(lab).await, []);
    let floating = FloatingIpInsert {
        id: FloatingIpId::new(),
        project_id: project,
        external_network_id: outside.id,
        address: "203.0.113.10".parse().expect("an address"),
        description: String::new(),
        port_id: None,
        fixed_ip: None,
        created_at: T0,
    };
    let of_floating = QuotaAmounts { floating_ips: 1, ..QuotaAmounts::NONE };
    lab.all(
        Unit::new()
            .op(floating.clone())
            .op(takes("203.0.113.10", AddressOwner::FloatingIp, floating.id.to_string()))
            .op(NetworkUsageAdd::take(project, &of_floating)),
    )
    .await;
    assert_eq!(found(lab).await, []);

    let release = |address: &str, owner_id: String| AddressRelease {
        scope_id: outside.id.to_string(),
        address: address.parse().expect("an address"),
        owner_id,
        free_at: now,
    };
    let used = QuotaAmounts { networks: 1, subnets: 1, routers: 1, floating_ips: 1, ..QuotaAmounts::NONE };
    lab.all(
        Unit::new()
            .op(FloatingIpDelete { id: floating.id, expected_generation: 1 })
            .op(release("203.0.113.10", floating.id.to_string()))
            .op(UplinkDelete { network_id: network.id, host_id: host })
            .op(release("203.0.113.9", owner))
            .op(RouterDelete { id: router.id, expected_generation: 1 })
            .op(NetworkDelete { id: network.id, expected_generation: 1 })
            .op(ExternalNetworkDelete { id: outside.id })
            .op(NetworkUsageAdd::release(project, &used)),
    )
    .await;
    assert_eq!(found(lab).await, []);
}
