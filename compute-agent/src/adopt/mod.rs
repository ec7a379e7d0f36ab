//! Finds what runs on this host although this agent didn't start it: the QEMUs of the agent before it.
//!
//! The problem: the agent may be killed between any two instructions, also between a QEMU's exec and the ledger's note of it. A pid
//! file can't help (it is written after the exec too), and the control groups alone aren't enough, because a host may have none mounted. So the
//! process table itself is read: a QEMU of ours has the path of its monitor socket on its command line, and that path names the
//! instance. What it was started as was written beside its disk *before* the exec ([`Launched`]).
//!
//! Invariants: a QEMU in our run directory is never started twice, and never killed for not being in the ledger: it is kept and
//! reported as an orphan. Directories that hold a disk are never removed for it either.

mod launched;

pub use launched::LaunchedError;

use crate::{
    ledger::{Held, Launched, Ledger, Version},
    qemu::process::ProcessRef,
    reconcile::layout::{self, DiskFile, Paths},
};
use domain::InstanceId;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// A QEMU that an agent of this host started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub instance_id: InstanceId,
    pub process: ProcessRef,
    /// The instance's user, whom it runs as.
    pub uid: u32,
}

/// The instance of a command line, which is the one whose monitor socket it names. Pure.
#[must_use]
pub fn instance_of(cmdline: &[u8], vms_dir: &Path) -> Option<InstanceId> {
    let prefix = format!("path={}/", vms_dir.display());
    let suffix = format!("/{}", layout::QMP_SOCKET);
    cmdline.split(|&b| b == 0).find_map(|arg| {
        let arg = std::str::from_utf8(arg).ok()?;
        let (_, rest) = arg.split_once(&prefix)?;
        let (id, tail) = rest.split_at_checked(36)?;
        tail.starts_with(&suffix).then(|| id.parse().ok())?
    })
}

/// The user of this instance, if a process runs as that user and not in another instance's control group. A command line alone proves nothing:
/// anyone can write one, and what is taken for a QEMU is killed when its instance stops.
fn own_user(pid: i32, instance_id: InstanceId, vms_dir: &Path) -> Option<u32> {
    let uid = fs::symlink_metadata(vms_dir.join(instance_id.to_string())).ok()?.uid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let in_foreign_group = other_groups(&groups, instance_id).any(|id| vms_dir.join(id.to_string()).exists());
    (uid != 0 && runs_as(&status, uid) && !in_foreign_group).then_some(uid)
}

/// Whether all four users of a process are this one. Pure.
fn runs_as(status: &str, uid: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let mut uids = line.split_ascii_whitespace().peekable();
    uids.peek().is_some() && uids.all(|text| text.parse() == Ok(uid))
}

/// Whose control groups these may be, if not this instance's: groups of instances are named after them, and so may others be. Pure.
fn other_groups(groups: &str, instance_id: InstanceId) -> impl Iterator<Item = InstanceId> {
    let names = groups.lines().filter_map(|line| line.rsplit('/').next());
    names.filter_map(|name| name.parse::<InstanceId>().ok()).filter(move |id| *id != instance_id)
}

/// All QEMUs whose sockets are in this run directory.
#[must_use]
pub fn running_qemus(run_dir: &Path) -> Vec<Found> {
    let vms_dir = layout::vms_dir(run_dir);
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let found = pids.filter_map(|pid| {
        // The identity is read before the command line, so that the command line belongs to that process or to none.
        let process = ProcessRef::of_pid(pid).ok()?;
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let instance_id = instance_of(&cmdline, &vms_dir)?;
        let Some(uid) = own_user(pid, instance_id, &vms_dir) else {
            tracing::warn!(pid, %instance_id, "a process that names this instance's monitor isn't its QEMU, and is left alone");
            return None;
        };
        process.alive().then_some(Found { instance_id, process, uid })
    });
    found.collect()
}

/// Something of an instance that the ledger doesn't have. It is kept and reported, so that a person can decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    pub instance_id: InstanceId,
    /// The version under which it was started; zero if that isn't known.
    pub version: Version,
    /// Whether a QEMU runs for it.
    pub runs: bool,
}

/// What the agent finds at its start.
#[derive(Debug, Default)]
pub struct Findings {
    /// The running QEMUs by instance, for their tasks. Two QEMUs of one instance would be two machines on one disk, which QEMU's own locks
    /// prevent.
    pub found: HashMap<InstanceId, Found>,
    pub orphans: Vec<Orphan>,
}

/// Finds everything of instances on this host, and removes what safely belongs to none: sockets without a process, instance directories
/// without a disk. Blocking.
#[must_use]
pub fn find_leftovers(ledger: &Ledger, state_dir: &Path, run_dir: &Path) -> Findings {
    let found: HashMap<InstanceId, Found> =
        running_qemus(run_dir).into_iter().map(|found| (found.instance_id, found)).collect();
    let live = |id: InstanceId| matches!(ledger.held(id).as_deref(), Some(Held::Live(_)));
    let mut orphans = BTreeMap::new();
    for id in found.keys().filter(|id| !live(**id)) {
        orphans.insert(*id, true);
    }
    for id in ids_in(&layout::instances_dir(state_dir)).filter(|id| !live(*id) && !found.contains_key(id)) {
        let dir = Paths::new(state_dir, run_dir, id).dir;
        if holds_disk(&dir) {
            tracing::error!(instance_id = %id, dir = %dir.display(), "the ledger doesn't know this instance directory; it is kept because it contains a disk");
            orphans.insert(id, false);
        } else {
            tracing::info!(instance_id = %id, dir = %dir.display(), "removing an instance directory that was left incomplete");
            remove(&dir);
        }
    }
    for id in ids_in(&layout::vms_dir(run_dir)).filter(|id| !live(*id) && !found.contains_key(id)) {
        remove(&Paths::new(state_dir, run_dir, id).run_dir);
    }
    let orphan = |(instance_id, runs)| {
        let launched = Launched::read(&Paths::new(state_dir, run_dir, instance_id).launch()).ok();
        let version = launched.map(|l| l.version).unwrap_or_default();
        if runs {
            tracing::error!(%instance_id, "the ledger doesn't know this running QEMU; it is kept and reported as an orphan");
        }
        Orphan { instance_id, version, runs }
    };
    Findings { orphans: orphans.into_iter().map(orphan).collect(), found }
}

