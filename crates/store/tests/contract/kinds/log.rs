use crate::{
    fixture::{Lab, T0, at, audit, event, first, name},
    server,
};
use domain::{
    HostTokenId, InstanceId, OperationId, PlacementRecordId, ProjectId, event::NewEvent, placement::PlacementOutcome,
};
use store::*;

pub async fn walk(lab: &Lab) {
    let project = lab.project("log").await;
    let (_, start) = lab.event_head().await.unwrap();
    let mut watch = lab.event_watch();
    watch.mark_unchanged();
    let null = EventInsert(NewEvent { data: serde_json::Value::Null, ..event(None, "two", "second").0 });
    lab.all(Unit::new().op(event(Some(project), "one", "first")).op(null).op(event(Some(project), "one", "third")))
        .await;
    watch.changed().await.expect("the writer lives");
    assert_eq!(*watch.borrow(), start + 3);
    assert_eq!(lab.event_head().await.unwrap().1, start + 3);
    let all = lab.event_after(start, None, 10).await.unwrap();
    let sent: Vec<_> = all.iter().map(|e| (e.id - start, e.message.as_str())).collect();
    assert_eq!(sent, [(1, "first"), (2, "second"), (3, "third")]);
    assert_eq!((all[0].data["nested"]["a"][2].as_bool(), all[0].at), (Some(true), T0));
    assert_eq!((all[1].project_id, all[1].data.clone()), (None, serde_json::json!({})));
    let mine = lab.event_after(start, Some(project), 10).await.unwrap();
    assert_eq!(mine.iter().map(|e| e.id - start).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(lab.event_after(start, None, 2).await.unwrap().len(), 2);
    let all = lab.event_of_object("one", 0, 10).await.unwrap();
    assert_eq!(lab.event_last_of_object("one", 1).await.unwrap(), all[all.len() - 1..], "the newest");
    assert_eq!(lab.event_last_of_object("one", 10).await.unwrap(), all, "the oldest first");
    let other = lab.project("log-other").await;
    lab.one(event(Some(other), "four", "of another")).await;
    let among = async |projects: &[ProjectId], limit| -> Vec<i64> {
        lab.event_after_among(start, projects, limit).await.unwrap().iter().map(|e| e.id - start).collect()
    };
    assert_eq!(
        among(&[other, project], 10).await,
        [1, 3, 4],
        "in the order of ids, whatever the order of the projects"
    );
    assert_eq!(among(&[other, project], 2).await, [1, 3]);
    assert_eq!(among(&[other], 10).await, [4]);
    assert!(among(&[], 10).await.is_empty() && among(&[ProjectId::new()], 10).await.is_empty());
    let start = start + 1;
    let timeline = lab.event_of_object("one", start + 1, 10).await.unwrap();
    assert_eq!(timeline.iter().map(|e| e.message.as_str()).collect::<Vec<_>>(), ["third"]);

    let later = EventInsert(NewEvent { at: at(50), ..event(None, "three", "later").0 });
    lab.one(later).await;
    lab.one(EventExpire { before: at(50) }).await;
    assert_eq!(lab.event_head().await.unwrap(), (start + 4, start + 4));
    lab.one(EventExpire { before: at(51) }).await;
    assert_eq!(lab.event_head().await.unwrap(), (start + 5, start + 4), "the next one is the oldest there will be");

    let (line, system) = (audit(Some(project), "one"), audit(None, "two"));
    lab.all(Unit::new().op(line.clone()).op(system.clone())).await;
    assert_eq!(lab.constraint(line.clone()).await, Constraint::PrimaryKey(Table::Audit));
    let page = Page { after: Some(line.0.id.to_string()), limit: 9 };
    assert_eq!(lab.audit_list(Some(project), first(9)).await.unwrap(), [line.0]);
    assert_eq!(lab.audit_list(None, page).await.unwrap(), [system.0]);
    let refused = AuditAdd(domain::event::AuditEntry { count: 3, at: at(1), ..audit(Some(project), "refused").0 });
    lab.one(refused.clone()).await;
    lab.one(refused.clone()).await;
    let line = lab.audit_list(Some(project), first(9)).await.unwrap().pop().expect("a line");
    assert_eq!((line.id, line.count), (refused.0.id, 6), "the same line counts on");
    lab.one(AuditExpire { before: at(1) }).await;
    let left = lab.audit_list(None, first(9)).await.unwrap();
    assert_eq!(left.iter().map(|line| line.id).collect::<Vec<_>>(), [refused.0.id]);
    lab.one(AuditExpire { before: at(2) }).await;
}

/// More than one slice of each kind that is kept for a time only.
pub async fn retention(lab: &Lab) {
    let user = lab.user("keeper").await;
    let mut unit = Unit::new();
    for i in 0..2001u32 {
        let (id, outcome, created_at) = (OperationId::new(), String::new(), T0);
        unit.push(event(None, i, "old"));
        unit.push(audit(None, i));
        unit.push(IdentityOperationInsert { id, outcome: outcome.clone(), created_at });
        unit.push(ComputeOperationInsert { id, outcome: outcome.clone(), created_at });
        unit.push(StorageOperationInsert { id, outcome: outcome.clone(), created_at });
        unit.push(ResourceOperationInsert { id, outcome, created_at });
        unit.push(IdempotencyInsert {
            principal: "user:1".into(),
            idem_key: i.to_string(),
            body_hash: String::new(),
            operation_id: id,
            object_ids: Vec::new(),
            created_at,
        });
        unit.push(RefreshTokenInsert {
            secret_hash: i.to_string(),
            family: String::new(),
            user_id: user,
            expires_at: T0,
            created_at,
        });
        unit.push(HostTokenInsert {
            id: HostTokenId::new(),
            secret_hash: i.to_string(),
            host_name: None,
            zone: None,
            created_by: String::new(),
            created_at,
            expires_at: T0,
        });
        unit.push(PlacementRecordInsert {
            id: PlacementRecordId::new(),
            project_id: ProjectId::new(),
            instance_id: InstanceId::new(),
            instance_name: name("old"),
            outcome: PlacementOutcome::Refused,
            record: None,
            kept_at: T0,
        });
        super::recovery::push_closed(&mut unit, T0);
    }
    lab.all(unit).await;
    for (what, table) in Retention::ALL.into_iter().zip([
        "event",
        "idempotency",
        "identity_operation",
        "compute_operation",
        "storage_operation",
        "resource_operation",
        "refresh_token",
        "host_token",
        "placement_record",
        "recovery",
        "audit",
    ]) {
        let count = async || server::scalar(&lab.db.database, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(count().await, 2001, "{table}");
        lab.expire(what, T0).await.expect("nothing is before it");
        assert_eq!(count().await, 2001, "{table}");
        let before = lab.counters();
        lab.expire(what, at(1)).await.expect("expires");
        assert_eq!((count().await, lab.counters().commits - before.commits), (0, 2), "{table}");
    }
}
