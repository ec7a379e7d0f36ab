//! Creation: placement, refusals, repeats, dry runs.

use crate::cloud::{Cloud, each, eventually, quick};
use domain::{
    ErrorKind, ImageId,
    explain::Rejection,
    flavor::Size,
    instance::{InstanceState as S, OnHostLoss},
    quota::QuotaAmounts,
};
use service_kit::context::CallContext;
use sim::SimConfig;

/// One host of 4 threads, 4 GiB, 20 GiB.
async fn small_host(cloud: &Cloud) -> sim::SimHost {
    let capacity = Size { vcpus: 4, memory_mib: 4096, disk_gib: 20 };
    cloud.host(SimConfig { capacity, ..SimConfig::named("small") }).await
}

async fn nothing_happened(cloud: &Cloud) {
    let all = store::InstanceFilter { limit: 100, ..Default::default() };
    assert!(cloud.store.instance_list(&all).await.expect("readable").is_empty());
    cloud.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lack_of_capacity_is_explained_and_leaves_nothing() {
    for cloud in each(quick()).await {
        let none = cloud.try_create(&cloud.context(), cloud.request(&["a"], &cloud.spec())).await.expect_err("no host");
        assert_eq!((none.kind, none.detail.as_str()), (ErrorKind::NoCapacity, "no host has registered yet"));
        let host = small_host(&cloud).await;
        let mut spec = cloud.spec();
        spec.size = Size { vcpus: 4, memory_mib: 4096, disk_gib: 5 };
        let full = cloud.try_create(&cloud.context(), cloud.request(&["a"], &spec)).await.expect_err("QEMU needs some");
        let explain = full.explain.expect("explained");
        assert_eq!(explain.rejected.iter().map(|r| (r.filter, r.hosts)).collect::<Vec<_>>(), [(Rejection::Memory, 1)]);
        // 64 + 4 * 4 + 8 * 4 MiB for QEMU itself.
        assert_eq!(explain.nearest.expect("one host").lacks, Size { vcpus: 0, memory_mib: 112, disk_gib: 0 });
        assert!(full.hint.expect("a hint").contains("112 MiB"));

        spec.size = Size { vcpus: 1, memory_mib: 256, disk_gib: 5 };
        let names = ["a", "b", "c", "d", "e"];
        let many = cloud.try_create(&cloud.context(), cloud.request(&names, &spec)).await.expect_err("4 of 5");
        assert!(many.detail.starts_with("4 of 5 would fit"), "{}", many.detail);
        nothing_happened(&cloud).await;
        let four = cloud.try_create(&cloud.context(), cloud.request(&names[..4], &spec)).await.expect("they fit");
        assert_eq!(four.instances.len(), 4);
        cloud.stop(vec![host]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_kept_and_named_with_their_figures() {
    let cloud = Cloud::start(quick()).await;
    let host = small_host(&cloud).await;
    cloud
        .limit(QuotaAmounts { instances: 1, vcpus: 10, memory_mib: 10_000, disk_gib: 3, ..QuotaAmounts::DEFAULT_LIMIT })
        .await;
    let mut spec = cloud.spec();
    spec.size.disk_gib = 4;
    let disk = cloud.try_create(&cloud.context(), cloud.request(&["a"], &spec)).await.expect_err("4 of 3 GiB");
    assert_eq!(disk.kind, ErrorKind::QuotaExceeded);
    assert!(disk.detail.contains("disk_gib: 4 requested, 0 used, limit 3"), "{}", disk.detail);
    spec.size.disk_gib = 1;
    let count = cloud.try_create(&cloud.context(), cloud.request(&["a", "b"], &spec)).await.expect_err("2 of 1");
    assert!(count.detail.contains("instances: 2 requested, 0 used, limit 1"), "{}", count.detail);
    nothing_happened(&cloud).await;
    cloud.create("a").await;
    let taken = cloud.try_create(&cloud.context(), cloud.request(&["b"], &spec)).await.expect_err("1 of 1");
    assert!(taken.detail.contains("instances: 1 requested, 1 used, limit 1"), "{}", taken.detail);
    cloud.stop(vec![host]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_before_anything_is_claimed() {
    let cloud = Cloud::start(quick()).await;
    let host = small_host(&cloud).await;
    let refused = async |names: &[&str], change: &dyn Fn(&mut domain::instance::InstanceSpec)| {
        let mut spec = cloud.spec();
        change(&mut spec);
        cloud.try_create(&cloud.context(), cloud.request(names, &spec)).await.expect_err("refused")
    };
    assert_eq!(refused(&["a"], &|s| s.image_id = ImageId::new()).await.code, "image_not_found");
    assert_eq!(refused(&["a"], &|s| s.size.disk_gib = 0).await.code, "size_too_small");
    assert_eq!(refused(&["a"], &|s| s.size.memory_mib = 1).await.errors[0].field, "memory_mib");
    assert_eq!(refused(&["a"], &|s| s.on_host_loss = OnHostLoss::Restart).await.code, "local_disk");
    assert_eq!(refused(&["a"], &|s| s.zone = Some("mars".into())).await.kind, ErrorKind::NoCapacity);
    assert_eq!(refused(&["a", "a"], &|_| {}).await.kind, ErrorKind::InvalidArgument);
    assert_eq!(refused(&["NO"], &|_| {}).await.kind, ErrorKind::InvalidArgument);
    assert_eq!(refused(&[], &|_| {}).await.kind, ErrorKind::InvalidArgument);
    nothing_happened(&cloud).await;
    cloud.create("taken").await;
    let twice = refused(&["free", "taken"], &|_| {}).await;
    assert_eq!((twice.kind, twice.code.as_str()), (ErrorKind::AlreadyExists, "name_taken"));
    assert!(twice.detail.contains("taken"), "{}", twice.detail);
    let used = cloud.used().await;
    assert_eq!((used.instances, used.disk_gib), (1, 2), "nothing of the refused stays");
    // A kernel image runs from memory: no disk, no row of one.
    let mut spec = cloud.spec();
    (spec.image_id, spec.size.disk_gib) = (cloud.kernel_id, 0);
    let id = cloud.create_as("diskless", &spec).await.id;
    assert_eq!(cloud.becomes(id, S::Running).await.root_disk_id, None);
    cloud.stop(vec![host]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_operation_gets_its_first_answer_whatever_changed_since() {
    for cloud in each(quick()).await {
        let host = small_host(&cloud).await;
        let mut spec = cloud.spec();
        // It takes all that there is: a second one would find no capacity.
        spec.size = Size { vcpus: 4, memory_mib: 1024, disk_gib: 20 };
        let (context, request) = (cloud.context(), cloud.request(&["a"], &spec));
        let calls = (0..8).map(|_| cloud.try_create(&context, request.clone()));
        let answers = futures::future::join_all(calls).await;
        let first = answers[0].as_ref().expect("accepted");
        for answer in &answers {
            assert_eq!(answer.as_ref(), Ok(first), "all of them at once");
        }
        let id = first.instances[0].id.parse().expect("an id");
        cloud.becomes(id, S::Running).await;
        assert_eq!(cloud.try_create(&context, request.clone()).await.as_ref(), Ok(first), "without capacity");
        let used = cloud.used().await;
        assert_eq!((used.instances, used.vcpus, used.disk_gib), (1, 4, 20), "counted once");

        let delete = cloud.context();
        let gone = cloud.try_delete(&delete, id).await.expect("accepted");
        cloud.gone(id).await;
        assert_eq!(cloud.try_delete(&delete, id).await.as_ref(), Ok(&gone), "although it is gone");
        let other = cloud.try_delete(&cloud.context(), id).await.expect_err("another operation");
        assert_eq!(other.kind, ErrorKind::NotFound);
        assert_eq!(cloud.try_create(&context, request).await.as_ref(), Ok(first), "and creates nothing again");
        assert!(cloud.find(id).await.is_none());
        cloud.stop(vec![host]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let cloud = Cloud::start(quick()).await;
    let host = small_host(&cloud).await;
    cloud
        .limit(QuotaAmounts { instances: 5, vcpus: 8, memory_mib: 4096, disk_gib: 30, ..QuotaAmounts::DEFAULT_LIMIT })
        .await;
    let dry = CallContext { dry_run: true, ..cloud.context() };
    let plan = cloud.try_create(&dry, cloud.request(&["a", "b"], &cloud.spec())).await.expect("it would work");
    let plan = plan.plan.expect("a plan");
    let left = (plan.instances_left, plan.vcpus_left, plan.memory_mib_left, plan.disk_gib_left);
    assert_eq!(left, (3, 6, 4096 - 512, 26));
    assert_eq!(plan.touches.len(), 2);
    let placement: domain::explain::PlacementRecord = serde_json::from_str(&plan.placement_json).expect("a record");
    assert_eq!(placement.candidates, 1);
    assert!(placement.chosen.is_some(), "the gateway takes out what a tenant may not see");
    let mut spec = cloud.spec();
    spec.size.vcpus = 5;
    let full = cloud.try_create(&dry, cloud.request(&["a"], &spec)).await.expect_err("4 threads");
    assert_eq!(full.kind, ErrorKind::NoCapacity);
    let quota = cloud.try_create(&dry, cloud.request(&["a", "b", "c", "d", "e", "f"], &cloud.spec())).await;
    assert_eq!(quota.expect_err("5 at most").kind, ErrorKind::QuotaExceeded);
    nothing_happened(&cloud).await;
    let mut audited = cloud.store.audit_list(None, store::Page::first(10)).await.expect("readable");
    audited.retain(|entry| entry.action != "project.network_defaults");
    assert_eq!(audited, vec![]);
    let id = cloud.running("a").await.id;
    let before = cloud.fetch(id).await;
    let change = proto::cluster::v1::change_instance_request::Change::Reboot(Default::default());
    let plan = cloud.try_change(&dry, id, 0, change).await.expect("it would work").plan.expect("a plan");
    assert!(plan.summary.contains("reboot"), "{}", plan.summary);
    assert!(cloud.try_delete(&dry, id).await.expect("it would work").plan.is_some());
    assert_eq!(cloud.fetch(id).await, before);
    cloud.stop(vec![host]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_creates_at_once_never_take_more_than_there_is() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(3).await;
        let mut spec = cloud.spec();
        spec.size = Size { vcpus: 2, memory_mib: 256, disk_gib: 1 };
        // 3 hosts of 16 threads: 24 fit.
        let calls = (0..40).map(|n| {
            let (cloud, request) = (&cloud, cloud.request(&[&format!("i{n}")], &spec));
            async move { cloud.try_create(&cloud.context(), request).await }
        });
        let answers = futures::future::join_all(calls).await;
        let refused: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
        assert_eq!((answers.len() - refused.len(), refused.len()), (24, 16));
        assert!(refused.iter().all(|p| p.kind == ErrorKind::NoCapacity), "{refused:?}");
        cloud.converges(&hosts).await;
        for host in cloud.store.host_list().await.expect("readable") {
            assert_eq!((host.used.vcpus, host.capacity.vcpus), (16, 16));
        }
        let ids: Vec<_> = answers.iter().flatten().map(|a| a.instances[0].id.parse().expect("an id")).collect();
        futures::future::join_all(ids.iter().map(|id| cloud.delete(*id))).await;
        cloud.leaves_nothing().await;
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_memory_does_not_know_of_is_met_at_the_commit_and_refused_for_what_it_is() {
    let cloud = Cloud::start(quick()).await;
    let host = small_host(&cloud).await;
    // Another manager's claim: only the row knows.
    let claim = store::HostClaim { host_id: host.id(), generation: None, vcpus: 4, memory_mib: 0, disk_gib: 0 };
    cloud.store.commit(store::Unit::new().op(claim)).await.expect("capacity");
    let refused = cloud.try_create(&cloud.context(), cloud.request(&["a"], &cloud.spec())).await.expect_err("full");
    assert_eq!(refused.kind, ErrorKind::NoCapacity, "{refused:?}");
    let back = store::HostRelease { host_id: host.id(), vcpus: 4, memory_mib: 0, disk_gib: 0 };
    cloud.store.commit(store::Unit::new().op(back)).await.expect("released");
    nothing_happened(&cloud).await;
    // The inventory takes the row over when the host connects again.
    host.cut().await;
    host.restart();
    eventually("there is capacity again", || async {
        cloud.try_create(&cloud.context(), cloud.request(&["a"], &cloud.spec())).await.map_err(|p| p.detail)
    })
    .await;
    cloud.stop(vec![host]).await;
}
