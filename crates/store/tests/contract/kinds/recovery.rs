use crate::fixture::{Lab, T0, at, claim, instance_insert, name, release};
use domain::{
    HostId, InstanceId, ProjectId, RecoveryId, Timestamp,
    host::HostState,
    instance::{InstanceState, OnHostLoss},
    recovery::{LossProof, RecoveryPhase},
};
use store::*;

fn verdict(host_id: HostId) -> HostVerdictInsert {
    HostVerdictInsert {
        host_id,
        proof: LossProof::Declared,
        lease_number: None,
        declared_by: "admin".into(),
        lost_at: T0,
        declared_at: at(1),
    }
}

fn taken(host_id: HostId, instance_id: InstanceId, epoch: i64) -> HostTakenPut {
    HostTakenPut { host_id, instance_id, epoch, generation: 3, taken_at: at(2) }
}

fn recovery(project_id: ProjectId, host_id: HostId, instance_id: InstanceId) -> RecoveryInsert {
    RecoveryInsert {
        id: RecoveryId::new(),
        instance_id,
        instance_name: name("recovered"),
        project_id,
        host_id,
        host_name: "lost".into(),
        epoch: 1,
        policy: OnHostLoss::Recreate,
        rto_seconds: 30,
        lost_at: T0,
        detected_at: at(1),
    }
}

fn progress(id: RecoveryId, expected_phase: RecoveryPhase, phase: RecoveryPhase, closed: bool) -> RecoveryProgress {
    RecoveryProgress {
        id,
        expected_phase,
        phase,
        reason: "because".into(),
        to_host_id: None,
        placed_at: Some(at(3)),
        started_at: None,
        reachable_at: None,
        verified_at: None,
        closed_at: closed.then(|| at(9)),
    }
}

/// Adds a recovery that ended then.
pub fn push_closed(unit: &mut Unit, closed_at: Timestamp) {
    let insert = recovery(ProjectId::new(), HostId::new(), InstanceId::new());
    let ends = progress(insert.id, RecoveryPhase::Waiting, RecoveryPhase::Returned, true);
    unit.push(insert);
    unit.push(RecoveryProgress { closed_at: Some(closed_at), ..ends });
}

pub async fn walk(lab: &Lab) {
    let project = lab.project("recovery").await;
    let (host, other, image) =
        (lab.host("recovery-lost").await, lab.host("recovery-other").await, lab.image(project, "recovery-image").await);
    verdicts(lab, host).await;
    moves(lab, project, image, (host, other)).await;
    returns(lab, host).await;
    reports(lab, project, host).await;
}

async fn verdicts(lab: &Lab, host: HostId) {
    let lost = |silent| HostLost { id: host, silent, at: at(1) };
    assert_eq!(lab.guard(lost(true)).await, Guard::HostGeneration, "it is connected");
    assert_eq!(lab.guard(taken(host, InstanceId::new(), 1)).await, Guard::HostVerdict);
    lab.one(HostStateSet { id: host, state: HostState::Disconnected, at: T0 }).await;
    lab.all(Unit::new().op(lost(true)).op(verdict(host))).await;
    assert_eq!(lab.guard(lost(false)).await, Guard::HostGeneration, "it is lost already");
    assert_eq!(lab.constraint(verdict(host)).await, Constraint::PrimaryKey(Table::HostVerdict));
    let adrift = verdict(HostId::new());
    assert_eq!(lab.constraint(adrift).await, Constraint::ForeignKey(ForeignKey::HostVerdictHost));
    // Neither what is seen of it nor what its agent says ends that.
    lab.one(HostStateSet { id: host, state: HostState::Up, at: at(2) }).await;
    lab.one(HostUpsert { id: host, ..crate::fixture::host_upsert("recovery-lost") }).await;
    let row = lab.host_find(host).await.unwrap().unwrap();
    assert_eq!((row.state, row.state_changed_at), (HostState::Lost, at(1)));
    let states = lab.host_states(&[host]).await.unwrap();
    assert_eq!(states.iter().map(|row| (row.id, row.state)).collect::<Vec<_>>(), [(host, HostState::Lost)]);
    assert_eq!(lab.guard(claim(host)).await, Guard::HostCapacity);
    let row = lab.host_verdict_find(host).await.unwrap().unwrap();
    assert_eq!((row.proof, row.declared_by.as_str(), row.listed), (LossProof::Declared, "admin", false));
    lab.one(HostVerdictListed { host_id: host }).await;
    assert_eq!(lab.guard(HostVerdictListed { host_id: HostId::new() }).await, Guard::HostVerdict);
    assert!(lab.host_verdict_list().await.unwrap().iter().any(|row| row.host_id == host && row.listed));
}

