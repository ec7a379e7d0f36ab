use super::{
    deadline::Deadlines,
    plan::{HostView, ReconcileTarget, Step, plan_step},
    report::{Observation, ReportContext, Stale, Verdict, plan_report},
};
use domain::testing::{NOW, instance};
use domain::{
    HostId, Timestamp,
    instance::{Instance, InstanceState as S, ReportFence},
};
use proptest::prelude::*;
use store::{DiskRow, DiskState};

fn observation(row: &Instance, state: S, converged: bool) -> Observation {
    Observation {
        instance_id: row.id,
        fence: ReportFence { epoch: row.epoch, generation: row.generation, start: 1, counter: 1 },
        state,
        step: String::new(),
        reason: String::new(),
        converged,
        started_at: None,
        guest_up_at: None,
        crash_count: 0,
        exec_ms: None,
        root_used_seq: None,
    }
}

fn context(deadlines: &Deadlines) -> ReportContext<'_> {
    ReportContext { now: NOW, deadlines, starts: 0 }
}

fn report(row: &Instance, observed: &Observation) -> Verdict {
    let stored = ReportFence::default();
    plan_report(row.host_id.expect("placed"), Some((row, stored)), observed, context(&Deadlines::default()))
}

fn any_state() -> impl Strategy<Value = S> {
    proptest::sample::select(S::ALL.to_vec())
}

proptest! {
    #[test]
    fn whatever_a_host_reports_the_row_stays_sound(
        from in any_state(), to in any_state(), converged in any::<bool>(), lag in 0_i64..2, crashes in 0_u32..3,
        reason in "[a-z]{0,5}", step in "[a-z]{0,5}",
    ) {
        prop_assume!(from != S::Deleted);
        let row = instance(from);
        let mut observed = observation(&row, to, converged);
        observed.fence.generation -= lag;
        (observed.crash_count, observed.reason, observed.step) = (crashes, reason, step);
        match report(&row, &observed) {
            Verdict::Store { fence, status, events } => {
                prop_assert!(S::valid_transition(from, status.state), "{from:?} -> {:?}", status.state);
                prop_assert!(status.state != S::Deleted, "only proof ends a row");
                prop_assert_eq!(row.spec.deleted, status.state == S::Deleting);
                prop_assert!(status.state.is_final() || status.deadline_at.is_some(), "no state without an end");
                prop_assert!(status.observed_generation >= row.status.observed_generation, "generations never fall");
                prop_assert!(status.observed_generation <= row.generation);
                prop_assert_eq!(fence.generation, status.observed_generation);
                prop_assert!(status.state != S::Error || !status.reason.is_empty(), "an error says why");
                let kind = "instance.".to_owned() + status.state.as_str();
                prop_assert!(status.state == from || events.iter().any(|e| e.kind == kind), "no event of its change");
                if lag > 0 && !from.is_final() {
                    prop_assert_eq!(status.state, from, "a host that hasn't read the change can't undo what it shows");
                }
            }
            Verdict::Gone { .. } => prop_assert!(row.spec.deleted && to == S::Deleted),
            Verdict::Refuse(Stale::Generation) => prop_assert!(observed.fence.generation < row.status.observed_generation),
            other @ (Verdict::Refuse(_) | Verdict::Orphan { .. } | Verdict::OrphanGone | Verdict::Tombstone) => {
                prop_assert!(false, "{other:?}")
            }
        }
    }
}

#[test]
fn reports_of_another_epoch_host_or_future_change_nothing() {
    let row = instance(S::Running);
    let base = observation(&row, S::Stopped, true);
    let with = |epoch: i64, generation: i64| {
        let mut observed = base.clone();
        (observed.fence.epoch, observed.fence.generation) = (epoch, generation);
        report(&row, &observed)
    };
    assert_eq!(with(row.epoch - 1, row.generation), Verdict::Refuse(Stale::Epoch));
    assert_eq!(with(row.epoch + 1, row.generation), Verdict::Refuse(Stale::Unknown));
    assert_eq!(with(row.epoch, row.generation + 1), Verdict::Refuse(Stale::Unknown));
    assert_eq!(with(row.epoch, row.generation - 1), Verdict::Refuse(Stale::Generation));
    let (deadlines, other) = (Deadlines::default(), HostId::new());
    let stored = ReportFence::default();
    let from = |row: Option<&Instance>, observed: &Observation| {
        plan_report(other, row.map(|r| (r, stored)), observed, context(&deadlines))
    };
    assert!(matches!(from(Some(&row), &base), Verdict::Orphan { .. }));
    assert!(matches!(from(None, &base), Verdict::Orphan { .. }));
    let mut old = base.clone();
    old.fence.epoch -= 1;
    assert_eq!(from(Some(&row), &old), Verdict::Tombstone);
    let gone = observation(&row, S::Deleted, true);
    assert_eq!(from(None, &gone), Verdict::OrphanGone, "there is nothing to keep");
    assert_eq!(from(Some(&row), &gone), Verdict::OrphanGone, "another host's report ends nothing here");
}

