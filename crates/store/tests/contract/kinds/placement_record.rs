use crate::fixture::{Lab, T0, at, instance_insert, name, release};
use domain::{
    InstanceId, PlacementRecordId, ProjectId,
    explain::{PlacementRecord, Rejection, RejectionCount},
    placement::PlacementOutcome,
};
use store::*;

fn record(summary: &str) -> PlacementRecord {
    PlacementRecord {
        at: T0,
        hosts_considered: 3,
        candidates: 0,
        rejected: vec![RejectionCount { filter: Rejection::Memory, hosts: 3 }],
        chosen: None,
        best: vec![],
        score: String::new(),
        nearest: None,
        summary: summary.to_owned(),
        hint: "it's \"full\"".to_owned(),
    }
}

fn refusal(project_id: ProjectId, called: &str) -> PlacementRecordInsert {
    PlacementRecordInsert {
        id: PlacementRecordId::new(),
        project_id,
        instance_id: InstanceId::new(),
        instance_name: name(called),
        outcome: PlacementOutcome::Refused,
        record: Some(record(called)),
        kept_at: T0,
    }
}

async fn listed(lab: &Lab, filter: PlacementRecordFilter) -> Vec<PlacementRecordId> {
    let rows = lab.placement_record_list(&PlacementRecordFilter { limit: 9, ..filter }).await.unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

pub async fn walk(lab: &Lab) {
    let project = lab.project("records").await;
    let other = lab.project("records-other").await;
    let (one, two, theirs) = (refusal(project, "one"), refusal(project, "two"), refusal(other, "one"));
    lab.all(Unit::new().op(one.clone()).op(two.clone()).op(theirs.clone())).await;
    assert_eq!(lab.constraint(one.clone()).await, Constraint::PrimaryKey(Table::PlacementRecord));
    // Nothing that went meanwhile fails the unit of all that gathered.
    lab.one(refusal(ProjectId::new(), "gone")).await;

    let found = lab.placement_record_find(Some(project), one.id).await.unwrap().unwrap();
    assert_eq!((Some(found.record), found.outcome), (one.record.clone(), PlacementOutcome::Refused));
    assert_eq!((found.instance_name, found.instance_id), (name("one"), one.instance_id));
    assert_eq!(lab.placement_record_find(Some(other), one.id).await.unwrap(), None, "another project's");
    assert_eq!(lab.placement_record_find(None, one.id).await.unwrap().unwrap().id, one.id);

    let mine = || PlacementRecordFilter { project_id: Some(project), ..Default::default() };
    assert_eq!(listed(lab, mine()).await, [one.id, two.id]);
    assert_eq!(listed(lab, PlacementRecordFilter { newest_first: true, ..mine() }).await, [two.id, one.id]);
    assert_eq!(listed(lab, PlacementRecordFilter { after: Some(one.id), ..mine() }).await, [two.id]);
    let back = PlacementRecordFilter { after: Some(two.id), newest_first: true, ..mine() };
    assert_eq!(listed(lab, back).await, [one.id]);
    let called = PlacementRecordFilter { instance_name: Some("one".into()), ..Default::default() };
    assert_eq!(listed(lab, called).await, [one.id, theirs.id]);
    let of = PlacementRecordFilter { instance_id: Some(two.instance_id), ..mine() };
    assert_eq!(listed(lab, of).await, [two.id]);
    let placed = || PlacementRecordFilter { outcome: Some(PlacementOutcome::Placed), ..mine() };
    assert!(listed(lab, placed()).await.is_empty());

    ends(lab, project).await;
    assert_eq!(listed(lab, placed()).await.len(), 1);
    crowd(lab, project, other).await;
    for project in [project, other] {
        lab.one(ProjectDelete { id: project }).await;
    }
}

/// The decision of an instance outlives it; one without a decision leaves none.
async fn ends(lab: &Lab, project: ProjectId) {
    let (host, image) = (lab.host("records-host").await, lab.image(project, "records-image").await);
    let (mut decided, bare) =
        (instance_insert(project, Some(host), image, "web"), instance_insert(project, Some(host), image, "bare"));
    decided.placement = Some(PlacementRecord { chosen: Some(host), ..record("fits") });
    for insert in [&decided, &bare] {
        lab.all(Unit::new().op(insert.clone()).op(crate::fixture::claim(host))).await;
        let keep = PlacementRecordKeep { id: PlacementRecordId::new(), instance_id: insert.id, kept_at: at(9) };
        let end = Unit::new().op(InstanceDelete { id: insert.id, epoch: 1 }).op(release(host)).op(keep);
        lab.all(end).await;
    }
    let filter = PlacementRecordFilter { instance_id: Some(decided.id), limit: 9, ..Default::default() };
    let kept = lab.placement_record_list(&filter).await.unwrap();
    let said: Vec<_> = kept.iter().map(|k| (k.outcome, k.instance_name.as_str(), k.kept_at, k.project_id)).collect();
    assert_eq!(said, [(PlacementOutcome::Placed, "web", at(9), project)]);
    assert_eq!(Some(&kept[0].record), decided.placement.as_ref());
    let filter = PlacementRecordFilter { instance_id: Some(bare.id), limit: 9, ..Default::default() };
    assert!(lab.placement_record_list(&filter).await.unwrap().is_empty());
    lab.all(crate::fixture::image_end(project, image, 8)).await;
}

async fn crowd(lab: &Lab, project: ProjectId, other: ProjectId) {
    lab.all((0..5).fold(Unit::new(), |unit, n| unit.op(refusal(project, &format!("many-{n}"))))).await;
    assert!(lab.placement_record_projects(T0).await.unwrap().contains(&project));
    assert!(lab.placement_record_projects(at(1_000_000)).await.unwrap().is_empty());
    assert_eq!(lab.placement_record_excess(other, 4).await.unwrap(), None);
    let last = lab.placement_record_excess(project, 4).await.unwrap().expect("too many");
    lab.one(PlacementRecordTrim { project_id: project, last }).await;
    assert_eq!(lab.placement_record_excess(project, 4).await.unwrap(), None);
    let left = lab.placement_record_list(&PlacementRecordFilter { limit: 9, ..Default::default() }).await.unwrap();
    let mine = left.iter().filter(|k| k.project_id == project).map(|k| k.instance_name.as_str());
    assert_eq!(mine.collect::<Vec<_>>(), ["many-1", "many-2", "many-3", "many-4"]);
    assert!(left.iter().any(|k| k.project_id == other), "another project's stay");
    lab.one(PlacementRecordExpire { before: at(1) }).await;
    assert!(
        lab.placement_record_list(&PlacementRecordFilter { limit: 9, ..Default::default() }).await.unwrap().is_empty()
    );
}
