//! Tests in which a host loses what it had: a disk, the image below it, its ledger, or everything.

use crate::rig::{Host, TestInstance, sha256};
use proto::{
    agent::v1::DesiredDisk,
    cluster::v1::{InstanceState as S, Power},
    sync::v1::{Delta, DesiredObject, ObjectKind, desired_object::Object},
};
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

fn with_data_disk(mut instance: TestInstance) -> TestInstance {
    let disk_id = domain::DiskId::new().to_string();
    let data =
        DesiredDisk { disk_id, role: "data".into(), pool: "local".into(), size_gib: 1, epoch: 1, used_seq: None };
    instance.desired.disks.push(data);
    instance
}

/// What the manager says once the host has reported that the instance ran.
fn known_by_the_manager(instance: &mut TestInstance) {
    for disk in &mut instance.desired.disks {
        disk.used_seq = Some(0);
    }
}

async fn is_an_error(host: &Host, instance: &TestInstance, reason: &str) {
    let generation = instance.desired.generation;
    let lost = |r: &crate::stand_in::Report| r.generation == generation && r.state() == S::Error;
    let report = host.manager.report(&instance.id(), reason, lost).await;
    assert!(report.reason.contains(reason) && !report.converged, "{report:?}");
    assert_eq!(host.qemu(instance), None);
}

/// Each thing that a host can lose while an instance is off, and what becomes of the instance at its next start.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_lost_is_an_error_and_no_empty_disk_takes_its_place() {
    let Some(mut host) = Host::start(1).await else { return };
    let image = vec![7; 1 << 20];
    let sum = sha256(&image);
    host.storage.put(&sum, image);
    type Lose = fn(&TestInstance, &Host);
    let losses: [(&str, Lose, Option<&str>); 5] = [
        ("the root disk", |i, h| remove_file(i, h, "root-0.qcow2"), Some("its root disk is gone")),
        ("a data disk", |i, h| remove_file(i, h, "data-0.qcow2"), Some("its data disk is gone")),
        (
            "the image below the root disk",
            |i, h| remove_file(i, h, "base-root-0.img"),
            Some("image that it lies on is gone"),
        ),
        ("the ledger", |_, h| fs::remove_dir_all(h.config.state_dir.join("ledger")).expect("lost"), None),
        ("the whole directory", |_, h| fs::remove_dir_all(&h.config.state_dir).expect("lost"), Some("disk is gone")),
    ];
    for (what, lose, error) in losses {
        let mut instance = with_data_disk(TestInstance::disk("loses", "raw", &sum, 1 << 20));
        instance.spec().stop_timeout_secs = 0;
        let running = host.reach(&instance, S::Running).await;
        assert_eq!(running.root_used_seq, Some(0), "{what}");
        host.reach(instance.power(Power::Off), S::Stopped).await;
        host.stop_agent().await;
        let root = host.instance_dir(&instance).join("root-0.qcow2");
        let before = fs::metadata(&root).expect("there").ino();
        lose(&instance, &host);
        known_by_the_manager(&mut instance);
        host.manager.instance(&instance.power(Power::On).desired);
        host.start_agent().await;
        match error {
            Some(reason) => {
                is_an_error(&host, &instance, reason).await;
                assert!(what != "the root disk" || !root.exists(), "{what}");
            }
            None => {
                host.reached(&instance, S::Running).await;
                assert_eq!(fs::metadata(&root).expect("there").ino(), before, "{what}: the same disk");
            }
        }
        if what == "the root disk" {
            host.reach(instance.change(|spec| spec.root_seq = 1), S::Running).await;
            assert!(!root.exists(), "a rebuild makes another disk");
        }
        host.reach(instance.delete(), S::Deleted).await;
        assert!(!host.instance_dir(&instance).exists(), "{what}");
    }
}