#[test]
fn what_is_stored_already_is_not_stored_again() {
    let row = instance(S::Running);
    let report = observation(&row, S::Stopped, true);
    let deadlines = Deadlines::default();
    let with = |stored| plan_report(row.host_id.expect("placed"), Some((&row, stored)), &report, context(&deadlines));
    assert_eq!(with(report.fence), Verdict::Refuse(Stale::Repeat));
    assert_eq!(with(ReportFence { start: 2, counter: 0, ..report.fence }), Verdict::Refuse(Stale::Repeat));
    assert!(matches!(with(ReportFence { counter: 0, ..report.fence }), Verdict::Store { .. }));
}

#[test]
fn a_first_run_says_how_long_it_took_and_a_guest_is_announced_once() {
    let mut row = instance(S::Building);
    row.created_at = Timestamp(NOW.0 - 1500);
    let mut up = observation(&row, S::Running, true);
    up.guest_up_at = Some(NOW);
    let Verdict::Store { status, events, .. } = report(&row, &up) else { panic!() };
    assert_eq!((status.state, status.observed_generation, status.deadline_at), (S::Running, row.generation, None));
    assert_eq!(events[0].data["accepted_to_running_ms"], 1500);
    assert_eq!(events.iter().filter(|e| e.kind == "instance.guest_up").count(), 1);
    row.status = status;
    let Verdict::Store { events, .. } = report(&row, &up) else { panic!() };
    assert_eq!(events, vec![]);
}

#[test]
fn progress_gives_time_and_complaints_do_not() {
    let row = instance(S::Building);
    let mut fetching = observation(&row, S::Building, false);
    fetching.step = "fetching image (41 %)".into();
    let Verdict::Store { status, .. } = report(&row, &fetching) else { panic!() };
    assert_eq!(status.deadline_at, Some(NOW.plus_secs(Deadlines::default().building_secs)));
    fetching.reason = "no route to the storage-manager".into();
    let Verdict::Store { status, .. } = report(&row, &fetching) else { panic!() };
    assert_eq!(status.deadline_at, row.status.deadline_at);
}

/// The reservation of the instance's root disk.
pub(super) fn disk_row(row: &Instance) -> DiskRow {
    DiskRow {
        id: row.root_disk_id.expect("has one"),
        project_id: row.project_id,
        instance_id: row.id,
        role: "root".into(),
        pool: "local".into(),
        size_gib: 10,
        host_id: None,
        epoch: 0,
        state: DiskState::Reserved,
        expires_at: None,
        generation: 1,
        created_at: NOW,
    }
}

pub(super) fn confirmed(row: &Instance) -> DiskRow {
    DiskRow { host_id: row.host_id, epoch: row.epoch, state: DiskState::Confirmed, ..disk_row(row) }
}

const BIND_DISKS: Step = Step::Bind { disks: true, ports: false };
const RELEASE_DISKS: Step = Step::Release { disks: true, ports: false };
const UP: HostView = HostView { connected: true, lost: false, starts: 0 };
const DISCONNECTED: HostView = HostView { connected: false, lost: false, starts: 0 };
const LOST: HostView = HostView { connected: false, lost: true, starts: 0 };

fn target<'a>(instance: &'a Instance, disk: Option<&'a DiskRow>, host: HostView) -> ReconcileTarget<'a> {
    let (host, disks) = (Some(host), disk.map(std::slice::from_ref).unwrap_or_default());
    ReconcileTarget { instance, disks, ports: &[], metadata_digest: "", image_found: true, host, last_failure: None }
}

fn step(row: &Instance, disk: Option<&DiskRow>, host: HostView, now: Timestamp) -> Step {
    plan_step(target(row, disk, host), &Deadlines::default(), now)
}

#[test]
fn nothing_is_delivered_before_its_disk_is_bound_to_this_host_and_epoch() {
    let row = instance(S::Pending);
    assert_eq!(step(&row, None, UP, NOW), Step::ReserveDisks);
    let reserved = DiskRow { state: DiskState::Reserved, host_id: None, epoch: 0, ..confirmed(&row) };
    assert_eq!(step(&row, Some(&reserved), UP, NOW), BIND_DISKS);
    let elsewhere = DiskRow { host_id: Some(HostId::new()), ..confirmed(&row) };
    assert_eq!(step(&row, Some(&elsewhere), UP, NOW), BIND_DISKS);
    let before = DiskRow { epoch: 1, ..confirmed(&row) };
    assert_eq!(step(&row, Some(&before), UP, NOW), BIND_DISKS);
    let small = DiskRow { size_gib: 5, generation: 9, ..confirmed(&row) };
    assert_eq!(step(&row, Some(&small), UP, NOW), Step::ResizeDisk { disk_id: small.id, size_gib: 10, generation: 10 });
    assert_eq!(step(&row, Some(&confirmed(&row)), UP, NOW), Step::Deliver);
    let mut from_memory = row.clone();
    from_memory.root_disk_id = None;
    assert_eq!(step(&from_memory, None, UP, NOW), Step::Deliver);
    let running = instance(S::Running);
    assert_eq!(step(&running, Some(&confirmed(&running)), UP, NOW), Step::Settled);
}

