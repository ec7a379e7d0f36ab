//! Every lifecycle operation, from the request to the host and back.

use crate::cloud::{Cloud, each, eventually, quick};
use domain::{
    ErrorKind,
    flavor::Size,
    instance::{InstanceState as S, OnCrash, Power},
};
use proto::{
    cluster::v1::{self as pb, change_instance_request::Change},
    convert::on_crash_to_pb,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lives_through_every_change() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(2).await;
        let id = cloud.running("web").await.id;
        let host = hosts.iter().find(|h| h.machines().contains_key(&id)).expect("it runs somewhere");
        assert_eq!(host.machines()[&id].epoch, 1);
        let row = cloud.fetch(id).await;
        assert_eq!(row.placement.as_ref().expect("recorded").chosen, Some(host.id()));
        assert!(row.status.started_at.is_some() && row.status.guest_up_at.is_some());
        // 256 MiB for the guest, 64 + 4 + 2 for its QEMU.
        assert_eq!(row.claim, Size { vcpus: 1, memory_mib: 326, disk_gib: 2 });

        cloud.power(id, Power::Paused).await.expect("accepted");
        cloud.becomes(id, S::Paused).await;
        cloud.power(id, Power::On).await.expect("accepted");
        cloud.becomes(id, S::Running).await;

        let before = host.machines()[&id];
        cloud.change(id, Change::Reboot(pb::Reboot { hard: true })).await.expect("accepted");
        let rebooted = cloud.becomes(id, S::Running).await;
        assert_eq!(rebooted.spec.boot_seq, 1);
        assert_ne!(host.machines()[&id].started_at, before.started_at);

        let describe = pb::Describe {
            name: Some("db".to_owned()),
            replace_tags: true,
            tags: [("tier".to_owned(), "data".to_owned())].into(),
            on_crash: Some(on_crash_to_pb(OnCrash::Stop).into()),
        };
        cloud.change(id, Change::Describe(describe)).await.expect("accepted");
        let described = cloud.becomes(id, S::Running).await;
        assert_eq!((described.name.as_str(), described.tags["tier"].as_str()), ("db", "data"));

        let too_early = cloud.resize(id, Size { vcpus: 2, memory_mib: 512, disk_gib: 5 }).await;
        assert_eq!(too_early.expect_err("it runs").kind, ErrorKind::InvalidState);
        let stopping = cloud.power(id, Power::Off).await.expect("accepted");
        assert!(stopping.status.deadline_at.is_some() && stopping.status.step == "stopping");
        cloud.becomes(id, S::Stopped).await;
        assert!(host.machines().is_empty());
        let again = cloud.power(id, Power::Off).await.expect("a repeat is no error");
        assert_eq!(again.generation, cloud.fetch(id).await.generation, "and changes nothing");

        cloud.resize(id, Size { vcpus: 2, memory_mib: 512, disk_gib: 5 }).await.expect("accepted");
        cloud.becomes(id, S::Stopped).await;
        assert_eq!(host.disk_gib(id), Some(5));
        let used = cloud.used().await;
        assert_eq!((used.instances, used.vcpus, used.memory_mib, used.disk_gib), (1, 2, 512, 5));
        assert_eq!(cloud.fetch(id).await.claim, Size { vcpus: 2, memory_mib: 588, disk_gib: 5 });
        let smaller = cloud.resize(id, Size { vcpus: 1, memory_mib: 256, disk_gib: 4 }).await;
        assert_eq!(smaller.expect_err("a disk").code, "disk_shrink");
        cloud.resize(id, Size { vcpus: 1, memory_mib: 256, disk_gib: 5 }).await.expect("the rest shrinks");
        cloud.becomes(id, S::Stopped).await;

        cloud.power(id, Power::On).await.expect("accepted");
        cloud.becomes(id, S::Running).await;
        let rebuild = pb::Rebuild { image_id: cloud.kernel_id.to_string() };
        cloud.change(id, Change::Rebuild(rebuild)).await.expect("accepted");
        let rebuilt = cloud.becomes(id, S::Running).await;
        assert_eq!((rebuilt.spec.root_seq, rebuilt.spec.image_id), (1, cloud.kernel_id));
        assert_eq!(rebuilt.epoch, 1, "it never left its host");

        cloud.converges(&hosts).await;
        let deleting = cloud.delete(id).await;
        assert_eq!((deleting.status.state, deleting.spec.deleted), (S::Deleting, true));
        cloud.gone(id).await;
        cloud.leaves_nothing().await;
        assert!(hosts.iter().all(|h| h.held().is_empty()), "a tombstone is all that a host keeps");

        let timeline = cloud.store.event_of_object(&id.to_string(), 0, 1000).await.expect("readable");
        let kinds: Vec<&str> = timeline.iter().map(|e| e.kind.as_str()).collect();
        let expected = [
            "instance.create_accepted",
            "instance.running",
            "instance.guest_up",
            "instance.pause_accepted",
            "instance.paused",
            "instance.start_accepted",
            "instance.running",
            "instance.reboot_accepted",
            "instance.describe_accepted",
            "instance.stop_accepted",
            "instance.stopped",
            "instance.resize_accepted",
            "instance.rebuild_accepted",
            "instance.delete_accepted",
            "instance.deleted",
        ];
        let mut rest = kinds.iter();
        for kind in expected {
            assert!(rest.any(|k| *k == kind), "{kind} is missing, or out of order, in {kinds:?}");
        }
        let audit = cloud.store.audit_list(Some(cloud.project_id), store::Page::first(100)).await.expect("readable");
        assert!(audit.iter().any(|a| a.action == "instance.delete" && a.outcome == "accepted"));
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unexpected_end_is_counted_and_handled_by_on_crash() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let restarts = cloud.running("restarts").await.id;
    let mut spec = cloud.spec();
    spec.on_crash = OnCrash::Stop;
    let lies = cloud.create_as("lies", &spec).await.id;
    cloud.becomes(lies, S::Running).await;
    hosts[0].end_machine(restarts);
    hosts[0].end_machine(lies);
    eventually("both ends are seen", || async {
        let counts = (cloud.fetch(restarts).await.status.crash_count, cloud.fetch(lies).await.status.crash_count);
        if counts == (1, 1) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    cloud.becomes(restarts, S::Running).await;
    cloud.becomes(lies, S::Stopped).await;
    cloud.power(lies, Power::On).await.expect("accepted");
    cloud.becomes(lies, S::Running).await;
    let crashed = cloud.store.event_of_object(&lies.to_string(), 0, 100).await.expect("readable");
    assert!(crashed.iter().any(|e| e.kind == "instance.crashed"));
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_is_kept_and_a_stranger_sees_nothing() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let instance = cloud.running("web").await;
    let pause = || Change::Reboot(pb::Reboot { hard: false });
    let stale = cloud.try_change(&cloud.context(), instance.id, instance.generation + 1, pause()).await;
    assert_eq!(stale.expect_err("another generation").kind, ErrorKind::PreconditionFailed);
    cloud.try_change(&cloud.context(), instance.id, instance.generation, pause()).await.expect("this generation");
    let request = pb::DeleteInstanceRequest {
        project_id: domain::ProjectId::new().to_string(),
        instance_id: instance.id.to_string(),
        expected_generation: 0,
    };
    let foreign = cloud.client().delete_instance(cloud.context().request(request)).await.expect_err("not theirs");
    assert_eq!(proto::status::from_status(&foreign).kind, ErrorKind::NotFound);
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_that_its_host_or_quota_cannot_hold_changes_nothing() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    let id = cloud.running("web").await.id;
    cloud.power(id, Power::Off).await.expect("accepted");
    let before = cloud.becomes(id, S::Stopped).await;
    let host = cloud.resize(id, Size { vcpus: 17, memory_mib: 256, disk_gib: 3 }).await.expect_err("16 threads");
    assert_eq!((host.kind, host.explain.is_some()), (ErrorKind::NoCapacity, true));
    let mut limit = cloud.used().await;
    limit.disk_gib = 100;
    cloud.limit(limit).await;
    let quota = cloud.resize(id, Size { vcpus: 2, memory_mib: 256, disk_gib: 10 }).await.expect_err("one vCPU");
    assert_eq!(quota.kind, ErrorKind::QuotaExceeded);
    assert!(quota.detail.contains("vcpus: 1 requested, 1 used, limit 1"), "{}", quota.detail);
    // The disk had grown before the refusal: it is put back.
    eventually("the disk has its old size", || async {
        let used = cloud.used().await.disk_gib;
        if used == 2 { Ok(()) } else { Err(format!("{used} GiB used")) }
    })
    .await;
    let after = cloud.fetch(id).await;
    assert_eq!((after.generation, after.spec.size), (before.generation, before.spec.size));
    assert_eq!(sim::invariants::leaks(&cloud.store).await.expect("readable"), Vec::<String>::new());
    cloud.limit(domain::quota::QuotaAmounts { vcpus: 2, ..limit }).await;
    cloud.resize(id, Size { vcpus: 2, memory_mib: 256, disk_gib: 10 }).await.expect("now it fits");
    cloud.becomes(id, S::Stopped).await;
    assert_eq!(hosts[0].disk_gib(id), Some(10));
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_says_so_and_still_gets_there() {
    let mut config = quick();
    (config.deadlines.pending_secs, config.deadlines.building_per_start_secs) = (1, 0);
    let cloud = Cloud::start(config).await;
    let hosts = cloud.hosts(1).await;
    hosts[0].set_deaf(true);
    let id = cloud.create("web").await.id;
    let failed = cloud.becomes(id, S::Error).await;
    assert!(failed.status.reason.contains("not done in time while pending"), "{}", failed.status.reason);
    hosts[0].set_deaf(false);
    hosts[0].cut().await;
    hosts[0].restart();
    cloud.becomes(id, S::Running).await;
    assert_eq!(cloud.world.starts_so_far(), 1, "never a second copy");
    cloud.stop(hosts).await;
}
