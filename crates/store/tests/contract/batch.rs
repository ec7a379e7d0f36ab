//! What a batch of units of many callers does: the innocent are served, the sums are right, order per row is kept.

use crate::{
    fixture::{Lab, T0, at, claim, compute, create, delete_disk, event, name, release},
    server::Blocker,
};
use domain::{InstanceId, ProjectId, Timestamp};
use futures::future::join_all;
use std::{collections::BTreeSet, pin::pin};
use store::*;

fn project(called: &str) -> Unit {
    Unit::new().op(ProjectInsert {
        id: ProjectId::new(),
        name: name(called),
        description: String::new(),
        created_at: T0,
    })
}

/// Commits all in as few batches as there can be: the writer is held until every unit is queued.
async fn together(lab: &Lab, units: Vec<Unit>) -> Vec<Result<(), CommitError>> {
    let blocker = Blocker::hold(&lab.db.database).await;
    let mut all = pin!(join_all(units.into_iter().map(|unit| lab.commit(unit))));
    assert!(futures::poll!(all.as_mut()).is_pending(), "the writer is held");
    blocker.release().await;
    all.await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_failing_unit_of_a_batch_fails() {
    for lab in Lab::each().await {
        lab.project("taken").await;
        let before = lab.counters();
        let mut units: Vec<Unit> = (0..100).map(|i| project(&format!("p-{i}")).op(event(None, i, "made"))).collect();
        units[37] = project("taken").op(event(None, 37, "made"));
        units[70] = Unit::new().op(compute(ProjectId::new(), 1));
        let results = together(&lab, units).await;
        for (i, result) in results.iter().enumerate() {
            match (i, result) {
                (37, Err(CommitError::Constraint(Constraint::ProjectName))) => {}
                (70, Err(CommitError::Guard(Guard::ComputeQuota))) => {}
                (37 | 70, other) => panic!("{i}: {other:?}"),
                (_, result) => assert!(result.is_ok(), "{i}: {result:?}"),
            }
        }
        let after = lab.counters();
        assert!(after.batch_reruns > before.batch_reruns, "no batch was halved: they never met");
        assert!(after.commits - before.commits <= 4, "they were not grouped: {before:?} {after:?}");
        assert_eq!(after.units - before.units, 100);
        assert_eq!(lab.project_list(Page::first(1000)).await.unwrap().len(), 99);
        // Ids are without a gap, although some of those that asked for one failed.
        let events = lab.event_after(0, None, 1000).await.unwrap();
        assert_eq!(events.iter().map(|e| e.id).collect::<Vec<_>>(), (1..=98).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_failing_units_fails_whole() {
    for lab in Lab::each().await {
        lab.project("taken").await;
        let results = together(&lab, (0..8).map(|_| project("taken")).collect()).await;
        for result in results {
            assert!(matches!(result, Err(CommitError::Constraint(Constraint::ProjectName))), "{result:?}");
        }
        lab.all(project("free")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn units_that_change_one_row_run_one_after_the_other() {
    for lab in Lab::each().await {
        let id = lab.project("busy").await;
        let before = lab.counters();
        let updates = (1..=20).map(|generation| {
            let called = name(&format!("busy-{generation}"));
            Unit::new().op(ProjectUpdate {
                id,
                expected_generation: generation,
                name: called,
                description: String::new(),
            })
        });
        let results = together(&lab, updates.collect()).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        let row = lab.project_find(id).await.unwrap().unwrap();
        assert_eq!((row.name.as_str(), row.generation), ("busy-20", 21));
        assert_eq!(lab.counters().batch_reruns, before.batch_reruns, "they never share a batch");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_of_one_key_are_told_apart() {
    for lab in Lab::each().await {
        let key = IdempotencyInsert {
            principal: "user:1".into(),
            idem_key: "once".into(),
            body_hash: String::new(),
            operation_id: domain::OperationId::new(),
            object_ids: Vec::new(),
            created_at: T0,
        };
        let results = together(&lab, (0..10).map(|_| Unit::new().op(key.clone())).collect()).await;
        assert!(results[0].is_ok());
        for result in &results[1..] {
            assert!(matches!(result, Err(CommitError::Constraint(Constraint::IdempotencyRepeated))), "{result:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_in_a_batch_can_be_taken_in_it() {
    for lab in Lab::each().await {
        let (project, host) = (lab.project("full").await, lab.host("full").await);
        for _ in 0..10 {
            lab.all(Unit::new().op(claim(host)).op(compute(project, 1))).await;
        }
        let back = Unit::new().op(release(host)).op(compute(project, -1));
        let take = Unit::new().op(claim(host)).op(compute(project, 1));
        let results = together(&lab, vec![take.clone(), back, take]).await;
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 2, "{results:?}");
        assert!(results[1].is_ok());
        let host = lab.host_find(host).await.unwrap().unwrap();
        assert_eq!((host.used.vcpus, lab.quota_usage(project).await.unwrap().instances), (20, 10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_creates_fill_a_quota_exactly() {
    for lab in Lab::each().await {
        let (project, host) = (lab.project("crowd").await, lab.host("crowd").await);
        let image = lab.image(project, "crowd").await;
        let units: Vec<(Unit, InstanceId)> =
            (0..64).map(|i| create(project, host, image, &format!("vm-{i}"))).collect();
        // A second handle: two writers on one database, as two processes have.
        let other = lab.db.database.open().await;
        let results = join_all(units.into_iter().enumerate().map(|(i, (unit, id))| {
            let store = if i % 2 == 0 { &lab.db.store } else { &other };
            async move { (store.commit(unit).await, id) }
        }))
        .await;
        let made: BTreeSet<InstanceId> = results.iter().filter(|(r, _)| r.is_ok()).map(|(_, id)| *id).collect();
        for (result, _) in &results {
            match result {
                Ok(()) | Err(CommitError::Guard(Guard::HostCapacity | Guard::ComputeQuota | Guard::StorageQuota)) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(made.len(), 10, "the quota and the host hold ten");
        let filter = InstanceFilter { limit: 100, ..InstanceFilter::default() };
        let there: BTreeSet<InstanceId> = lab.instance_list(&filter).await.unwrap().iter().map(|r| r.id).collect();
        assert_eq!(there, made);
        assert_eq!(lab.leak_report().await.unwrap(), []);
        assert_eq!(lab.event_after(0, None, 100).await.unwrap().len(), 10);
        other.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_and_its_first_instance_race_without_a_leftover() {
    for lab in Lab::each().await {
        let (owner, host) = (lab.project("owner").await, lab.host("race").await);
        let image = lab.image(owner, "race").await;
        let other = lab.db.database.open().await;
        for i in 0..20 {
            let project = lab.project(&format!("race-{i}")).await;
            let (unit, id) = create(project, host, image, "first");
            let delete = Unit::new().op(ProjectDelete { id: project });
            let (made, deleted) = tokio::join!(lab.commit(unit), other.commit(delete));
            let project_there = lab.project_find(project).await.unwrap().is_some();
            let instance_there = lab.instance_find(None, id).await.unwrap().is_some();
            assert_eq!((made.is_ok(), deleted.is_ok()), (instance_there, !project_there));
            assert_eq!(project_there, instance_there, "{made:?} {deleted:?}");
            if instance_there {
                let disk = lab.disk_list_of_instance(id).await.unwrap().remove(0);
                lab.all(
                    Unit::new()
                        .op(InstanceDelete { id, epoch: 1 })
                        .op(release(host))
                        .op(compute(project, -1))
                        .op(StorageUsageAdd::disk(project, -10))
                        .op(delete_disk(&disk)),
                )
                .await;
            }
            assert_eq!(lab.leak_report().await.unwrap(), []);
        }
        other.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_unit_and_large_texts_are_fine() {
    for lab in Lab::each().await {
        let before = lab.counters();
        lab.all(Unit::new()).await;
        assert_eq!(lab.counters(), before, "nothing to do, nothing done");
        let id = lab.project("texts").await;
        let description = "quote ' \" backslash \\u0000 \u{1} newline \n 漢字 🦀 {}[] ".repeat(2000);
        let update =
            ProjectUpdate { id, expected_generation: 1, name: name("texts"), description: description.clone() };
        lab.one(update).await;
        assert_eq!(lab.project_find(id).await.unwrap().unwrap().description, description);
        let far = Timestamp(i64::MAX);
        lab.one(SigningKeyInsert {
            kid: "k".into(),
            wrapped_secret: String::new(),
            public_key: String::new(),
            created_at: far,
        })
        .await;
        assert_eq!(lab.signing_key_list().await.unwrap()[0].created_at, far);
        lab.one(SigningKeyRetire { kid: "k".into(), retired_at: at(1) }).await;
    }
}