fn remove_file(instance: &TestInstance, host: &Host, name: &str) {
    let path: PathBuf = host.instance_dir(instance).join(name);
    fs::remove_file(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The disk of an agent that knows it alone: no manager says that it was used.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_alone_knows_that_a_disk_was_used() {
    let Some(host) = Host::start(1).await else { return };
    let mut instance = TestInstance::tiny(&host, "alone").with_disk(1);
    instance.spec().stop_timeout_secs = 0;
    host.reach(&instance, S::Running).await;
    host.reach(instance.power(Power::Off), S::Stopped).await;
    let root = host.instance_dir(&instance).join("root-0.qcow2");
    let aside = root.with_extension("aside");
    fs::rename(&root, &aside).expect("moved");
    host.manager.instance(&instance.power(Power::On).desired);
    is_an_error(&host, &instance, "its root disk is gone").await;
    fs::rename(&aside, &root).expect("moved back");
    // Its owner tries again.
    host.reach(instance.change(|spec| spec.boot_seq += 1), S::Running).await;
    host.reach(instance.delete(), S::Deleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_says_nothing_but_an_id_removes_everything() {
    let Some(mut host) = Host::start(2).await else { return };
    let bare = |instance: &TestInstance| DesiredObject {
        kind: ObjectKind::Instance.into(),
        id: instance.id(),
        epoch: 1,
        generation: instance.desired.generation + 1,
        deleted: true,
        ..DesiredObject::default()
    };
    let known = TestInstance::tiny(&host, "known").with_disk(1);
    host.reach(&known, S::Running).await;
    host.manager.send_delta(Delta { previous: 1, revision: 2, objects: vec![bare(&known)], ..Default::default() });
    host.manager.report(&known.id(), "gone", |r| r.state() == S::Deleted).await;
    assert!(host.qemu(&known).is_none() && !host.instance_dir(&known).exists() && host.cgroups(&known).is_empty());

    // An agent that lost its ledger has never heard of what runs here.
    let forgotten = TestInstance::tiny(&host, "forgotten").with_disk(1);
    host.manager.forget(&known.id());
    host.reach(&forgotten, S::Running).await;
    host.stop_agent().await;
    fs::remove_dir_all(host.config.state_dir.join("ledger")).expect("lost");
    host.manager.forget(&forgotten.id());
    host.start_agent().await;
    assert!(host.qemu(&forgotten).is_some(), "what nobody names runs on");
    let revision = host.manager.revision();
    host.manager.send_delta(Delta {
        previous: revision,
        revision: revision + 1,
        objects: vec![bare(&forgotten)],
        ..Default::default()
    });
    host.manager.report(&forgotten.id(), "gone", |r| r.state() == S::Deleted).await;
    assert!(host.qemu(&forgotten).is_none() && !host.instance_dir(&forgotten).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_makes_no_sense_is_an_error_of_its_instance_and_of_no_other() {
    let Some(host) = Host::start(2).await else { return };
    let (mut odd, mut other) = (TestInstance::tiny(&host, "odd"), TestInstance::tiny(&host, "other"));
    host.manager.set_all_desired(&[odd.desired.clone(), other.desired.clone()]);
    host.reached(&odd, S::Running).await;
    host.reached(&other, S::Running).await;
    let qemu = host.qemu(&odd).expect("runs");
    odd.desired.generation += 1;
    let mut command: DesiredObject = odd.desired.clone().into();
    let Some(Object::Instance(instance)) = &mut command.object else { panic!("an instance") };
    instance.image = None;
    other.power(Power::Paused);
    let revision = host.manager.revision();
    let objects = vec![command, other.desired.clone().into()];
    host.manager.send_delta(Delta { previous: revision, revision: revision + 1, objects, ..Default::default() });
    let failed = host.manager.report(&odd.id(), "an error", |r| r.generation == 2 && r.state() == S::Error).await;
    assert!(failed.reason.contains("image") && failed.reason.contains("update the host's agent"), "{failed:?}");
    host.reached(&other, S::Paused).await;
    assert_eq!(host.qemu(&odd), Some(qemu), "it goes on");
    // The next one that makes sense is done.
    host.manager.set_revision(revision + 1);
    host.reach(odd.power(Power::Paused), S::Paused).await;
}
