use super::{
    nic::expected_nic,
    transition::{Change, TransitionContext, plan_change},
    validate::check_image,
};
use crate::reconcile::deadline::Deadlines;
use domain::{
    ErrorKind, ImageId, PortId, Problem, ProjectId,
    flavor::Size,
    image::{DiskFormat, Image, ImageKind, ImageState, Visibility},
    instance::{Instance, InstanceState as S, NicRequest, PortRequest, Power},
    testing::{NOW, instance},
};

fn run(row: &Instance, change: &Change) -> Result<Option<Instance>, Problem> {
    let deadlines = Deadlines::default();
    plan_change(row, change, context(&deadlines, true))
}

fn context(deadlines: &Deadlines, host_connected: bool) -> TransitionContext<'_> {
    TransitionContext { now: NOW, deadlines, starts: 0, host_connected }
}

fn nic() -> NicRequest {
    NicRequest { port_id: PortId::new(), port: PortRequest::Existing }
}

fn changes() -> Vec<Change> {
    let power = |power| Change::SetPower { power, stop_timeout_secs: None };
    vec![
        Change::Describe { name: Some("other".parse().expect("a name")), tags: None, on_crash: None },
        power(Power::On),
        power(Power::Off),
        power(Power::Paused),
        Change::SetPower { power: Power::Off, stop_timeout_secs: Some(0) },
        Change::Reboot { hard: false },
        Change::Resize { size: Size { vcpus: 4, memory_mib: 2048, disk_gib: 20 }, flavor: String::new() },
        Change::Rebuild { image_id: ImageId::new() },
        Change::AttachNic { request: nic() },
        Change::Delete,
    ]
}

#[test]
fn every_change_in_every_state_is_a_valid_step_a_repeat_or_a_clear_refusal() {
    for state in S::ALL.into_iter().filter(|s| *s != S::Deleted) {
        for change in changes() {
            let row = instance(state);
            match run(&row, &change) {
                Ok(Some(next)) => {
                    assert_eq!(next.generation, row.generation + 1);
                    assert_eq!((next.epoch, next.host_id), (row.epoch, row.host_id), "no change moves an instance");
                    assert!(
                        S::valid_transition(state, next.status.state),
                        "{state:?} {change:?} -> {:?}",
                        next.status.state
                    );
                    assert!(next.status.state.is_final() || next.status.deadline_at.is_some());
                    // The same again changes nothing more, but for what counts.
                    let again = run(&next, &change);
                    let counts =
                        matches!(change, Change::Reboot { .. } | Change::Rebuild { .. } | Change::Resize { .. });
                    let failed = next.status.state == S::Error;
                    assert!(counts || failed || matches!(again, Ok(None)), "{state:?} {change:?}: {again:?}");
                }
                Ok(None) => assert!(!matches!(change, Change::Delete) || row.spec.deleted),
                Err(problem) => {
                    assert_eq!(problem.kind, ErrorKind::InvalidState, "{state:?} {change:?}");
                    assert!(problem.detail.contains("web"), "names the object: {}", problem.detail);
                }
            }
        }
    }
}

#[test]
fn what_each_state_refuses() {
    let refuses = |state, change: &Change| run(&instance(state), change).is_err();
    let [_, _, _, pause, _, reboot, resize, rebuild, attach, delete] = changes().try_into().expect("ten");
    assert!(S::ALL.into_iter().filter(|s| *s != S::Deleted).all(|s| refuses(s, &attach) == (s == S::Deleting)));
    for state in [S::Stopped, S::Pending, S::Building, S::Error, S::Deleting] {
        assert!(refuses(state, &pause) && refuses(state, &reboot), "{state:?}");
    }
    for state in [S::Running, S::Paused, S::Building, S::Error, S::Deleting] {
        assert!(refuses(state, &resize), "{state:?}");
    }
    assert!(refuses(S::Pending, &rebuild) && !refuses(S::Running, &rebuild) && !refuses(S::Error, &rebuild));
    assert!(S::ALL.into_iter().filter(|s| *s != S::Deleted).all(|s| !refuses(s, &delete)));
}

#[test]
fn a_resize_grows_the_disk_but_never_shrinks_it_or_makes_one() {
    let row = instance(S::Stopped);
    let to = |disk_gib| Change::Resize { size: Size { disk_gib, ..row.spec.size }, flavor: String::new() };
    assert_eq!(run(&row, &to(9)).expect_err("smaller").code, "disk_shrink");
    let grown = run(&row, &to(11)).expect("larger").expect("a change");
    assert_eq!((grown.status.state, grown.spec.size.disk_gib), (S::Resizing, 11));
    let mut diskless = row.clone();
    (diskless.root_disk_id, diskless.spec.size.disk_gib) = (None, 0);
    assert_eq!(run(&diskless, &to(1)).expect_err("no disk").code, "no_root_disk");
}

