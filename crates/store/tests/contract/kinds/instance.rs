use crate::fixture::{Lab, OVERHEAD, SIZE, T0, at, delete_disk, desired, instance_insert, name, spec};
use domain::{
    HostId, ImageId, InstanceId, ProjectId,
    explain::PlacementRecord,
    flavor::Size,
    instance::{InstanceState, ReportFence},
};
use std::collections::BTreeMap;
use store::*;

pub async fn walk(lab: &Lab) {
    let project = lab.project("instance").await;
    let (host, image) = (lab.host("instance-host").await, lab.image(project, "instance-image").await);
    writes(lab, project, host, image).await;
    lists(lab, project, host, image).await;
}

async fn writes(lab: &Lab, project: ProjectId, host: HostId, image: ImageId) {
    let id = lab.instance(project, host, image, "web").await;
    let taken = instance_insert(project, None, image, "web");
    assert_eq!(lab.constraint(taken.clone()).await, Constraint::InstanceName);
    let adrift = InstanceInsert { project_id: ProjectId::new(), ..taken.clone() };
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::InstanceProject));
    assert_eq!(
        lab.constraint(InstanceInsert { id, name: name("x"), ..taken }).await,
        Constraint::PrimaryKey(Table::Instance)
    );

    let row = lab.instance_find(Some(project), id).await.unwrap().unwrap();
    assert_eq!((row.spec.clone(), row.placement.clone()), (spec(image), None));
    assert_eq!(row.claim, Size { memory_mib: OVERHEAD.claim_mib(SIZE), ..SIZE });
    assert_eq!(row.tags, BTreeMap::from([("env".to_owned(), "it's \"test\"".to_owned())]));
    assert_eq!((row.generation, row.epoch, row.host_id, row.quota_released), (1, 1, Some(host), false));
    assert_eq!((row.status.state, row.status.deadline_at, row.created_at), (InstanceState::Pending, Some(at(30)), T0));
    assert_eq!(lab.instance_find(Some(ProjectId::new()), id).await.unwrap(), None, "another project's");
    assert_eq!(lab.instance_find_by_name(project, "web").await.unwrap().as_ref(), Some(&row));
    assert_eq!(lab.instance_fence(id).await.unwrap(), Some(ReportFence::default()));
    assert_eq!(lab.instance_fence(InstanceId::new()).await.unwrap(), None);

    let placement = PlacementRecord {
        at: T0,
        hosts_considered: 1,
        candidates: 1,
        rejected: Vec::new(),
        chosen: Some(host),
        best: Vec::new(),
        score: "leaves 18 vCPUs".into(),
        nearest: None,
        summary: "fits".into(),
        hint: String::new(),
    };
    let change = InstanceDesired {
        name: name("web-2"),
        tags: BTreeMap::new(),
        placement: Some(placement.clone()),
        expected_state: Some(InstanceState::Pending),
        state: InstanceState::Building,
        step: "fetching".into(),
        deadline_at: None,
        ..desired(&row)
    };
    let wrong_state = InstanceDesired { expected_state: Some(InstanceState::Running), ..change.clone() };
    assert_eq!(lab.guard(wrong_state).await, Guard::InstanceGeneration);
    assert_eq!(lab.guard(InstanceDesired { epoch: 0, ..change.clone() }).await, Guard::InstanceGeneration);
    lab.one(change.clone()).await;
    assert_eq!(lab.guard(change).await, Guard::InstanceGeneration);
    let row = lab.instance_find(None, id).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.generation, row.placement.as_ref()), ("web-2", 2, Some(&placement)));
    assert_eq!((row.status.state, row.status.deadline_at, row.updated_at), (InstanceState::Building, None, at(1)));

    reports(lab, id).await;
    todos(lab, id).await;
    assert_eq!(lab.instance_gone(&[id, InstanceId::new()]).await.unwrap().len(), 1);

    let progress = InstanceProgress {
        id,
        expected_generation: 2,
        expected_start: 6,
        expected_counter: 0,
        state: InstanceState::Error,
        step: String::new(),
        reason: "its deadline passed\0".into(),
        deadline_at: Some(at(9)),
        at: at(3),
    };
    lab.one(progress.clone()).await;
    let stale = InstanceProgress { expected_generation: 1, ..progress.clone() };
    assert_eq!(lab.guard(stale).await, Guard::InstanceGeneration);
    let before_the_report = InstanceProgress { expected_start: 5, ..progress.clone() };
    assert_eq!(lab.guard(before_the_report).await, Guard::InstanceGeneration);
    assert_eq!(lab.guard(InstanceProgress { expected_counter: 1, ..progress }).await, Guard::InstanceGeneration);
    let row = lab.instance_find(None, id).await.unwrap().unwrap();
    assert_eq!((row.status.state, row.generation, row.updated_at), (InstanceState::Error, 2, at(3)));
    assert_eq!(
        row.status.reason, "its deadline passed\u{fffd}",
        "NUL can't be stored, and mustn't make the row unwritable"
    );

    let loaded = lab.desired_load_many(&[id, InstanceId::new()]).await.unwrap();
    assert_eq!((loaded.len(), &loaded[0].instance), (1, &row));
    assert_eq!(loaded[0].image.as_ref().map(|i| i.id), Some(image));
    assert_eq!(loaded[0].disks.iter().map(|d| Some(d.id)).collect::<Vec<_>>(), [row.root_disk_id]);
    assert!(lab.desired_load_many(&[]).await.unwrap().is_empty());
    assert_eq!(lab.instance_load_many(&[id]).await.unwrap(), [row]);

    let row = lab.instance_find(None, id).await.unwrap().unwrap();
    let lift = InstanceLift {
        id,
        expected_generation: 2,
        generation: 9,
        epoch: 1,
        spec: row.spec.clone(),
        step: "lifted".into(),
        deadline_at: Some(at(11)),
        at: at(4),
    };
    assert_eq!(lab.guard(InstanceLift { generation: 2, ..lift.clone() }).await, Guard::InstanceGeneration);
    assert_eq!(lab.guard(InstanceLift { epoch: 0, ..lift.clone() }).await, Guard::InstanceGeneration);
    lab.one(lift.clone()).await;
    assert_eq!(lab.guard(lift).await, Guard::InstanceGeneration);
    let lifted = lab.instance_find(None, id).await.unwrap().unwrap();
    assert_eq!(
        (lifted.generation, lifted.status.state, lifted.status.deadline_at),
        (9, row.status.state, Some(at(11)))
    );

    let disk = lab.disk_list_of_instance(id).await.unwrap().remove(0);
    assert_eq!(lab.guard(InstanceDelete { id, epoch: 2 }).await, Guard::InstanceEpoch);
    lab.one(InstanceDelete { id, epoch: 1 }).await;
    assert_eq!(lab.guard(InstanceDelete { id, epoch: 1 }).await, Guard::InstanceEpoch, "its claim is given back once");
    lab.all(
        Unit::new()
            .op(crate::fixture::release(host))
            .op(crate::fixture::compute(project, -1))
            .op(crate::fixture::storage(project, -1))
            .op(delete_disk(&disk)),
    )
    .await;
}

