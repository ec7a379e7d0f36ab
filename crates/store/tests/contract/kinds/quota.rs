use crate::fixture::{LIMIT, Lab, compute, storage};
use domain::{ProjectId, quota::QuotaAmounts};
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
}
