//! Tests of capacity that preemption frees: it is held for the request that it was freed for.

use crate::cloud::{Cloud, each, eventually, quick};
use cluster_manager::Config;
use domain::{
    ErrorKind, InstanceId, Problem,
    flavor::Size,
    instance::{InstanceSpec, InstanceState as S},
    placement::PlacementConstraints,
    quota::QuotaAmounts,
};
use sim::{SimConfig, SimHost};

fn class(cloud: &Cloud, class: u8) -> InstanceSpec {
    let placement = PlacementConstraints { preemptible_class: Some(class), ..Default::default() };
    InstanceSpec { placement, ..cloud.spec() }
}

fn of_vcpus(cloud: &Cloud, vcpus: u32) -> InstanceSpec {
    let mut spec = cloud.spec();
    spec.size.vcpus = vcpus;
    spec
}

/// One host of 4 threads, full of four preemptible instances.
async fn full(cloud: &Cloud) -> (SimHost, Vec<InstanceId>) {
    let capacity = Size { vcpus: 4, memory_mib: 4096, disk_gib: 20 };
    let host = cloud.host(SimConfig { capacity, ..SimConfig::named("small") }).await;
    let mut ids = Vec::new();
    for n in 1..=4 {
        let id = cloud.create_as(&format!("cheap-{n}"), &class(cloud, 1)).await.id;
        cloud.becomes(id, S::Running).await;
        ids.push(id);
    }
    (host, ids)
}

async fn refused(cloud: &Cloud, names: &[&str], spec: &InstanceSpec) -> Problem {
    let problem = cloud.insist(&cloud.context(), &cloud.request(names, spec)).await.expect_err("refused");
    assert_eq!(problem.kind, ErrorKind::NoCapacity, "{problem}");
    problem
}