/// What is left to do stays until it is done, and what is asked for again meanwhile stays longer.
async fn todos(lab: &Lab, id: InstanceId) {
    let (todo, other) = (InstanceTodo::RemovePorts, InstanceTodo::RemoveClaims);
    let put = |todo, secs| InstanceTodoPut { todo, instance_id: id, created_at: at(secs) };
    lab.all(Unit::new().op(put(todo, 1)).op(put(other, 1))).await;
    let rows = lab.instance_todo_list(todo, None, 9).await.unwrap();
    assert_eq!(rows, [InstanceTodoRow { todo, instance_id: id, created_at: at(1) }]);
    assert_eq!(lab.instance_todo_list(todo, Some(id), 9).await.unwrap(), []);
    lab.one(put(todo, 2)).await;
    lab.one(rows[0].done()).await;
    assert_eq!(lab.instance_todo_list(todo, None, 9).await.unwrap().len(), 1, "it was asked for again");
    for todo in InstanceTodo::ALL {
        assert_eq!(InstanceTodo::parse(todo.as_str()), Some(todo));
        for row in lab.instance_todo_list(todo, None, 9).await.unwrap() {
            lab.one(row.done()).await;
        }
        assert_eq!(lab.instance_todo_list(todo, None, 9).await.unwrap(), []);
    }
}

async fn reports(lab: &Lab, id: InstanceId) {
    let report = InstanceObserved {
        id,
        epoch: 1,
        generation: 2,
        expected_generation: 2,
        start: 5,
        counter: 7,
        state: InstanceState::Running,
        step: String::new(),
        reason: String::new(),
        deadline_at: None,
        started_at: Some(at(1)),
        guest_up_at: Some(at(2)),
        crash_count: 1,
        root_used_seq: Some(3),
        at: at(2),
    };
    let with = |change: fn(&mut InstanceObserved)| {
        let mut report = report.clone();
        change(&mut report);
        report
    };
    assert_eq!(lab.guard(with(|r| r.expected_generation = 1)).await, Guard::InstanceObserved, "decided on an old row");
    assert_eq!(lab.guard(with(|r| r.epoch = 2)).await, Guard::InstanceObserved, "of another epoch");
    lab.one(report.clone()).await;
    assert_eq!(lab.guard(report.clone()).await, Guard::InstanceObserved, "a repeat");
    assert_eq!(lab.guard(with(|r| r.counter = 6)).await, Guard::InstanceObserved);
    assert_eq!(lab.guard(with(|r| (r.start, r.counter) = (4, 99))).await, Guard::InstanceObserved);
    assert_eq!(lab.guard(with(|r| (r.generation, r.counter) = (1, 99))).await, Guard::InstanceObserved);
    lab.one(with(|r| r.counter = 8)).await;
    lab.one(with(|r| (r.start, r.counter) = (6, 0))).await;
    let row = lab.instance_find(None, id).await.unwrap().unwrap();
    assert_eq!(row.fence, ReportFence { epoch: 1, generation: 2, start: 6, counter: 0 });
    assert_eq!((row.status.started_at, row.status.guest_up_at, row.status.crash_count), (Some(at(1)), Some(at(2)), 1));
    assert_eq!((row.status.state, row.status.observed_generation, row.generation), (InstanceState::Running, 2, 2));
    assert_eq!(row.binding.root_used_seq, Some(3));
}

