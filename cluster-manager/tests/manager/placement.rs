//! Tests of placement constraints and groups, and of what of them outlives a manager.

use crate::cloud::{Cloud, each, quick};
use domain::{
    ErrorKind, HostId, PlacementGroupId, Timestamp,
    explain::Rejection,
    flavor::{Pinning, Size},
    host::NumaFacts,
    instance::{InstanceSpec, InstanceState as S, OnHostLoss, Power},
    placement::{GroupPolicy, GroupScope, GroupStrength, PlacementConstraints},
    quota::QuotaAmounts,
};
use proto::{cluster::v1 as pb, convert::instance_from_pb};
use service_kit::context::CallContext;
use sim::SimConfig;
use store::{IdentityUsageAdd, PlacementGroupInsert, Unit};

async fn group(cloud: &Cloud, name: &str, policy: GroupPolicy, scope: GroupScope) -> PlacementGroupId {
    let id = PlacementGroupId::new();
    let insert = PlacementGroupInsert {
        id,
        project_id: cloud.project_id,
        name: name.parse().expect("a name"),
        policy,
        scope,
        strength: GroupStrength::Hard,
        created_at: Timestamp::now(),
    };
    cloud
        .store
        .commit(Unit::new().op(insert).op(IdentityUsageAdd::placement_groups(cloud.project_id, 1)))
        .await
        .expect("committed");
    id
}

fn constrained(cloud: &Cloud, placement: PlacementConstraints) -> InstanceSpec {
    InstanceSpec { placement, ..cloud.spec() }
}

fn in_group(cloud: &Cloud, id: PlacementGroupId) -> InstanceSpec {
    constrained(cloud, PlacementConstraints { groups: vec![id], ..PlacementConstraints::default() })
}

async fn refused(cloud: &Cloud, name: &str, spec: &InstanceSpec) -> domain::Problem {
    let answer = cloud.insist(&cloud.context(), &cloud.request(&[name], spec)).await;
    let problem = answer.expect_err("refused");
    assert_eq!(problem.kind, ErrorKind::NoCapacity, "{problem}");
    problem
}