#[test]
fn starting_what_ended_by_itself_counts_a_boot() {
    let mut crashed = instance(S::Stopped);
    crashed.spec.power = Power::On;
    let start = Change::SetPower { power: Power::On, stop_timeout_secs: None };
    let next = run(&crashed, &start).expect("allowed").expect("a change");
    assert_eq!((next.spec.boot_seq, next.status.state), (1, S::Building));
    let next = run(&instance(S::Stopped), &start).expect("allowed").expect("a change");
    assert_eq!((next.spec.boot_seq, next.spec.power), (0, Power::On));
}

#[test]
fn a_change_for_a_disconnected_host_says_what_it_waits_for() {
    let deadlines = Deadlines::default();
    let next = plan_change(&instance(S::Running), &Change::Delete, context(&deadlines, false))
        .expect("allowed")
        .expect("a change");
    assert_eq!(
        (next.status.state, next.status.reason.as_str()),
        (S::Deleting, "waiting for its host to connect again")
    );
}

#[test]
fn images_that_a_size_cannot_boot_are_refused_with_what_to_do() {
    let (id, project_id) = (ImageId::new(), ProjectId::new());
    let mut image = Image {
        id,
        project_id,
        name: "debian".parse().expect("a name"),
        visibility: Visibility::Private,
        kind: ImageKind::Disk,
        format: DiskFormat::Qcow2,
        cmdline: String::new(),
        min_disk_gib: 2,
        min_memory_mib: 256,
        state: ImageState::Active,
        parts: vec![],
        reason: String::new(),
        deadline_at: None,
        generation: 1,
        created_at: NOW,
    };
    let size = Size { vcpus: 1, memory_mib: 256, disk_gib: 2 };
    let code = |image: Option<&Image>, project, size| check_image(id, image, project, size).err().map(|p| p.code);
    assert_eq!(code(Some(&image), project_id, size), None);
    assert_eq!(code(None, project_id, size).as_deref(), Some("image_not_found"));
    assert_eq!(code(Some(&image), ProjectId::new(), size).as_deref(), Some("image_not_found"), "of others: hidden");
    assert_eq!(code(Some(&image), project_id, Size { disk_gib: 1, ..size }).as_deref(), Some("size_too_small"));
    assert_eq!(code(Some(&image), project_id, Size { memory_mib: 255, ..size }).as_deref(), Some("size_too_small"));
    image.state = ImageState::Queued;
    assert_eq!(code(Some(&image), project_id, size).as_deref(), Some("image_not_active"));
    (image.state, image.kind, image.visibility) = (ImageState::Active, ImageKind::Kernel, Visibility::Public);
    assert_eq!(code(Some(&image), ProjectId::new(), Size { disk_gib: 0, ..size }), None);
}

#[test]
fn a_hard_stop_makes_no_later_stop_hard() {
    let power = |power, stop_timeout_secs| Change::SetPower { power, stop_timeout_secs };
    let row = instance(S::Running);
    let own = row.spec.stop_timeout_secs;
    let mut stopped = run(&row, &power(Power::Off, Some(0))).expect("allowed").expect("a change");
    assert_eq!(stopped.spec.stop_timeout_secs, 0);
    stopped.status.state = S::Stopped;
    let started = run(&stopped, &power(Power::On, None)).expect("allowed").expect("a change");
    assert_eq!(started.spec.stop_timeout_secs, own);
}

#[test]
fn nics_come_and_go_by_their_port_and_a_repeat_changes_nothing() {
    let row = instance(S::Running);
    let (first, second) = (nic(), nic());
    let attach = |nic: &NicRequest| Change::AttachNic { request: nic.clone() };
    let one = run(&row, &attach(&first)).expect("allowed").expect("a change");
    let both = run(&one, &attach(&second)).expect("allowed").expect("a change");
    assert_eq!(both.spec.nics, [expected_nic(&first), expected_nic(&second)], "in the order in which they came");
    assert_eq!((both.status.state, both.generation), (S::Running, row.generation + 2));
    assert!(both.status.deadline_at.is_some(), "what a host doesn't do shows");
    assert_eq!(run(&both, &attach(&first)), Ok(None));
    let detach = Change::DetachNic { port_id: first.port_id };
    let left = run(&both, &detach).expect("allowed").expect("a change");
    assert_eq!(left.spec.nics, [expected_nic(&second)]);
    assert_eq!(run(&left, &detach), Ok(None));

    let mut full = row;
    full.spec.nics = (0..16).map(|_| expected_nic(&nic())).collect();
    assert_eq!(run(&full, &attach(&first)).expect_err("one too many").kind, ErrorKind::InvalidArgument);
}