async fn lists(lab: &Lab, project: ProjectId, host: HostId, image: ImageId) {
    let other_project = lab.project("instance-other").await;
    let mut ids = Vec::new();
    for i in 0..5u64 {
        let mut insert = instance_insert(project, (i < 2).then_some(host), image, &format!("vm-{i}"));
        insert.tags = BTreeMap::from([("n".to_owned(), i.to_string()), ("all".to_owned(), "yes".to_owned())]);
        insert.state = if i == 4 { InstanceState::Running } else { InstanceState::Pending };
        insert.deadline_at = (i != 4).then(|| at(100 - i));
        ids.push(insert.id);
        lab.one(insert).await;
    }
    let foreign = instance_insert(other_project, None, image, "vm-0");
    lab.one(foreign.clone()).await;

    let all = InstanceFilter { project_id: Some(project), limit: 100, ..InstanceFilter::default() };
    let listed = async |filter: InstanceFilter| -> Vec<InstanceId> {
        lab.instance_list(&filter).await.unwrap().iter().map(|row| row.id).collect()
    };
    assert_eq!(listed(all.clone()).await, ids);
    assert_eq!(listed(InstanceFilter { limit: 2, after: Some(ids[1]), ..all.clone() }).await, ids[2..4]);
    let newest = InstanceFilter { newest_first: true, after: Some(ids[2]), ..all.clone() };
    assert_eq!(listed(newest).await, [ids[1], ids[0]]);
    let states = vec![InstanceState::Running, InstanceState::Error];
    assert_eq!(listed(InstanceFilter { state: states, ..all.clone() }).await, [ids[4]]);
    assert_eq!(listed(InstanceFilter { host_id: Some(host), ..all.clone() }).await, ids[..2]);
    assert_eq!(listed(InstanceFilter { name_prefix: Some("vm-3".into()), ..all.clone() }).await, [ids[3]]);
    assert!(listed(InstanceFilter { name_prefix: Some("%".into()), ..all.clone() }).await.is_empty());
    let tag = vec![("n".to_owned(), "2".to_owned()), ("all".to_owned(), "yes".to_owned())];
    assert_eq!(listed(InstanceFilter { tag, ..all.clone() }).await, [ids[2]]);
    assert!(listed(InstanceFilter { image_id: Some(ImageId::new()), ..all.clone() }).await.is_empty());
    let everywhere = InstanceFilter { project_id: None, image_id: Some(image), ..all };
    assert_eq!(listed(everywhere).await.len(), 6);

    let unsettled = lab.instance_list_unsettled(None, 100).await.unwrap();
    assert_eq!(unsettled.iter().filter(|row| ids.contains(&row.id)).count(), 4, "all but the one that runs");
    assert!(lab.instance_list_unsettled(Some(foreign.id), 100).await.unwrap().is_empty());
    assert_eq!(lab.instance_list_of_host(host).await.unwrap(), ids[..2]);
    let generation = lab.host_find(host).await.unwrap().unwrap().generation;
    assert_eq!(lab.guard(HostDelete { id: host, expected_generation: generation }).await, Guard::HostInUse);
    assert_eq!(lab.instance_deadline_passed(at(98), 9).await.unwrap(), [foreign.id, ids[3], ids[2]]);
    assert_eq!(lab.instance_deadline_passed(at(98), 1).await.unwrap(), [foreign.id]);
    let claims = lab.instance_host_claims().await.unwrap();
    let claim = Size { vcpus: 4, memory_mib: 2 * OVERHEAD.claim_mib(SIZE), disk_gib: 20 };
    assert_eq!(claims, [HostClaims { host_id: host, instances: 2, claim }]);
    for id in ids.into_iter().chain([foreign.id]) {
        lab.one(InstanceDelete { id, epoch: 1 }).await;
    }
}
