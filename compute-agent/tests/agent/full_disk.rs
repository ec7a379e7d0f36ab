//! A host whose disk is full, on a small file system of its own.

use crate::{
    rig::{Host, TestInstance, eventually},
    stand_in::machine,
};
use proto::{
    cluster::v1::InstanceState as S,
    sync::v1::{Delta, DesiredObject, ObjectKind},
};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A small file system, unmounted at the end.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(dir).expect("made");
        let options = format!("size={size},mode=0711");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir).status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("not run: mounting a small file system takes root");
            return None;
        }
        Some(Self(dir.to_path_buf()))
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.0.join("filler")).expect("made");
        for piece in [1 << 20, 4 << 10, 1] {
            while file.write_all(&vec![1; piece]).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // QEMUs that are about to end may hold it for a moment.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_an_agent_stays_connected_deletes_and_says_so() {
    let scratch = tempfile::Builder::new().prefix("iaas-full-").tempdir().expect("dir");
    fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).expect("passable");
    let Some(small) = Small::mount(&scratch.path().join("state"), "96m") else { return };
    let Some(mut host) = Host::start_with(2, |config| {
        config.state_dir = scratch.path().join("state");
        config.reserve_disk_gib = 0;
    })
    .await
    else {
        return;
    };
    let (mut goes, stays) = (TestInstance::tiny(&host, "goes").with_disk(1), TestInstance::tiny(&host, "stays"));
    host.manager.set_all_desired(&[goes.desired.clone(), stays.desired.clone()]);
    host.reached(&goes, S::Running).await;
    host.reached(&stays, S::Running).await;
    small.fill();
    // A new one can't be written down; it has an error, and the session goes on.
    let sessions = host.manager.hellos().len();
    let mut late = TestInstance::tiny(&host, "late");
    late.desired.generation = 1;
    host.manager.instance(&late.desired);
    let refused = host.manager.report(&late.id(), "no room", |r| r.state() == S::Error).await;
    assert!(refused.reason.contains("disk is full"), "{refused:?}");
    host.manager.until("it is said", |received| received.statistics().filter(|s| s.disk_full).map(drop)).await;
    // It is requested again, and not at every beat of the clock.
    host.manager.until("a request", |received| (received.resyncs() >= 1).then_some(())).await;
    assert_eq!(host.manager.hellos().len(), sessions, "one session");
    // What is there is deleted and changed, with an agent that was restarted on the full disk as well.
    host.kill_agent().await;
    host.start_agent().await;
    let hello = host.manager.hellos().pop().expect("hello");
    assert!(machine(&hello).disk_full, "it says so before anything is placed");
    host.manager.instance(&goes.delete().desired);
    host.manager.report(&goes.id(), "gone", |r| r.state() == S::Deleted).await;
    assert!(!host.instance_dir(&goes).exists() && host.qemu(&stays).is_some());
    small.empty();
    host.reached(&late, S::Running).await;
    host.manager.until("room", |received| received.statistics().filter(|s| !s.disk_full).map(drop)).await;
    let reserve = host.config.state_dir.join("ledger/.reserve");
    eventually("room is set apart again", || (fs::metadata(&reserve).ok()?.len() == 4 << 20).then_some(())).await;
    drop(host);
    drop(small);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_numbered_above_what_the_manager_has_seen() {
    let Some(host) = Host::start(1).await else { return };
    let ledger_id = host.manager.hellos()[0].ledger_id.clone();
    assert!(!ledger_id.is_empty());
    host.manager.set_start_floor(40);
    host.manager.drop_link();
    let raised = host
        .manager
        .until("a higher start", |received| received.hellos().iter().find(|hello| hello.start == 40).cloned())
        .await;
    assert_eq!(raised.ledger_id, ledger_id);
    let file = fs::read_to_string(host.config.state_dir.join("ledger/host.json")).expect("there");
    assert!(file.contains("\"start\": 40") && file.contains(&ledger_id), "durable: {file}");
    let bare = DesiredObject {
        kind: ObjectKind::Instance.into(),
        id: domain::InstanceId::new().to_string(),
        epoch: 1,
        generation: 1,
        deleted: true,
        ..DesiredObject::default()
    };
    let id = bare.id.clone();
    host.manager.send_delta(Delta { previous: 0, revision: 1, objects: vec![bare], ..Default::default() });
    host.manager.report(&id, "reported by the new number", |r| r.start == 40 && r.state() == S::Deleted).await;
}