fn ids_in(dir: &Path) -> impl Iterator<Item = InstanceId> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn holds_disk(dir: &Path) -> bool {
    let mut entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_str().and_then(DiskFile::parse).is_some())
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), %error, "a leftover can't be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_names_its_instance() {
        let id = InstanceId::new();
        let vms = Path::new("/run/iaas/compute/vms");
        let line = |path: String| {
            format!("qemu-system-x86_64\0-chardev\0socket,id=qmp,path={path},server=on\0-S").into_bytes()
        };
        assert_eq!(instance_of(&line(format!("/run/iaas/compute/vms/{id}/qmp.sock")), vms), Some(id));
        for other in [
            format!("/run/other/vms/{id}/qmp.sock"),
            format!("/run/iaas/compute/vms/{id}/serial.sock"),
            "/run/iaas/compute/vms/short/qmp.sock".to_owned(),
            format!("/run/iaas/compute/vms/{id}"),
        ] {
            assert_eq!(instance_of(&line(other.clone()), vms), None, "{other}");
        }
        assert_eq!(instance_of(b"\xff\xfe\0path=", vms), None);
    }

    #[test]
    fn a_process_is_a_qemu_of_its_user_and_its_group_alone() {
        let (id, other) = (InstanceId::new(), InstanceId::new());
        let status = |uids: &str| format!("Name:\tqemu\nUid:\t{uids}\nGid:\t1\t1\t1\t1\n");
        assert!(runs_as(&status("600000\t600000\t600000\t600000"), 600_000));
        for uids in ["65534\t65534\t65534\t65534", "0\t600000\t600000\t600000", "600000\t600000\t0\t600000", ""] {
            assert!(!runs_as(&status(uids), 600_000), "{uids}");
        }
        let groups = |id| format!("4:memory:/iaas/{id}\n0::/iaas/{id}\n");
        assert_eq!((other_groups(&groups(id), id).count(), other_groups("0::/\n", id).count()), (0, 0));
        assert!(other_groups(&groups(other), id).all(|found| found == other));
        assert_eq!(other_groups(&groups(other), id).count(), 2);
    }

    /// What anyone can start: a program that calls itself an instance's QEMU.
    #[test]
    fn a_program_that_only_names_the_monitor_is_no_qemu() {
        use std::os::unix::process::CommandExt;
        if !rustix::process::geteuid().is_root() {
            return println!("not run: giving directories away takes root");
        }
        let run = tempfile::tempdir().expect("dir");
        let id = InstanceId::new();
        let own = layout::vms_dir(run.path()).join(id.to_string());
        fs::create_dir_all(&own).expect("made");
        std::os::unix::fs::chown(&own, Some(64_057), Some(64_057)).expect("given away");
        let start = |uid: u32| {
            let mut command = std::process::Command::new("sleep");
            command.arg0(format!("x path={}/qmp.sock", own.display())).arg("60").uid(uid).gid(uid);
            command.spawn().expect("sleep runs")
        };
        let (mut stranger, mut own) = (start(65_534), start(64_057));
        // A program's command line is there a moment after its start.
        let named = |child: &std::process::Child| {
            fs::read(format!("/proc/{}/cmdline", child.id())).is_ok_and(|line| line.starts_with(b"x path="))
        };
        while !(named(&stranger) && named(&own)) {
            std::thread::yield_now();
        }
        let found: Vec<i32> = running_qemus(run.path()).into_iter().map(|found| found.process.pid).collect();
        assert_eq!(found, [own.id() as i32]);
        for child in [&mut stranger, &mut own] {
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
    }

    #[test]
    fn what_belongs_to_no_instance_is_removed_and_disks_stay() {
        let (state, run) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        let (ledger, _) = Ledger::open(state.path(), None).expect("opened");
        let paths = || Paths::new(state.path(), run.path(), InstanceId::new());
        let (half, whole) = (paths(), paths());
        for p in [&half, &whole] {
            fs::create_dir_all(&p.dir).expect("made");
            fs::create_dir_all(&p.run_dir).expect("made");
        }
        fs::write(half.dir.join("root-0.qcow2.new"), b"").expect("written");
        let disk = whole.disk(&DiskFile { role: "root".into(), seq: 3 });
        fs::write(&disk, b"data").expect("written");
        let findings = find_leftovers(&ledger, state.path(), run.path());
        assert!(!half.dir.exists() && !half.run_dir.exists() && !whole.run_dir.exists());
        assert!(disk.exists(), "somebody's data");
        assert_eq!(findings.orphans.len(), 1);
        assert!(!findings.orphans[0].runs && findings.found.is_empty());
    }
}