async fn moves(lab: &Lab, project: ProjectId, image: domain::ImageId, (host, other): (HostId, HostId)) {
    let insert = instance_insert(project, Some(host), image, "recovered");
    let id = insert.id;
    lab.one(insert).await;
    let move_to = |expected_generation, expected_epoch| InstanceMove {
        id,
        expected_generation,
        expected_epoch,
        epoch: 2,
        host_id: other,
        placement: None,
        claim_vcpus: 2,
        claim_memory_mib: 100,
        claim_disk_gib: 1,
        cpu_baseline: None,
        numa_node: Some(1),
        root_used_seq: Some(3),
        state: InstanceState::Recovering,
        step: "step".into(),
        reason: String::new(),
        deadline_at: Some(at(60)),
        at: at(3),
    };
    for stale in [move_to(9, 1), move_to(1, 0), move_to(1, 2)] {
        assert_eq!(lab.guard(stale).await, Guard::InstanceGeneration);
    }
    lab.all(Unit::new().op(move_to(1, 1)).op(taken(host, id, 1)).op(claim(other))).await;
    let row = lab.instance_find(None, id).await.unwrap().unwrap();
    assert_eq!((row.epoch, row.generation, row.host_id), (2, 2, Some(other)));
    assert_eq!((row.claim.memory_mib, row.binding.numa_node, row.binding.root_used_seq), (100, Some(1), Some(3)));
    assert_eq!((row.status.state, row.status.started_at), (InstanceState::Recovering, None));
    assert_eq!(lab.guard(move_to(2, 1)).await, Guard::InstanceGeneration, "once");
    lab.all(Unit::new().op(InstanceDelete { id, epoch: 2 }).op(release(other))).await;
}

async fn returns(lab: &Lab, host: HostId) {
    let (one, two) = (InstanceId::new(), InstanceId::new());
    lab.all(Unit::new().op(taken(host, one, 4)).op(taken(host, two, 1))).await;
    lab.one(taken(host, two, 2)).await;
    assert_eq!(lab.host_taken_list(host).await.unwrap().len(), 3);
    let back = || Unit::new().op(HostVerdictEnd { host_id: host }).op(HostReturn { id: host, at: at(5) });
    let refused = lab.try_commit(back()).await.expect_err("something isn't proved");
    assert!(matches!(refused, CommitError::Guard(Guard::HostVerdict)), "{refused:?}");
    // A proof of another epoch proves nothing.
    lab.one(HostTakenProven { host_id: host, instance_id: two, epoch: 1 }).await;
    let of_two = lab.host_taken_of_instances(host, &[two]).await.unwrap();
    assert_eq!(of_two.iter().map(|row| (row.instance_id, row.epoch)).collect::<Vec<_>>(), [(two, 2)]);
    for row in lab.host_taken_list(host).await.unwrap() {
        lab.one(HostTakenProven { host_id: host, instance_id: row.instance_id, epoch: row.epoch }).await;
    }
    lab.all(back()).await;
    let row = lab.host_find(host).await.unwrap().unwrap();
    assert_eq!((row.state, lab.host_verdict_find(host).await.unwrap()), (HostState::Disconnected, None));
    assert_eq!(lab.guard(HostReturn { id: host, at: at(6) }).await, Guard::HostVerdict, "it isn't lost");
}

async fn reports(lab: &Lab, project: ProjectId, host: HostId) {
    let (one, two) = (InstanceId::new(), InstanceId::new());
    let (first, second) = (recovery(project, host, one), recovery(project, host, two));
    lab.all(Unit::new().op(first.clone()).op(second.clone())).await;
    lab.one(recovery(project, host, one)).await;
    let ids = |rows: Vec<domain::recovery::Recovery>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(ids(lab.recovery_open(None, 9).await.unwrap()), [first.id, second.id], "one that is open stays alone");
    assert_eq!(ids(lab.recovery_open(Some(first.id), 9).await.unwrap()), [second.id]);
    let (waiting, placed) = (RecoveryPhase::Waiting, RecoveryPhase::Placed);
    lab.one(progress(first.id, waiting, placed, false)).await;
    assert_eq!(lab.guard(progress(first.id, waiting, placed, false)).await, Guard::Recovery);
    lab.one(progress(first.id, placed, RecoveryPhase::Verified, true)).await;
    let verified = RecoveryPhase::Verified;
    assert_eq!(lab.guard(progress(first.id, verified, verified, true)).await, Guard::Recovery, "it is over");
    let row = lab.recovery_find(first.id).await.unwrap().unwrap();
    assert_eq!(
        (row.phase, row.closed_at, row.policy, row.rto_seconds),
        (verified, Some(at(9)), OnHostLoss::Recreate, 30)
    );
    let all = RecoveryFilter { limit: 9, ..RecoveryFilter::default() };
    assert_eq!(ids(lab.recovery_list(&all).await.unwrap()), [first.id, second.id]);
    let newest = RecoveryFilter { newest_first: true, after: Some(second.id), ..all };
    assert_eq!(ids(lab.recovery_list(&newest).await.unwrap()), [first.id]);
    let of_one = RecoveryFilter { instance_id: Some(one), ..all };
    assert_eq!(ids(lab.recovery_list(&of_one).await.unwrap()), [first.id]);
    let open = RecoveryFilter { open: true, after: Some(first.id), ..all };
    assert_eq!(ids(lab.recovery_list(&open).await.unwrap()), [second.id]);
    lab.one(RecoveryExpire { before: at(10) }).await;
    assert_eq!(ids(lab.recovery_list(&all).await.unwrap()), [second.id], "what is open stays");
    lab.one(progress(second.id, waiting, RecoveryPhase::Returned, true)).await;
    lab.one(RecoveryExpire { before: at(10) }).await;
    assert!(lab.recovery_list(&all).await.unwrap().is_empty());
}
