//! Each kind of leak is made on purpose, seen, and mended.

use crate::fixture::{Lab, T0, claim, compute, disk_insert, forget, instance_insert, storage, unclaim};
use domain::{HostId, InstanceId, OperationId, Timestamp};
use std::collections::BTreeSet;
use store::*;

async fn found(lab: &Lab) -> Vec<LeakKind> {
    let leaks = lab.leak_report().await.unwrap();
    assert!(leaks.iter().all(|leak| !leak.detail.is_empty()));
    let kinds: BTreeSet<LeakKind> = leaks.into_iter().map(|leak| leak.kind).collect();
    kinds.into_iter().collect()
}

pub async fn walk(lab: &Lab) {
    assert_eq!(lab.leak_report().await.unwrap(), [], "what the walks before left behind");
    let project = lab.project("leak").await;
    let (host, image) = (lab.host("leak-host").await, lab.image(project, "leak-image").await);
    let id = lab.instance(project, host, image, "whole").await;
    assert_eq!(lab.leak_report().await.unwrap(), [], "a whole instance is no leak");

    lab.one(claim(host)).await;
    assert_eq!(found(lab).await, [LeakKind::HostClaim]);
    lab.one(unclaim(host)).await;
    lab.one(compute(project, 1)).await;
    assert_eq!(found(lab).await, [LeakKind::ComputeUsage]);
    lab.one(compute(project, -1)).await;
    lab.one(storage(project, 1)).await;
    assert_eq!(found(lab).await, [LeakKind::StorageUsage]);
    lab.one(storage(project, -1)).await;

    let now = Timestamp::now();
    let fresh = DiskInsert { expires_at: now, ..disk_insert(project, InstanceId::new()) };
    lab.all(Unit::new().op(fresh.clone()).op(storage(project, 1))).await;
    assert_eq!(found(lab).await, [], "the sweeper has time");
    let confirm = DiskConfirm { id: fresh.id, instance_id: fresh.instance_id, host_id: host, epoch: 1 };
    lab.one(confirm).await;
    assert_eq!(found(lab).await, [LeakKind::DiskWithoutInstance]);
    let fresh = lab.disk_find(fresh.id).await.unwrap().unwrap();
    lab.all(Unit::new().op(forget(&fresh)).op(storage(project, -1))).await;
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
    lab.one(forget(&DiskRow { state: DiskState::Releasing, ..disk })).await;
    assert_eq!(found(lab).await, [LeakKind::InstanceWithoutDisk]);
    lab.all(Unit::new().op(InstanceDelete { id, epoch: 1 }).op(unclaim(host)).op(compute(project, -1))).await;
    assert_eq!(found(lab).await, []);
    assert_eq!(LeakKind::ALL.len(), 8, "a new kind needs a case here");
}
