//! A manager that dies in the middle.

use crate::{
    cloud::{Cloud, each, eventually, quick},
    storage_proxy::{Failure, Method},
};
use domain::{
    flavor::Size,
    instance::{InstanceState as S, Power},
};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_creates_survive_a_kill_in_their_middle() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(4).await;
        let requests: Vec<_> =
            (0..50).map(|n| (cloud.context(), cloud.request(&[&format!("i{n}")], &cloud.spec()))).collect();
        let calls = async {
            let calls = requests.iter().map(|(context, request)| cloud.insist(context, request));
            futures::future::join_all(calls).await
        };
        let death = async {
            eventually("some are committed, not all", || async {
                let rows = cloud.used().await.instances;
                if rows > 0 { Ok(()) } else { Err(format!("{rows} rows")) }
            })
            .await;
            cloud.restart().await;
        };
        let (answers, ()) = tokio::join!(calls, death);
        // A client that repeats its request gets every instance, once.
        let mut ids: Vec<domain::InstanceId> =
            answers.iter().map(|a| a.as_ref().expect("answered").instances[0].id.parse().expect("an id")).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), cloud.used().await.instances), (50, 50));
        for id in &ids {
            cloud.becomes(*id, S::Running).await;
        }
        cloud.converges(&hosts).await;
        assert_eq!(sim::invariants::leaks(&cloud.store).await.expect("readable"), Vec::<String>::new());
        assert_eq!(cloud.world.starts_so_far(), 50, "none was started twice");
        futures::future::join_all(ids.iter().map(|id| cloud.delete(*id))).await;
        cloud.restart().await;
        for host in &hosts {
            host.connected().await;
        }
        cloud.leaves_nothing().await;
        cloud.stop(hosts).await;
    }
}

/// Creates, resizes and deletes an instance while one call to the storage-manager fails in one way.
async fn life_with(cloud: &Cloud, hosts: &[sim::SimHost], method: Method, failure: Failure, name: &str) {
    let (create, request) = (cloud.context(), cloud.request(&[name], &cloud.spec()));
    cloud.storage_plan.fail_once(method, failure);
    let life = async {
        let answer = cloud.insist(&create, &request).await.expect("created");
        let id = answer.instances[0].id.parse().expect("an id");
        cloud.becomes(id, S::Running).await;
        eventually("it is stopped", || async { cloud.power(id, Power::Off).await.map_err(|p| p.detail) }).await;
        cloud.becomes(id, S::Stopped).await;
        let larger = Size { vcpus: 1, memory_mib: 256, disk_gib: 3 };
        eventually("it is resized", || async { cloud.resize(id, larger).await.map_err(|p| p.detail) }).await;
        cloud.becomes(id, S::Stopped).await;
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
    // Disks are removed after their instance's row is gone.
    eventually("the failure happened", async || {
        if cloud.storage_plan.used_up() { Ok(()) } else { Err(format!("{method:?} {failure:?} never happened")) }
    })
    .await;
    cloud.leaves_nothing().await;
    assert!(hosts.iter().all(|h| h.machines().is_empty()));
    assert_eq!(cloud.world.violations(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_towards_storage_may_fail_lose_its_answer_or_be_the_last_thing_done() {
    let cloud = Cloud::start(quick()).await;
    let hosts = cloud.hosts(1).await;
    for (n, method) in Method::STORAGE.into_iter().enumerate() {
        for (m, failure) in Failure::ALL.into_iter().enumerate() {
            life_with(&cloud, &hosts, method, failure, &format!("i{n}-{m}")).await;
        }
    }
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_expired_before_its_confirmation_is_made_anew() {
    let mut config = quick();
    config.reservation_ttl_secs = 1;
    let cloud = Cloud::start(config).await;
    let hosts = cloud.hosts(1).await;
    cloud.storage_plan.fail_once(Method::Confirm, Failure::CallerDies);
    // It was confirmed although the caller died, so its reservation is removed by hand.
    let instance = cloud.create("web").await;
    cloud.dies().await;
    let disk = cloud.store.disk_find(instance.root_disk_id.expect("a disk")).await.expect("readable").expect("there");
    let unit = store::Unit::new()
        .op(store::DiskDelete { id: disk.id, expected_state: disk.state, expected_generation: disk.generation })
        .op(store::StorageUsageAdd::disk(cloud.project_id, -2));
    cloud.store.commit(unit).await.expect("removed");
    cloud.restart().await;
    cloud.becomes(instance.id, S::Running).await;
    assert_eq!(cloud.used().await.disk_gib, 2);
    cloud.stop(hosts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_cluster_manager_refuses_to_serve_and_names_the_first() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(1).await;
        // On PostgreSQL it waits to lead.
        if cloud.on_postgres() {
            cloud.stop(hosts).await;
            continue;
        }
        let error = cloud.second_process().await;
        let text = format!("{error:#}");
        let pid = std::process::id().to_string();
        assert!(text.contains("another cluster-manager serves this database") && text.contains(&pid), "{text}");
        cloud.running("web").await;
        // The one that was killed holds it no longer.
        cloud.restart().await;
        let request = cloud.request(&["db"], &cloud.spec());
        let made = cloud.insist(&cloud.context(), &request).await.expect("created");
        cloud.becomes(made.instances[0].id.parse().expect("an id"), S::Running).await;
        cloud.stop(hosts).await;
    }
}