/// Waits until so many are left.
async fn left(cloud: &Cloud, ids: &[InstanceId], count: usize) {
    eventually("they are preempted", async || {
        let there = cloud.store.instance_load_many(ids).await.expect("readable").len();
        if there == count { Ok(()) } else { Err(format!("{there} are there")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_freed_goes_to_who_it_was_made_for() {
    for cloud in each(quick()).await {
        let (host, cheap) = full(&cloud).await;
        let large = of_vcpus(&cloud, 2);
        let making = refused(&cloud, &["large"], &large).await;
        let hint = making.hint.expect("a hint");
        assert!(
            hint.contains("held for this request: 2 preemptible instance(s) will be stopped within 30 s"),
            "{hint}"
        );
        assert_eq!(making.retry_after_secs, Some(30));
        // A repeat preempts no others.
        let again = refused(&cloud, &["large"], &large).await.hint.expect("a hint");
        assert!(!again.contains("preemptible instance(s)") || again.starts_with("capacity is still"), "{again}");
        left(&cloud, &cheap, 2).await;
        // Others don't get it, whoever requests it.
        refused(&cloud, &["thief"], &class(&cloud, 1)).await;
        let placed = cloud.create_as("large", &large).await;
        cloud.becomes(placed.id, S::Running).await;
        left(&cloud, &cheap, 2).await;
        // The hold was released.
        refused(&cloud, &["thief"], &class(&cloud, 1)).await;
        cloud.delete(placed.id).await;
        cloud.gone(placed.id).await;
        cloud.create_as("late", &class(&cloud, 1)).await;
        cloud.converges(std::slice::from_ref(&host)).await;
        cloud.stop(vec![host]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_preempted_unless_all_would_have_a_place_and_the_quota_allows_it_together() {
    let cloud = Cloud::start(quick()).await;
    let (host, cheap) = full(&cloud).await;
    let two = of_vcpus(&cloud, 2);
    let never = refused(&cloud, &["a-1", "a-2", "a-3"], &two).await;
    assert!(!never.hint.as_ref().is_some_and(|hint| hint.contains("capacity is")), "{never:?}");
    assert_eq!(never.retry_after_secs, None);
    // What is held counts: 4 are used (nobody can go now), 2 are held, 7 are allowed.
    host.set_deaf(true);
    cloud.limit(QuotaAmounts { vcpus: 7, ..QuotaAmounts::DEFAULT_LIMIT }).await;
    assert!(
        refused(&cloud, &["b"], &two)
            .await
            .hint
            .is_some_and(|hint| hint.contains("capacity is being freed and is held for this request: 2"))
    );
    let poor = cloud.try_create(&cloud.context(), cloud.request(&["c"], &two)).await.expect_err("over the quota");
    assert_eq!(poor.kind, ErrorKind::QuotaExceeded, "{poor}");
    cloud.limit(QuotaAmounts::DEFAULT_LIMIT).await;
    host.set_deaf(false);
    host.cut().await;
    host.restart();
    host.connected().await;
    left(&cloud, &cheap, 2).await;
    // Capacity is freed for all of a request at once.
    let both = refused(&cloud, &["b", "b-2"], &two).await.hint.expect("a hint");
    assert!(both.contains("2 preemptible instance(s) will be stopped"), "{both}");
    left(&cloud, &cheap, 0).await;
    refused(&cloud, &["thief"], &class(&cloud, 1)).await;
    let made =
        cloud.try_create(&cloud.context(), cloud.request(&["b", "b-2"], &two)).await.expect("the capacity is theirs");
    assert_eq!(made.instances.len(), 2);
    cloud.converges(std::slice::from_ref(&host)).await;
    cloud.stop(vec![host]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_waits_keeps_nobody_from_capacity_that_is_free() {
    let cloud = Cloud::start(quick()).await;
    let (host, cheap) = full(&cloud).await;
    let large = of_vcpus(&cloud, 2);
    refused(&cloud, &["first"], &large).await;
    left(&cloud, &cheap, 2).await;
    // The others can't be stopped now.
    host.set_deaf(true);
    let second = refused(&cloud, &["second"], &large).await.hint.expect("a hint");
    assert!(second.contains("2 preemptible instance(s) will be stopped"), "{second}");
    let first = cloud.create_as("first", &large).await;
    refused(&cloud, &["second"], &large).await;
    host.set_deaf(false);
    host.cut().await;
    host.restart();
    host.connected().await;
    cloud.becomes(first.id, S::Running).await;
    left(&cloud, &cheap, 0).await;
    let second = cloud.create_as("second", &large).await;
    cloud.becomes(second.id, S::Running).await;
    cloud.converges(std::slice::from_ref(&host)).await;
    cloud.stop(vec![host]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preemption_goes_on_after_its_manager_was_killed() {
    for cloud in each(quick()).await {
        let (host, cheap) = full(&cloud).await;
        host.set_deaf(true);
        refused(&cloud, &["large"], &of_vcpus(&cloud, 2)).await;
        eventually("two are to stop", async || {
            let rows = cloud.store.instance_load_many(&cheap).await.expect("readable");
            let stopping = rows.iter().filter(|row| row.spec.power == domain::instance::Power::Off).count();
            if stopping == 2 { Ok(()) } else { Err(format!("{stopping} are")) }
        })
        .await;
        cloud.restart().await;
        host.set_deaf(false);
        host.cut().await;
        host.restart();
        // Nobody requests the capacity again: who was stopped for it is deleted all the same.
        left(&cloud, &cheap, 2).await;
        eventually("nothing is left to do", async || {
            let todo = cloud.store.instance_todo_list(store::InstanceTodo::Preempt, None, 9).await.expect("readable");
            if todo.is_empty() { Ok(()) } else { Err(format!("{todo:?}")) }
        })
        .await;
        cloud.converges(std::slice::from_ref(&host)).await;
        cloud.stop(vec![host]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_ends_at_its_deadline_and_with_the_manager() {
    let config = Config { preemption_notice_secs: 1, preemption_hold_secs: 2, ..quick() };
    for cloud in each(config).await {
        let (host, cheap) = full(&cloud).await;
        refused(&cloud, &["large"], &of_vcpus(&cloud, 2)).await;
        left(&cloud, &cheap, 2).await;
        // Nobody requests it again.
        eventually("the hold ends", async || {
            let answer = cloud.insist(&cloud.context(), &cloud.request(&["late"], &class(&cloud, 1))).await;
            answer.map(drop).map_err(|problem| problem.to_string())
        })
        .await;
        refused(&cloud, &["large"], &of_vcpus(&cloud, 4)).await;
        left(&cloud, &cheap, 0).await;
        cloud.restart().await;
        host.connected().await;
        let other = of_vcpus(&cloud, 4);
        eventually("a manager that restarted holds nothing", async || {
            let answer = cloud.insist(&cloud.context(), &cloud.request(&["other"], &other)).await;
            answer.map(drop).map_err(|problem| problem.to_string())
        })
        .await;
        cloud.converges(std::slice::from_ref(&host)).await;
        cloud.stop(vec![host]).await;
    }
}
