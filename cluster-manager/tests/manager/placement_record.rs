//! What was refused, and what was decided of instances that are gone, is kept for a while.

use crate::cloud::{Cloud, each, eventually, quick};
use cluster_manager::Config;
use domain::{
    ErrorKind, InstanceId, PlacementRecordId, Timestamp,
    explain::Rejection,
    flavor::Size,
    instance::InstanceState as S,
    placement::{KeptPlacement, PlacementOutcome},
};
use service_kit::context::CallContext;
use sim::SimConfig;
use store::{PlacementRecordFilter, PlacementRecordInsert, Unit};

async fn kept(cloud: &Cloud, name: &str) -> Vec<KeptPlacement> {
    let filter = PlacementRecordFilter {
        project_id: Some(cloud.project_id),
        instance_name: Some(name.to_owned()),
        limit: 1000,
        ..Default::default()
    };
    cloud.store.placement_record_list(&filter).await.expect("readable")
}

/// Waits until there are as many records of the name, and answers the last.
async fn last_of(cloud: &Cloud, name: &str, count: usize) -> KeptPlacement {
    eventually("the record is kept", async || {
        let mut all = kept(cloud, name).await;
        if all.len() == count { all.pop().ok_or_else(String::new) } else { Err(format!("{} records", all.len())) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_kept_with_their_hosts_and_decisions_outlive_their_instances() {
    for cloud in each(quick()).await {
        let capacity = Size { vcpus: 4, memory_mib: 4096, disk_gib: 20 };
        let host = cloud.host(SimConfig { capacity, ..SimConfig::named("small") }).await;
        let mut large = cloud.spec();
        large.size.vcpus = 6;
        let tried = CallContext { dry_run: true, ..cloud.context() };
        cloud.try_create(&tried, cloud.request(&["big"], &large)).await.expect_err("no capacity");
        let problem =
            cloud.try_create(&cloud.context(), cloud.request(&["big"], &large)).await.expect_err("no capacity");
        assert_eq!(problem.kind, ErrorKind::NoCapacity);
        let refused = last_of(&cloud, "big", 1).await;
        assert_eq!((refused.outcome, problem.explain.as_ref()), (PlacementOutcome::Refused, Some(&refused.record)));
        assert!(refused.record.nearest.as_ref().is_some_and(|n| n.host_id.is_some()), "operators see it whole");
        assert_eq!(refused.record.rejected[0].filter, Rejection::Vcpus);
        assert_eq!(problem.hint.as_deref(), Some(refused.record.hint.as_str()));
        assert!(refused.record.hint.starts_with("would fit with 2 vCPUs less"), "{}", refused.record.hint);

        // The refusal of a whole request is kept under each of its names.
        let mut half = cloud.spec();
        half.size.vcpus = 2;
        let names = ["h-1", "h-2", "h-3"];
        cloud.try_create(&cloud.context(), cloud.request(&names, &half)).await.expect_err("two fit");
        for name in names {
            let record = last_of(&cloud, name, 1).await.record;
            assert!(
                record.summary.starts_with("2 of 3 would fit; for the next, none of 1 hosts"),
                "{}",
                record.summary
            );
        }

        let placed = cloud.create_as("web", &half).await;
        cloud.becomes(placed.id, S::Running).await;
        assert!(kept(&cloud, "web").await.is_empty(), "its row says it");
        let size = Size { vcpus: 6, ..half.size };
        cloud.power(placed.id, domain::instance::Power::Off).await.expect("accepted");
        cloud.becomes(placed.id, S::Stopped).await;
        cloud.resize(placed.id, size).await.expect_err("no capacity");
        let resize = last_of(&cloud, "web", 1).await;
        assert_eq!((resize.instance_id, resize.outcome), (placed.id, PlacementOutcome::Refused));
        let decided = cloud.fetch(placed.id).await.instance.placement.expect("decided");
        cloud.delete(placed.id).await;
        cloud.gone(placed.id).await;
        let ended = last_of(&cloud, "web", 2).await;
        assert_eq!((ended.outcome, &ended.record), (PlacementOutcome::Placed, &decided));
        assert!(ended.kept_at > ended.record.at);
        cloud.stop(vec![host]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_refusals_costs_few_rows_and_one_that_stops_loses_none_that_waits() {
    let cloud = Cloud::start(quick()).await;
    let began = std::time::Instant::now();
    let storm = (0..400).map(|n| {
        let name = format!("s-{}", n % 20);
        let cloud = &cloud;
        async move {
            let request = cloud.request(&[name.as_str()], &cloud.spec());
            cloud.try_create(&cloud.context(), request).await.expect_err("there is no host")
        }
    });
    futures::future::join_all(storm).await;
    let request = cloud.request(&["last"], &cloud.spec());
    cloud.try_create(&cloud.context(), request).await.expect_err("there is no host");
    cloud.ends().await;
    assert_eq!(last_of(&cloud, "last", 1).await.record.hint, "register a host: start its compute-agent");
    // Of each name the last one waits, and the writer pauses between two commits: a storm of any speed costs a few rows a second.
    let (rows, commits) = (kept(&cloud, "s-1").await.len() as u128, began.elapsed().as_millis() / 250 + 2);
    assert!((1..=commits).contains(&rows), "{rows} of 20 refusals are kept, and at most {commits} were written");
    cloud.stop(vec![]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_deleted_by_time_and_past_their_projects_number() {
    let config = Config { placement_records_per_project: 3, placement_records_hours: 1, ..quick() };
    for cloud in each(config).await {
        let hours_ago = |hours: i64| Timestamp(Timestamp::now().0 - hours * 3_600_000);
        let record = |name: &str, kept_at| PlacementRecordInsert {
            id: PlacementRecordId::new(),
            project_id: cloud.project_id,
            instance_id: InstanceId::new(),
            instance_name: name.parse().expect("a name"),
            outcome: PlacementOutcome::Refused,
            record: None,
            kept_at,
        };
        cloud.kill().await;
        let mut unit = Unit::new();
        unit.push(record("old", hours_ago(2)));
        unit.extend((0..5).map(|n| record(&format!("new-{n}"), hours_ago(0))));
        cloud.store.commit(unit).await.expect("committed");
        assert!(cloud.store.placement_record_excess(cloud.project_id, 3).await.expect("readable").is_some());
        cloud.restart().await;
        eventually("the project has its number", async || {
            match cloud.store.placement_record_excess(cloud.project_id, 3).await.expect("readable") {
                None => Ok(()),
                Some(id) => Err(format!("{id} is one too many")),
            }
        })
        .await;
        assert!(cloud.store.placement_record_excess(cloud.project_id, 2).await.expect("readable").is_some());
        cloud.stop(vec![]).await;
    }
}
