//! What a request names may be gone before its commit, and what an instance was made of before its deletion: neither may leave something
//! behind that can't go.

use crate::{
    cloud::{Cloud, each, restless},
    storage_proxy::Method,
};
use domain::{
    PlacementGroupId, Timestamp,
    instance::InstanceState as S,
    placement::{GroupPolicy, GroupScope, GroupStrength},
};
use store::{IdentityUsageAdd, ImageDelete, PlacementGroupDelete, PlacementGroupInsert, StorageUsageAdd, Unit};

/// The end of the image that instances are made of, with what it takes of the quota.
fn image_removal(cloud: &Cloud) -> Unit {
    let usage = StorageUsageAdd::image(cloud.project_id, -1, -1);
    Unit::new().op(ImageDelete { id: cloud.image_id, reserved_gib: 0 }).op(usage)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_while_an_instance_of_it_is_made_refuses_the_instance() {
    for cloud in each(restless()).await {
        let hosts = cloud.hosts(1).await;
        let group_id = PlacementGroupId::new();
        let group = PlacementGroupInsert {
            id: group_id,
            project_id: cloud.project_id,
            name: "apart".parse().expect("a name"),
            policy: GroupPolicy::AntiAffinity,
            scope: GroupScope::Host,
            strength: GroupStrength::Hard,
            created_at: Timestamp::now(),
        };
        let group = Unit::new().op(group).op(IdentityUsageAdd::placement_groups(cloud.project_id, 1));
        cloud.store.commit(group).await.expect("a group");
        let in_group = {
            let mut spec = cloud.spec();
            spec.placement.groups = vec![group_id];
            spec
        };
        let removals = [
            (image_removal(&cloud), cloud.spec(), "image_not_found"),
            (
                Unit::new()
                    .op(PlacementGroupDelete { id: group_id })
                    .op(IdentityUsageAdd::placement_groups(cloud.project_id, -1)),
                in_group,
                "placement_group_not_found",
            ),
        ];
        for (removal, spec, code) in removals.into_iter().rev() {
            let store = cloud.store.clone();
            cloud.storage_plan.meanwhile(Method::Reserve, async move { store.commit(removal).await.expect("it goes") });
            let refused = cloud.try_create(&cloud.context(), cloud.request(&["late"], &spec)).await;
            assert_eq!(refused.expect_err("refused").code, code);
            assert!(cloud.store.instance_find_by_name(cloud.project_id, "late").await.expect("readable").is_none());
        }
        cloud.leaves_nothing().await;
        cloud.stop(hosts).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_being_deleted_needs_its_image_no_longer() {
    for cloud in each(restless()).await {
        let hosts = cloud.hosts(1).await;
        let id = cloud.running("web").await.id;
        let image = || image_removal(&cloud);
        cloud.store.commit(image()).await.expect_err("an instance holds it");
        hosts[0].cut().await;
        let deleting = cloud.delete(id).await;
        assert_eq!(deleting.status.state, S::Deleting);
        cloud.store.commit(image()).await.expect("a deletion needs no image");
        // Also when the manager that accepted the deletion is gone.
        cloud.restart().await;
        hosts[0].restart();
        cloud.gone(id).await;
        assert!(hosts[0].machines().is_empty());
        cloud.leaves_nothing().await;
        cloud.stop(hosts).await;
    }
}
