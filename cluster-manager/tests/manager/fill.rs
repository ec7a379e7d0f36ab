//! Creates of as many as fit: what has a place is created, and the rest costs nothing.

use crate::cloud::{Cloud, each, quick};
use domain::{ErrorKind, explain::PlacementRecord, flavor::Size, quota::QuotaAmounts};
use proto::cluster::v1 as pb;
use service_kit::context::CallContext;
use sim::SimConfig;

const NAMES: [&str; 6] = ["w-1", "w-2", "w-3", "w-4", "w-5", "w-6"];

fn as_many(cloud: &Cloud, names: &[&str], spec: &domain::instance::InstanceSpec) -> pb::CreateInstancesRequest {
    pb::CreateInstancesRequest { fill: pb::Fill::AsManyAsFit.into(), ..cloud.request(names, spec) }
}

fn names(answer: &pb::CreateInstancesResponse) -> Vec<&str> {
    answer.instances.iter().map(|i| i.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_place_is_made_and_only_that_is_counted() {
    for cloud in each(quick()).await {
        let capacity = Size { vcpus: 4, memory_mib: 4096, disk_gib: 20 };
        let host = cloud.host(SimConfig { capacity, ..SimConfig::named("small") }).await;
        let spec = cloud.spec();
        // The quota is for four and no more: what isn't created takes no quota.
        let four =
            QuotaAmounts { instances: 4, vcpus: 4, memory_mib: 1024, disk_gib: 8, ..QuotaAmounts::DEFAULT_LIMIT };
        cloud.limit(four).await;
        let dry = CallContext { dry_run: true, ..cloud.context() };
        let plan = cloud.try_create(&dry, as_many(&cloud, &NAMES, &spec)).await.expect("four would be made");
        assert_eq!(plan.not_made.as_ref().map(|n| n.names.len()), Some(2));
        let plan = plan.plan.expect("a plan");
        assert_eq!((plan.instances_left, plan.touches.len()), (0, 4));
        let summary = plan.summary.as_str();
        assert!(summary.starts_with("4 instance(s) would be created: "), "{summary}");
        assert!(summary.contains("; not the others: 4 of 6 would fit; for the next, none of 1 hosts"), "{summary}");

        let (context, request) = (cloud.context(), as_many(&cloud, &NAMES, &spec));
        let made = cloud.try_create(&context, request.clone()).await.expect("four are made");
        assert_eq!(names(&made), NAMES[..4]);
        let not_made = made.not_made.clone().expect("two aren't");
        assert_eq!(not_made.names, NAMES[4..]);
        let why: PlacementRecord = serde_json::from_str(&not_made.placement_json).expect("a record");
        assert!(why.hint.starts_with("the nearest host lacks 1 vCPU"), "{}", why.hint);
        assert_eq!((cloud.used().await.instances, cloud.used().await.disk_gib), (4, 8));
        let disks = cloud.store.disk_list(cloud.project_id, store::Page::first(100)).await.expect("readable");
        assert_eq!(disks.len(), 4, "nothing is reserved for the others");
        // A repeat is the same, however much capacity there is by then.
        cloud.limit(QuotaAmounts::DEFAULT_LIMIT).await;
        let more = cloud.host(SimConfig::named("more")).await;
        let again = cloud.try_create(&context, request).await.expect("the first answer");
        assert_eq!(again, made);
        let rows = cloud.store.host_list().await.expect("readable");
        cloud.cordon(rows.iter().find(|row| row.name == "more").expect("there").id, true).await;

        // None fits: that is a refusal like any other, under each name.
        let large = domain::instance::InstanceSpec { size: Size { vcpus: 4, ..spec.size }, ..spec.clone() };
        let tried = as_many(&cloud, &["l-1", "l-2"], &large);
        let refused = cloud.insist(&cloud.context(), &tried).await.expect_err("no capacity");
        assert_eq!(refused.kind, ErrorKind::NoCapacity, "{refused}");
        assert!(refused.detail.starts_with("0 of 2 would fit"), "{}", refused.detail);
        // All fit: no others are named.
        for instance in &made.instances {
            let id = instance.id.parse().expect("an id");
            cloud.delete(id).await;
            cloud.gone(id).await;
        }
        let all = cloud.try_create(&cloud.context(), as_many(&cloud, &["a-1", "a-2"], &spec)).await.expect("both fit");
        assert_eq!((names(&all), all.not_made.is_none()), (vec!["a-1", "a-2"], true));
        let mut unknown = as_many(&cloud, &["b-1"], &spec);
        unknown.fill = 9;
        let wrong = cloud.try_create(&cloud.context(), unknown).await.expect_err("no such fill");
        assert_eq!(wrong.kind, ErrorKind::InvalidArgument);
        cloud.stop(vec![host, more]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_never_share_a_place_and_what_lost_its_place_is_released() {
    for cloud in each(quick()).await {
        let hosts = cloud.hosts(2).await;
        let spec = cloud.spec();
        let most: u32 = cloud.store.host_list().await.expect("readable").iter().map(|h| h.capacity.vcpus).sum();
        let creates = (0..8).map(|batch| {
            let names: Vec<String> = (0..20).map(|n| format!("b{batch}-{n}")).collect();
            let cloud = &cloud;
            let spec = &spec;
            async move {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let answer = cloud.insist(&cloud.context(), &as_many(cloud, &names, spec)).await;
                match answer {
                    Ok(answer) => {
                        let left = answer.not_made.map_or(0, |n| n.names.len());
                        assert_eq!(answer.instances.len() + left, 20);
                        answer.instances.len()
                    }
                    Err(refused) => {
                        assert_eq!(refused.kind, ErrorKind::NoCapacity, "{refused}");
                        0
                    }
                }
            }
        });
        let made: usize = futures::future::join_all(creates).await.into_iter().sum();
        assert!(made <= most as usize, "{made} of {most}");
        assert_eq!(cloud.used().await.instances, made as i64);
        let disks = cloud.store.disk_list(cloud.project_id, store::Page::first(1000)).await.expect("readable");
        assert_eq!(disks.len(), made);
        cloud.converges(&hosts).await;
        cloud.stop(hosts).await;
    }
}
