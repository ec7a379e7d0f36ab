//! The ledger on a disk that is full.

use super::{Accepted, Ledger, LedgerError};
use crate::model::object::{Desired, Key};
use domain::NetworkId;
use proto::{
    network::v1 as pb,
    sync::v1::{DesiredObject, ObjectKind, desired_object::Object},
};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A small file system, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "none"]).arg(dir).status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("not run: mounting a small file system takes root");
            return None;
        }
        Some(Self(dir.to_path_buf()))
    }

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
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A network whose record is as long as its name.
fn network(id: NetworkId, generation: i64, name: &str) -> (DesiredObject, Desired) {
    let object = Object::Network(pb::Network {
        name: name.to_owned(),
        vni: 100,
        mtu: 1450,
        gateway_mac: "02:00:00:00:00:01".into(),
        ..Default::default()
    });
    parsed(DesiredObject { id: id.to_string(), generation, object: Some(object), ..DesiredObject::default() })
}

fn gone(id: NetworkId, generation: i64) -> (DesiredObject, Desired) {
    let kind = ObjectKind::Network.into();
    parsed(DesiredObject { kind, id: id.to_string(), generation, deleted: true, ..DesiredObject::default() })
}

fn parsed(object: DesiredObject) -> (DesiredObject, Desired) {
    let desired = Desired::parse(&object).expect("understood");
    (object, desired)
}

#[tokio::test]
async fn a_full_disk_takes_changes_and_deletions_starts_included_and_nothing_new() {
    let dir = tempfile::tempdir().expect("dir");
    let Some(small) = Small::mount(dir.path()) else { return };
    let state_dir = dir.path().join("state");
    let ledger = Ledger::open(&state_dir, None).expect("made");
    assert!(ledger.has_room());
    // More than the room that is set apart, so that no second file of it fits.
    let ids: Vec<NetworkId> = (0..12).map(|_| NetworkId::new()).collect();
    let name = "x".repeat(512 << 10);
    let all = ids.iter().map(|id| network(*id, 1, &name)).collect();
    assert_eq!(ledger.accept(all, 1).await.expect("taken").left_out, 0);
    small.fill();

    let new = NetworkId::new();
    let Accepted { outcomes, left_out } = ledger
        .accept(vec![network(new, 2, "new"), gone(ids[0], 2), network(ids[1], 2, "changed")], 2)
        .await
        .expect("written");
    assert_eq!((outcomes.len(), left_out), (2, 1));
    assert!(ledger.held(Key::Network(new)).is_none() && !ledger.has_room());
    assert!(matches!(ledger.full(), LedgerError::Full { .. }));
    assert_eq!(ledger.host().revision, 1, "the revision stands for all of it");
    drop(ledger);

    // The agent starts on the full disk, more than once, and knows all that it was told.
    for start in 2..5 {
        let ledger = Ledger::open(&state_dir, None).expect("opened");
        assert_eq!((ledger.host().start, ledger.all().len()), (start, ids.len()));
        assert_eq!(ledger.held(Key::Network(ids[0])).map(|(_, tombstone, _)| tombstone), Some(true));
        let changed = vec![gone(ids[start as usize], start), network(new, start, "new")];
        assert_eq!(ledger.accept(changed, start).await.expect("written").left_out, 1);
    }
    small.empty();
    let ledger = Ledger::open(&state_dir, None).expect("opened");
    assert!(ledger.has_room(), "room is set apart again");
    assert_eq!(ledger.accept(vec![network(new, 9, "new")], 9).await.expect("taken").left_out, 0);
    assert_eq!((ledger.host().revision, ledger.all().len()), (9, ids.len() + 1));
    drop(ledger);
    drop(small);
}