async fn hosts_of(cloud: &Cloud, names: &[&str], spec: &InstanceSpec) -> Vec<HostId> {
    let answer = cloud.try_create(&cloud.context(), cloud.request(names, spec)).await.expect("placed");
    let placed = answer.instances.into_iter().map(|i| instance_from_pb(i).expect("well-formed").host_id);
    placed.map(|host| host.expect("a host")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_keep_apart_also_after_a_restart_until_one_is_gone() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(2).await;
        let spec = in_group(&cloud, group(&cloud, "apart", GroupPolicy::AntiAffinity, GroupScope::Host).await);
        let three = cloud.try_create(&cloud.context(), cloud.request(&["x", "y", "z"], &spec)).await;
        let three = three.expect_err("3 of 2");
        assert!(three.detail.starts_with("2 of 3 would fit"), "{}", three.detail);
        let first = cloud.create_as("a", &spec).await;
        let second = cloud.create_as("b", &spec).await;
        assert_ne!(first.host_id, second.host_id);
        let counted = |problem: domain::Problem| {
            let explain = problem.explain.expect("explained");
            explain.rejected.iter().map(|r| (r.filter, r.hosts)).collect::<Vec<_>>()
        };
        assert_eq!(counted(refused(&cloud, "c", &spec).await), [(Rejection::Group, 2)]);
        cloud.restart().await;
        for host in &hosts {
            host.connected().await;
        }
        assert_eq!(counted(refused(&cloud, "c", &spec).await), [(Rejection::Group, 2)], "the rows say it");
        cloud.delete(first.id).await;
        cloud.gone(first.id).await;
        assert_eq!(cloud.create_as("c", &spec).await.host_id, first.host_id);
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_keep_together_and_the_group_may_go_elsewhere_when_all_are_gone() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(3).await;
        let id = group(&cloud, "together", GroupPolicy::Affinity, GroupScope::Host).await;
        let spec = in_group(&cloud, id);
        let three = hosts_of(&cloud, &["a", "b", "c"], &spec).await;
        assert!(three.iter().all(|host| *host == three[0]), "{three:?}");
        cloud.cordon(three[0], true).await;
        refused(&cloud, "d", &spec).await;
        for row in cloud.store.placement_group_members(id, 10).await.expect("readable") {
            cloud.delete(row).await;
            cloud.gone(row).await;
        }
        assert_ne!(hosts_of(&cloud, &["d"], &spec).await[0], three[0]);
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_racks_dedication_and_drain_are_the_operators() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(3).await;
    let ids: Vec<HostId> = cloud.store.host_list().await.expect("readable").iter().map(|h| h.id).collect();
    let change = async |host_id: HostId, change: pb::ChangeHostRequest| {
        let request = pb::ChangeHostRequest { host_id: host_id.to_string(), ..change };
        cloud.change_host(request).await.expect("accepted");
    };
    let tagged = |rack: &str| pb::ChangeHostRequest {
        replace_tags: true,
        tags: [("rack".to_owned(), rack.to_owned())].into(),
        ..Default::default()
    };
    change(ids[0], tagged("one")).await;
    change(ids[1], tagged("one")).await;
    change(ids[2], tagged("two")).await;
    let racks = in_group(&cloud, group(&cloud, "racks", GroupPolicy::AntiAffinity, GroupScope::Rack).await);
    let mut two = hosts_of(&cloud, &["r-1", "r-2"], &racks).await;
    two.sort_by_key(|id| *id == ids[2]);
    assert_eq!(two[1], ids[2]);
    refused(&cloud, "r-3", &racks).await;

    let rack = |rack: &str| [("rack".to_owned(), rack.to_owned())].into();
    let must =
        constrained(&cloud, PlacementConstraints { required_tags: rack("two"), ..PlacementConstraints::default() });
    assert_eq!(hosts_of(&cloud, &["m-1"], &must).await, [ids[2]]);
    let must_not =
        constrained(&cloud, PlacementConstraints { forbidden_tags: rack("one"), ..PlacementConstraints::default() });
    assert_eq!(hosts_of(&cloud, &["m-2"], &must_not).await, [ids[2]]);
    let absent = PlacementConstraints { cpu_features: vec!["amx".to_owned()], ..PlacementConstraints::default() };
    let problem = refused(&cloud, "m-3", &constrained(&cloud, absent)).await;
    assert_eq!(problem.explain.expect("explained").rejected[0].filter, Rejection::CpuFeatures);

    let alone = constrained(&cloud, PlacementConstraints { dedicated: true, ..PlacementConstraints::default() });
    let problem = refused(&cloud, "d-1", &alone).await;
    assert_eq!(problem.explain.expect("explained").rejected[0].filter, Rejection::Dedicated);
    let mine = Some(cloud.project_id.to_string());
    change(ids[1], pb::ChangeHostRequest { dedicated_to: mine, ..Default::default() }).await;
    assert_eq!(hosts_of(&cloud, &["d-1"], &alone).await, [ids[1]]);
    let other = Some(domain::ProjectId::new().to_string());
    for id in &ids {
        change(*id, pb::ChangeHostRequest { dedicated_to: other.clone(), ..Default::default() }).await;
    }
    let problem = refused(&cloud, "d-2", &cloud.spec()).await;
    assert_eq!(problem.explain.expect("explained").rejected[0].filter, Rejection::Dedicated);

    let open = pb::ChangeHostRequest { dedicated_to: Some(String::new()), ..Default::default() };
    change(ids[0], open).await;
    hosts_of(&cloud, &["e-1"], &cloud.spec()).await;
    change(ids[0], pb::ChangeHostRequest { draining: Some(true), ..Default::default() }).await;
    refused(&cloud, "e-2", &cloud.spec()).await;
    let row = cloud.store.host_find(ids[0]).await.expect("readable").expect("there");
    assert_eq!((row.draining, row.cordoned, row.dedicated_to), (true, false, None));
    // What the operator decided outlives the manager.
    cloud.restart().await;
    for host in &hosts {
        host.connected().await;
    }
    refused(&cloud, "e-2", &cloud.spec()).await;
    change(ids[0], pb::ChangeHostRequest { draining: Some(false), ..Default::default() }).await;
    hosts_of(&cloud, &["e-2"], &cloud.spec()).await;
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn preemptible_instances_give_way_lowest_class_first_but_not_to_who_lacks_the_quota() {
    for cloud in each(quick()).await {
        let capacity = Size { vcpus: 4, memory_mib: 4096, disk_gib: 20 };
        let host = cloud.host(SimConfig { capacity, ..SimConfig::named("small") }).await;
        let class =
            |class| constrained(&cloud, PlacementConstraints { preemptible_class: Some(class), ..Default::default() });
        let (mut ids, mut kept) = (Vec::new(), Vec::new());
        for (name, constraints) in [("c-1", class(1)), ("c-2", class(2)), ("c-1b", class(1)), ("kept", cloud.spec())] {
            let id = cloud.create_as(name, &constraints).await.id;
            cloud.becomes(id, S::Running).await;
            if name.starts_with("c-1") { ids.push(id) } else { kept.push(id) }
        }
        // It is as low as the lowest: nobody is preempted for it.
        let same = refused(&cloud, "same", &class(1)).await;
        assert!(!same.hint.expect("a hint").contains("capacity is being freed"));
        let mut large = cloud.spec();
        large.size.vcpus = 2;
        let before = cloud.used().await;
        cloud.limit(QuotaAmounts { vcpus: before.vcpus + 1, ..QuotaAmounts::DEFAULT_LIMIT }).await;
        let poor = cloud.try_create(&cloud.context(), cloud.request(&["large"], &large)).await.expect_err("no quota");
        assert_eq!(poor.kind, ErrorKind::QuotaExceeded);
        cloud.limit(QuotaAmounts::DEFAULT_LIMIT).await;
        let tried = CallContext { dry_run: true, ..cloud.context() };
        cloud.try_create(&tried, cloud.request(&["large"], &large)).await.expect_err("a dry run ends nobody");
        for id in ids.iter().chain(&kept) {
            cloud.becomes(*id, S::Running).await;
        }
        // It is created again under its id by a caller that doesn't know of it: that is refused, and memory knows it as before.
        let mut again = cloud.request(&["c-1"], &class(1));
        again.instances[0].id = ids[0].to_string();
        let again = cloud.try_create(&cloud.context(), again).await.expect_err("it is there");
        assert_eq!(again.kind, ErrorKind::AlreadyExists, "{again}");
        let making = refused(&cloud, "large", &large).await;
        assert!(
            making.hint.as_ref().is_some_and(|h| h.contains("2 preemptible instance(s) will be stopped")),
            "{making:?}"
        );
        for id in ids {
            cloud.gone(id).await;
        }
        let placed = cloud.create_as("large", &large).await;
        cloud.becomes(placed.id, S::Running).await;
        for id in kept {
            cloud.becomes(id, S::Running).await;
        }
        cloud.stop(vec![host]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_instance_grows_as_far_as_another_host_could_restart_it() {
    let cloud = Cloud::start(quick()).await;
    let capacity = Size { vcpus: 4, memory_mib: 4096, disk_gib: 40 };
    let mut hosts = Vec::new();
    for name in ["one", "two"] {
        hosts.push(cloud.host(SimConfig { capacity, ..SimConfig::named(name) }).await);
    }
    // It runs from memory: a local disk would not outlive its host.
    let mut protected = InstanceSpec { on_host_loss: OnHostLoss::Restart, ..cloud.spec() };
    (protected.size.disk_gib, protected.image_id) = (0, cloud.kernel_id);
    let instance = cloud.create_as("kept", &protected).await;
    cloud.becomes(instance.id, S::Running).await;
    cloud.power(instance.id, Power::Off).await.expect("accepted");
    cloud.becomes(instance.id, S::Stopped).await;
    let primary = instance.host_id.expect("placed");
    // It takes two of the backup's four vCPUs.
    cloud.cordon(primary, true).await;
    let mut other = cloud.spec();
    other.size.vcpus = 2;
    let other = cloud.create_as("other", &other).await;
    assert_ne!(other.host_id, Some(primary));
    cloud.cordon(primary, false).await;

    let of = |vcpus| Size { vcpus, ..protected.size };
    let problem = cloud.resize(instance.id, of(3)).await.expect_err("the backup has two");
    assert_eq!((problem.kind, problem.code.as_str()), (ErrorKind::NoCapacity, "no_capacity"), "{problem}");
    assert!(problem.hint.as_ref().is_some_and(|h| h.contains("choose a smaller size")), "{problem:?}");
    let explain = problem.explain.expect("explained");
    assert_eq!(explain.rejected.iter().map(|r| r.filter).collect::<Vec<_>>(), [Rejection::Reserve]);
    cloud.resize(instance.id, of(2)).await.expect("the backup has two");
    cloud.becomes(instance.id, S::Stopped).await;
    // What the backup keeps is nobody else's, and comes free with a smaller size.
    cloud.cordon(primary, true).await;
    refused(&cloud, "last", &cloud.spec()).await;
    cloud.resize(instance.id, of(1)).await.expect("smaller");
    cloud.becomes(instance.id, S::Stopped).await;
    cloud.cordon(primary, false).await;
    // On a host of its own project it grows as well.
    let dedicated_to = Some(cloud.project_id.to_string());
    let mine = pb::ChangeHostRequest { host_id: primary.to_string(), dedicated_to, ..Default::default() };
    cloud.change_host(mine).await.expect("accepted");
    cloud.resize(instance.id, of(2)).await.expect("its own");
    cloud.becomes(instance.id, S::Stopped).await;
    cloud.resize(instance.id, of(1)).await.expect("smaller");
    cloud.cordon(primary, true).await;
    cloud.create_as("last", &cloud.spec()).await;
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_manager_decided_of_a_host_is_heeded() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(1).await;
        let gpu = || std::collections::BTreeMap::from([("gpu".to_owned(), "a100".to_owned())]);
        let host = cloud.store.host_list().await.expect("readable").remove(0);
        let tagged = pb::ChangeHostRequest {
            host_id: host.id.to_string(),
            replace_tags: true,
            tags: gpu().into_iter().collect(),
            ..Default::default()
        };
        cloud.change_host(tagged).await.expect("accepted");
        let must =
            constrained(&cloud, PlacementConstraints { required_tags: gpu(), ..PlacementConstraints::default() });
        hosts_of(&cloud, &["before"], &must).await;
        // These changes pass by this manager's memory.
        let decide = async |dedicated_to| {
            let row = cloud.store.host_find(host.id).await.expect("readable").expect("there");
            let change = store::HostChange {
                id: row.id,
                expected_generation: row.generation,
                cordoned: row.cordoned,
                cordon_reason: row.cordon_reason,
                draining: row.draining,
                dedicated_to,
                zone: row.zone,
                tags: Default::default(),
                cpu_overcommit_permille: row.cpu_overcommit_permille,
                memory_overcommit_permille: row.memory_overcommit_permille,
                disk_overcommit_permille: row.disk_overcommit_permille,
                reserved_vcpus: row.reserved.vcpus,
                reserved_memory_mib: row.reserved.memory_mib,
                reserved_disk_gib: row.reserved.disk_gib,
                accept_capacity: false,
            };
            cloud.store.commit(Unit::new().op(change)).await.expect("committed");
        };
        let filter = |problem: domain::Problem| problem.explain.expect("explained").rejected[0].filter;
        decide(None).await;
        assert_eq!(filter(refused(&cloud, "tagged", &must).await), Rejection::Tags);
        hosts_of(&cloud, &["plain"], &cloud.spec()).await;
        decide(Some(domain::ProjectId::new())).await;
        assert_eq!(filter(refused(&cloud, "closed", &cloud.spec()).await), Rejection::Dedicated);
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_instances_hold_threads_of_their_node_also_after_a_restart_and_through_a_resize() {
    for cloud in each(quick()).await {
        let node = |id| NumaFacts { id, threads: 4, memory_mib: 8 * 1024 };
        let mut config = SimConfig::named("host-1");
        // Two vCPUs a thread; a pinned one takes both.
        config.cpu_overcommit_permille = 2000;
        config.facts.numa = vec![node(0), node(5)];
        let host = cloud.host(config).await;
        let size = |vcpus| Size { vcpus, ..cloud.spec().size };
        let pinned = |vcpus| {
            let constraints = PlacementConstraints { pinning: Pinning::Numa, ..PlacementConstraints::default() };
            InstanceSpec { size: size(vcpus), ..constrained(&cloud, constraints) }
        };
        let made = async |name: &'static str, vcpus| {
            let request = cloud.request(&[name], &pinned(vcpus));
            cloud.insist(&cloud.context(), &request).await
        };
        let filter = |problem: domain::Problem| problem.explain.expect("explained").rejected[0].filter;
        assert_eq!(filter(refused(&cloud, "wide", &pinned(5)).await), Rejection::Pinning, "no node has five");
        let three = made("three", 3).await.expect("placed").instances.remove(0);
        let three = instance_from_pb(three).expect("well-formed");
        assert_eq!((three.binding.numa_node, cloud.fetch(three.id).await.claim.vcpus), (Some(0), 6));
        cloud.becomes(three.id, S::Running).await;
        cloud.restart().await;
        host.connected().await;
        // One thread is left on node 0, four on node 5.
        let two = instance_from_pb(made("two", 2).await.expect("placed").instances.remove(0)).expect("well-formed");
        assert_eq!(two.binding.numa_node, Some(5));
        cloud.becomes(two.id, S::Running).await;
        cloud.power(two.id, Power::Off).await.expect("accepted");
        cloud.becomes(two.id, S::Stopped).await;
        let beyond = cloud.resize(two.id, size(5)).await.expect_err("its node has four");
        assert_eq!(filter(beyond), Rejection::Pinning);
        cloud.resize(two.id, size(4)).await.expect("it has four");
        assert_eq!(cloud.fetch(two.id).await.claim.vcpus, 8);
        cloud.becomes(two.id, S::Stopped).await;
        assert_eq!(filter(refused(&cloud, "more", &pinned(2)).await), Rejection::Pinning);
        made("one", 1).await.expect("the last thread of node 0");
        cloud.delete(three.id).await;
        cloud.gone(three.id).await;
        made("again", 3).await.expect("its threads are free again");
        cloud.stop(vec![host]).await;
    }
}
