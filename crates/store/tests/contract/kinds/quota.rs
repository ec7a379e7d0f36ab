use crate::fixture::{LIMIT, Lab, T0, compute, name, storage};
use domain::{
    ApiKeyId, ProjectId,
    quota::{QuotaAmounts, QuotaResource},
};
use futures::future::join_all;
use store::*;

pub async fn walk(lab: &Lab) {
    let project = lab.project("quota").await;
    let row = lab.quota_limit_find(project).await.unwrap().unwrap();
    assert_eq!((row.limit, row.generation), (LIMIT, 1));
    let put = |instances, expected_generation| {
        QuotaLimitPut::new(project, &QuotaAmounts { instances, ..LIMIT }, expected_generation)
    };
    lab.one(put(5, 1)).await;
    assert_eq!(lab.guard(put(6, 1)).await, Guard::QuotaGeneration);
    lab.one(put(3, 0)).await;
    let row = lab.quota_limit_find(project).await.unwrap().unwrap();
    assert_eq!((row.limit.instances, row.generation), (3, 3));
    let nowhere = ProjectId::new();
    assert_eq!(lab.guard(QuotaLimitPut { project_id: nowhere, ..put(1, 7) }).await, Guard::QuotaGeneration);
    let adrift = QuotaLimitPut { project_id: nowhere, ..put(1, 0) };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::QuotaLimitProject));

    assert_eq!(lab.quota_usage(project).await.unwrap(), QuotaAmounts::default());
    lab.all(Unit::new().op(compute(project, 2)).op(storage(project, 10))).await;
    assert_eq!(lab.guard(compute(project, 2)).await, Guard::ComputeQuota);
    assert_eq!(lab.guard(storage(project, 1)).await, Guard::StorageQuota);
    lab.one(compute(project, 1)).await;
    let used = QuotaAmounts { instances: 3, vcpus: 6, memory_mib: 3072, disk_gib: 100, ..QuotaAmounts::NONE };
    assert_eq!(lab.quota_usage(project).await.unwrap(), used);
    // Above a limit that was lowered, what falls or stays is no reason to refuse.
    lab.one(put(1, 0)).await;
    lab.one(ComputeUsageAdd { project_id: project, instances: 0, vcpus: 1, memory_mib: -1024 }).await;
    assert_eq!(lab.guard(compute(project, 1)).await, Guard::ComputeQuota);
    lab.all(Unit::new().op(storage(project, -10)).op(ComputeUsageAdd {
        project_id: project,
        instances: -3,
        vcpus: -7,
        memory_mib: -2048,
    }))
    .await;
    assert_eq!(lab.quota_usage(project).await.unwrap(), QuotaAmounts::default());
    assert_eq!(lab.constraint(compute(project, -1)).await, Constraint::UsedNotNegative);
    assert_eq!(lab.constraint(storage(project, -1)).await, Constraint::UsedNotNegative);
    // Without a limit there is nothing to take from; without a project neither.
    assert_eq!(lab.guard(compute(nowhere, 1)).await, Guard::ComputeQuota);
    assert_eq!(lab.guard(storage(nowhere, 1)).await, Guard::StorageQuota);
    assert_eq!(lab.guard(IdentityUsageAdd::ssh_keys(nowhere, 1)).await, Guard::IdentityQuota);
}

/// What takes so much of a resource, from the table of its owner.
fn take(project_id: ProjectId, resource: QuotaResource, amount: i64) -> Unit {
    let QuotaAmounts { instances, vcpus, memory_mib, disk_gib, images, image_gib, .. } =
        QuotaAmounts::only(resource, amount);
    let QuotaAmounts { ssh_keys, placement_groups, .. } = QuotaAmounts::only(resource, amount);
    use QuotaResource as R;
    match resource {
        R::Instances | R::Vcpus | R::MemoryMib => {
            Unit::new().op(ComputeUsageAdd { project_id, instances, vcpus, memory_mib })
        }
        R::DiskGib | R::Images | R::ImageGib => {
            Unit::new().op(StorageUsageAdd { project_id, disk_gib, images, image_gib })
        }
        R::Networks
        | R::Subnets
        | R::Ports
        | R::Routers
        | R::FloatingIps
        | R::SecurityGroups
        | R::SecurityRules
        | R::Peerings => Unit::new().op(NetworkUsageAdd::take(project_id, &QuotaAmounts::only(resource, amount))),
        R::SshKeys | R::PlacementGroups => Unit::new().op(IdentityUsageAdd { project_id, ssh_keys, placement_groups }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_quota_is_exact_however_many_take_at_once() {
    for lab in Lab::each().await {
        // A second handle: two writers on one database, as two processes have.
        let other = lab.db.database.open().await;
        for resource in QuotaResource::ALL {
            let project = lab.project(&format!("exact-{}", resource.as_str().replace('_', "-"))).await;
            lab.one(QuotaLimitPut::new(project, &QuotaAmounts::only(resource, 7), 0)).await;
            let takes = (0..40).map(|n| {
                let store = if n % 2 == 0 { &lab.db.store } else { &other };
                store.commit(take(project, resource, 1))
            });
            let taken = join_all(takes).await;
            assert_eq!(taken.iter().filter(|outcome| outcome.is_ok()).count(), 7, "{resource:?}: {taken:?}");
            let of_quota = |error: &CommitError| {
                use Guard as G;
                matches!(
                    error,
                    CommitError::Guard(G::ComputeQuota | G::StorageQuota | G::NetworkQuota | G::IdentityQuota)
                )
            };
            assert!(taken.iter().filter_map(|outcome| outcome.as_ref().err()).all(of_quota), "{resource:?}: {taken:?}");
            let used = lab.quota_usage(project).await.unwrap();
            assert_eq!(used, QuotaAmounts::only(resource, 7), "nothing else was counted");
            lab.all(take(project, resource, -7)).await;
            assert_eq!(lab.quota_usage(project).await.unwrap(), QuotaAmounts::NONE);
            let below = lab.try_commit(take(project, resource, -1)).await;
            assert!(
                matches!(below, Err(CommitError::Constraint(Constraint::UsedNotNegative))),
                "{resource:?}: {below:?}"
            );
        }
        other.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_no_more_api_keys_than_may_be_however_many_are_made_at_once() {
    for lab in Lab::each().await {
        let other = lab.db.database.open().await;
        let (user, another) = (lab.user("many-keys").await, lab.user("few-keys").await);
        let key = |user_id, n: usize| ApiKeyInsert {
            id: ApiKeyId::new(),
            user_id,
            project_id: None,
            name: name(&format!("key-{n}")),
            prefix: format!("{user_id}-{n}"),
            secret_hash: "00".into(),
            role: None,
            expires_at: None,
            created_at: T0,
            keys_max: 5,
        };
        let made = join_all((0..40).map(|n| {
            let store = if n % 2 == 0 { &lab.db.store } else { &other };
            store.commit(Unit::new().op(key(if n == 9 { another } else { user }, n)))
        }))
        .await;
        assert_eq!(made.iter().filter(|outcome| outcome.is_ok()).count(), 6, "{made:?}");
        let refused =
            |outcome: &&Result<(), CommitError>| matches!(outcome, Err(CommitError::Guard(Guard::ApiKeyQuota)));
        assert_eq!(made.iter().filter(refused).count(), 34, "{made:?}");
        let keys = lab.api_key_list(user).await.unwrap();
        assert_eq!((keys.len(), lab.api_key_list(another).await.unwrap().len()), (5, 1));
        lab.one(ApiKeyDelete { id: keys[0].id, user_id: user }).await;
        lab.one(key(user, 99)).await;
        other.close().await;
    }
}
