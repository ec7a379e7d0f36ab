//! Tests of hosts that share a pool: a disk goes on with another host, and no host touches what another one has.

use crate::{
    rig::{Host, TestInstance, sha256},
    stand_in::Report,
};
use compute_agent::disk::{
    header::Header,
    pool::{MARKER, SharedPool, init},
};
use proto::cluster::v1::{InstanceState as S, Power};
use std::{fs, os::unix::fs::MetadataExt, os::unix::fs::PermissionsExt, path::Path};

struct Rig {
    dir: tempfile::TempDir,
    pool: SharedPool,
    one: Host,
    two: Host,
}

/// Two hosts, each with a manager of its own, that mount the same pool.
async fn rig() -> Option<Rig> {
    let dir = tempfile::Builder::new().prefix("iaas-pool-").tempdir_in("/var/tmp").expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("passable");
    init(dir.path()).expect("made");
    let mount = |config: &mut compute_agent::Config| config.shared_pool = Some(dir.path().to_path_buf());
    let one = Host::start_with(2, mount).await?;
    let two = Host::start_with(0, mount).await?;
    Some(Rig { pool: SharedPool::new(dir.path().to_path_buf()), one, two, dir })
}

fn shared(mut instance: TestInstance) -> TestInstance {
    "shared".clone_into(&mut instance.spec().pool);
    instance.spec().stop_timeout_secs = 0;
    instance
}

/// The instance as its next host gets it.
fn moved(instance: &TestInstance) -> TestInstance {
    let mut moved = instance.clone();
    moved.desired.epoch += 1;
    moved.desired.generation += 1;
    let epoch = moved.desired.epoch;
    for disk in &mut moved.desired.disks {
        (disk.epoch, disk.used_seq) = (epoch, Some(0));
    }
    moved
}

async fn waits(host: &Host, instance: &TestInstance, reason: &str, state: S) -> Report {
    let generation = instance.desired.generation;
    let waiting = |r: &Report| r.generation == generation && r.reason.contains(reason);
    let report = host.manager.report(&instance.id(), reason, waiting).await;
    assert_eq!((report.state(), report.converged), (state, false), "{report:?}");
    assert_eq!(host.qemu(instance), None);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_goes_on_with_another_host_and_the_one_before_touches_it_no_more() {
    let Some(Rig { dir: _dir, pool, one, two }) = rig().await else { return };
    let image = vec![7; 1 << 20];
    let sum = sha256(&image);
    for host in [&one, &two] {
        host.storage.put(&sum, image.clone());
    }
    let mut first = shared(TestInstance::disk("web", "raw", &sum, 1 << 20));
    one.reach(&first, S::Running).await;
    let disk = pool.instance_dir(first.id).join("root-0.qcow2");
    let inode = fs::metadata(&disk).expect("in the pool").ino();
    assert!(!one.instance_dir(&first).join("root-0.qcow2").exists(), "and nowhere else");
    let header = Header::read(&disk).expect("readable").expect("a qcow2");
    assert_eq!(
        header.backing.as_deref(),
        Some(Path::new("base-root-0.img")),
        "it is found wherever the pool is mounted"
    );

    // The other host is given it while it runs: as if its host had been declared dead by mistake.
    let mut second = moved(&first);
    two.manager.instance(&second.desired);
    let held = format!("its disk is still held by host {}", one.config.host_name);
    waits(&two, &second, &held, S::Building).await;
    assert!(one.qemu(&first).is_some(), "it goes on");

    // The host comes back and is told the end of what was taken from it.
    let one_of_them = one.reach(first.delete(), S::Deleted).await;
    assert_eq!(one_of_them.epoch, 1);
    two.reached(&second, S::Running).await;
    assert_eq!(fs::metadata(&disk).expect("the same disk").ino(), inode);
    // A deletion everywhere, but of an epoch that is over.
    first.desired.erase_shared = true;
    first.desired.generation += 1;
    one.manager.instance(&first.desired);
    let fresh = TestInstance::disk("other", "raw", &sum, 1 << 20);
    one.reach(&fresh, S::Running).await;
    assert!(disk.exists() && two.qemu(&second).is_some());

    // Its disk grows there, which its new user does.
    let larger = |spec: &mut proto::cluster::v1::InstanceSpec| spec.size.as_mut().expect("a size").disk_gib = 2;
    two.reach(second.change(larger), S::Running).await;
    assert_eq!(Header::read(&disk).expect("readable").expect("a qcow2").size_bytes, 2 << 30);

    second.desired.erase_shared = true;
    two.reach(second.delete(), S::Deleted).await;
    assert!(!pool.instance_dir(second.id).exists(), "its end everywhere");
    assert_eq!(fs::read_dir(pool.dir().join("images")).expect("readable").count(), 0, "no disk lies on the image");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_never_had_the_disks_erases_them_with_the_instance() {
    let Some(Rig { dir: _dir, pool, one, two }) = rig().await else { return };
    let mut instance = shared(TestInstance::tiny(&one, "gone").with_disk(1));
    one.reach(&instance, S::Running).await;
    one.reach(instance.power(Power::Off), S::Stopped).await;
    let mut second = moved(&instance);
    second.desired.erase_shared = true;
    two.reach(second.delete(), S::Deleted).await;
    assert!(!pool.instance_dir(second.id).exists());
    instance.desired.erase_shared = false;
    one.reach(instance.delete(), S::Deleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_pool_an_instance_says_why_and_no_disk_is_made_anew() {
    let Some(Rig { dir, pool, one, two: _two }) = rig().await else { return };
    let mut instance = shared(TestInstance::tiny(&one, "web").with_disk(1));
    one.reach(&instance, S::Running).await;
    one.reach(instance.power(Power::Off), S::Stopped).await;
    // What an unmounted pool looks like.
    let (marker, away) = (dir.path().join(MARKER), dir.path().join("away"));
    fs::rename(&marker, &away).expect("renamed");
    one.manager.instance(&instance.power(Power::On).desired);
    waits(&one, &instance, "isn't a shared pool, or it isn't mounted", S::Error).await;
    fs::rename(&away, &marker).expect("renamed");
    one.reached(&instance, S::Running).await;

    one.reach(instance.power(Power::Off), S::Stopped).await;
    fs::rename(&marker, &away).expect("renamed");
    instance.desired.erase_shared = true;
    one.manager.instance(&instance.delete().desired);
    waits(&one, &instance, "isn't mounted", S::Deleting).await;
    assert!(pool.instance_dir(instance.id).join("root-0.qcow2").exists(), "a deletion isn't done without the pool");
    fs::rename(&away, &marker).expect("renamed");
    one.reached(&instance, S::Deleted).await;
    assert!(!pool.instance_dir(instance.id).exists());

    // It isn't where it was used: nothing takes its place.
    let lost = moved(&shared(TestInstance::tiny(&one, "lost").with_disk(1)));
    one.manager.instance(&lost.desired);
    waits(&one, &lost, "its root disk is gone", S::Error).await;
    assert!(!pool.instance_dir(lost.id).join("root-0.qcow2").exists());
}