#[test]
fn a_deletion_releases_then_reaches_the_host_and_waits_for_proof_however_long() {
    let row = instance(S::Deleting);
    assert_eq!(step(&row, Some(&confirmed(&row)), UP, NOW), RELEASE_DISKS);
    let releasing = DiskRow { state: DiskState::Releasing, ..confirmed(&row) };
    assert_eq!(step(&row, Some(&releasing), UP, NOW), Step::Deliver);
    assert_eq!(step(&row, None, UP, NOW), Step::Deliver, "no disk is no proof");
    let late = NOW.plus_secs(10_000);
    let Step::Show { state: S::Deleting, deadline_at: Some(at), reason, .. } = step(&row, None, UP, late) else {
        panic!()
    };
    assert!(at > late && reason.contains("hasn't confirmed"), "{reason}");
    let Step::Show { state: S::Deleting, reason, .. } = step(&row, Some(&releasing), DISCONNECTED, NOW) else {
        panic!()
    };
    assert_eq!(reason, "waiting for its host to connect again");
    let mut homeless = row;
    homeless.host_id = None;
    assert_eq!(step(&homeless, None, UP, NOW), Step::RemoveRow);
}

#[test]
fn of_a_lost_host_deletions_complete_and_everything_else_waits_and_says_so() {
    let deleting = instance(S::Deleting);
    assert_eq!(step(&deleting, Some(&confirmed(&deleting)), LOST, NOW), RELEASE_DISKS);
    let late = NOW.plus_secs(10_000);
    for now in [NOW, late] {
        assert_eq!(step(&deleting, None, LOST, now), Step::RemoveRow, "the verdict is the proof");
    }
    for state in S::ALL.into_iter().filter(|s| !matches!(s, S::Deleted | S::Deleting)) {
        let mut row = instance(state);
        (row.status.deadline_at, row.status.reason) = (Some(NOW), "before".to_owned());
        let shown = step(&row, Some(&confirmed(&row)), LOST, late);
        let Step::Show { state: next, reason, deadline_at: Some(at), .. } = shown else {
            panic!("{state:?}: {shown:?}")
        };
        assert!(next == state && at > late, "{state:?}");
        assert_eq!(reason == "before", state == S::Recovering, "a recovery's reason is its own: {state:?}");
        (row.status.reason, row.status.deadline_at) = (reason, Some(at));
        assert_eq!(step(&row, Some(&confirmed(&row)), LOST, late), Step::Settled, "nothing is delivered: {state:?}");
    }
}

#[test]
fn past_its_deadline_every_wait_is_shown_and_none_is_silent() {
    let late = NOW.plus_secs(10_000);
    for state in S::ALL.into_iter().filter(|s| *s != S::Deleted) {
        let mut row = instance(state);
        row.status.deadline_at = Some(NOW);
        row.status.observed_generation = 2;
        for host in [UP, DISCONNECTED] {
            let shown = step(&row, Some(&confirmed(&row)), host, late);
            let Step::Show { state: next, reason, deadline_at, .. } = shown else { panic!("{state:?}: {shown:?}") };
            assert!(S::valid_transition(state, next), "{state:?} -> {next:?}");
            assert!(!reason.is_empty() || state == S::Error, "{state:?}");
            assert_eq!(
                deadline_at.is_some_and(|at| at > late),
                next != S::Error || !host.connected,
                "{state:?} {host:?}"
            );
            // What was shown isn't shown again at once.
            row.status.state = next;
            (row.status.reason, row.status.deadline_at) = (reason, deadline_at);
            assert!(!matches!(step(&row, Some(&confirmed(&row)), host, late), Step::Show { .. }), "{state:?}");
            row = instance(state);
            row.status.deadline_at = Some(NOW);
            row.status.observed_generation = 2;
        }
    }
}

#[test]
fn an_instance_whose_image_vanished_says_so() {
    let row = instance(S::Pending);
    let disk = confirmed(&row);
    let vanished = ReconcileTarget { image_found: false, ..target(&row, Some(&disk), UP) };
    let Step::Show { state: S::Error, reason, deadline_at: None, .. } = plan_step(vanished, &Deadlines::default(), NOW)
    else {
        panic!()
    };
    assert!(reason.contains("no longer exists"), "{reason}");
}
