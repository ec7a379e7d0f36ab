//! Limits each instance by a control group of its own, on version 1, on version 2, and on the hybrid of both.
//!
//! Every instance gets a group `<parent>/<instance id>`. On v2 that is one directory; on v1 one per hierarchy. A
//! controller that the host lacks is a warning and a limit that isn't enforced, never a reason not to run.
//!
//! - **v2's no-internal-process rule**: a group that hands controllers to its children must hold no process itself. So
//!   controllers are enabled along the path from the mount's root to the parent, and where an inner group holds processes
//!   the error says so: with systemd, give the agent a delegated slice as parent (`Delegate=yes`), in which
//!   nothing runs directly.
//! - **The CPU limit is a ceiling, the weight is the share under contention**: both follow the vCPUs, and the emulator's
//!   own threads get half a CPU on top, or a guest at full load would starve its own I/O.
//! - **The freezer** is v2's `cgroup.freeze` or v1's freezer hierarchy.
//! - The group is the truth about what runs for an instance: [`Group::members`] finds a QEMU that no ledger knows, and
//!   [`Group::kill_all`] ends it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

/// The period over which CPU limits are counted, in microseconds.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// The controllers that are used where the host has them.
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "freezer"];

#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("no cgroup file system is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup`")]
    NotMounted,
    #[error("the group {path} can't be made: the agent needs root, or a parent group that systemd delegates to it")]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the controllers {controllers} can't be enabled below {path}, because processes run in that group itself: set \
         `cgroup_parent` to a group without processes of its own, such as a slice with Delegate=yes"
    )]
    Busy { path: PathBuf, controllers: String },
    #[error("{path} can't be written")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} can't be read")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the group {path} can't be removed: {members} processes are in it")]
    Occupied { path: PathBuf, members: usize },
}

/// What one instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The memory limit: the guest's memory and [`crate::qemu::overhead`].
    pub memory_bytes: u64,
    pub vcpus: u32,
    pub tasks_max: u64,
}

/// Where the hierarchies are mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mounts {
    /// The mount points of v1, by controller.
    pub v1: BTreeMap<String, PathBuf>,
    /// The v2 mount; in the hybrid its controllers are those that v1 hasn't taken.
    pub v2: Option<PathBuf>,
}

/// Finds the mounts in the text of `/proc/self/mountinfo`. Pure.
pub fn parse_mountinfo(text: &str) -> Mounts {
    let mut mounts = Mounts::default();
    for line in text.lines() {
        // Optional fields come before the dash, so the two halves are counted separately.
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4).map(unescape) else { continue };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        match kind {
            "cgroup2" => mounts.v2 = mounts.v2.or(Some(point)),
            "cgroup" => {
                for name in options.split(',').filter(|name| CONTROLLERS.contains(name)) {
                    mounts.v1.entry(name.to_owned()).or_insert_with(|| point.clone());
                }
            }
            _ => {}
        }
    }
    mounts
}

/// Replaces the octal escapes in which the kernel writes blank, tab, newline and backslash.
fn unescape(text: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)).into()
}

/// The parent of all instances' groups.
#[derive(Debug, Clone)]
pub struct Cgroups {
    mounts: Mounts,
    /// The path relative to each mount, without a leading slash: `iaas`, `iaas.slice`.
    parent: PathBuf,
    /// The controllers that v2 gives to the instances' groups.
    v2_controllers: Vec<String>,
    warnings: Vec<String>,
}

impl Cgroups {
    /// Finds the mounts, makes the parent group and enables the controllers of v2.
    pub fn detect(parent: &str) -> Result<Self, CgroupError> {
        let path = PathBuf::from("/proc/self/mountinfo");
        let text = fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })?;
        Self::over(parse_mountinfo(&text), parent)
    }

    /// Makes and enables the groups on the given mounts.
    pub fn over(mounts: Mounts, parent: &str) -> Result<Self, CgroupError> {
        let parent = PathBuf::from(parent.trim_matches('/'));
        let mut v2_controllers = vec![];
        if let Some(mount) = &mounts.v2 {
            v2_controllers = enable_v2(mount, &parent)?;
        }
        for mount in mounts.v1.values() {
            make(&mount.join(&parent))?;
        }
        if mounts.v1.is_empty() && mounts.v2.is_none() {
            return Err(CgroupError::NotMounted);
        }
        weigh(&mounts, &parent, v2_controllers.iter().any(|c| c == "cpu"))?;
        let missing = |name: &str| {
            let in_v2 = if name == "freezer" { mounts.v2.is_some() } else { v2_controllers.iter().any(|c| c == name) };
            !in_v2 && !mounts.v1.contains_key(name)
        };
        let warnings = CONTROLLERS
            .into_iter()
            .filter(|name| missing(name))
            .map(|name| format!("this host has no cgroup controller `{name}`: its limit on instances isn't enforced"))
            .collect();
        Ok(Self { mounts, parent, v2_controllers, warnings })
    }

    /// Sentences about limits that can't be enforced on this host.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The group with this name, whether or not it exists.
    pub fn group(&self, name: &str) -> Group {
        // One v1 mount may have several controllers, and each directory must be joined only once.
        let mut dirs: Vec<PathBuf> = self.mounts.v1.values().chain(&self.mounts.v2).cloned().collect();
        dirs.sort_unstable();
        dirs.dedup();
        let below = self.parent.join(name);
        Group { cgroups: self.clone(), dirs: dirs.into_iter().map(|dir| dir.join(&below)).collect(), below }
    }

    /// The names of all groups below the parent, in any hierarchy, including what an earlier run of the agent left.
    pub fn list(&self) -> Vec<String> {
        let mut names = std::collections::BTreeSet::new();
        for mount in self.mounts.v1.values().chain(&self.mounts.v2) {
            let Ok(entries) = fs::read_dir(mount.join(&self.parent)) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                names.extend(entry.file_name().into_string());
            }
        }
        names.into_iter().collect()
    }
}

/// Gives all instances together the weight of one busy process per hardware thread. With the default weight they would count as one process
/// in total, and a compiler run on the host would halve the speed of every guest.
fn weigh(mounts: &Mounts, parent: &Path, cpu_in_v2: bool) -> Result<(), CgroupError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    if let Some(mount) = mounts.v1.get("cpu") {
        write(&mount.join(parent).join("cpu.shares"), &(1024 * threads).min(262_144).to_string())?;
    } else if let Some(mount) = mounts.v2.as_ref().filter(|_| cpu_in_v2) {
        write_if_there(&mount.join(parent).join("cpu.weight"), &(100 * threads).min(10_000).to_string())?;
    }
    Ok(())
}

/// Enables the controllers along the path from the mount's root to `parent`. Returns those that the children get.
fn enable_v2(mount: &Path, parent: &Path) -> Result<Vec<String>, CgroupError> {
    let mut dir = mount.to_path_buf();
    let mut steps = parent.components();
    loop {
        let file = dir.join("cgroup.controllers");
        let offered = fs::read_to_string(&file).map_err(|source| CgroupError::Read { path: file, source })?;
        let control = dir.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&control).unwrap_or_default();
        let has = |list: &str, name: &str| list.split_ascii_whitespace().any(|c| c == name);
        let available: Vec<&str> = CONTROLLERS.into_iter().filter(|c| has(&offered, c)).collect();
        let lacking: Vec<&str> = available.iter().copied().filter(|c| !has(&enabled, c)).collect();
        if !lacking.is_empty() {
            let text: Vec<String> = lacking.iter().map(|c| format!("+{c}")).collect();
            fs::write(&control, text.join(" ")).map_err(|source| {
                if source.kind() == io::ErrorKind::ResourceBusy {
                    CgroupError::Busy { path: dir.clone(), controllers: lacking.join(", ") }
                } else {
                    CgroupError::Write { path: control, source }
                }
            })?;
        }
        match steps.next() {
            None => return Ok(available.into_iter().map(str::to_owned).collect()),
            Some(step) => {
                dir.push(step);
                make(&dir)?;
            }
        }
    }
}

fn make(dir: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(dir).map_err(|source| CgroupError::Create { path: dir.to_path_buf(), source })
}

/// One instance's group, whether or not it exists.
#[derive(Debug, Clone)]
pub struct Group {
    cgroups: Cgroups,
    below: PathBuf,
    dirs: Vec<PathBuf>,
}

impl Group {
    /// Makes the group and sets its limits. Repeating it with other limits changes them, also while a QEMU runs in the group.
    pub fn ensure(&self, limits: &Limits) -> Result<(), CgroupError> {
        for dir in &self.dirs {
            make(dir)?;
        }
        let quota = CPU_PERIOD_MICROS * u64::from(limits.vcpus) + CPU_PERIOD_MICROS / 2;
        if let Some(dir) = self.v1("memory") {
            write(&dir.join("memory.limit_in_bytes"), &limits.memory_bytes.to_string())?;
        } else if let Some(dir) = self.v2("memory") {
            write(&dir.join("memory.max"), &limits.memory_bytes.to_string())?;
            // Swapped guests are slow. The file is missing where the kernel doesn't count swap.
            write_if_there(&dir.join("memory.swap.max"), "0")?;
        }
        if let Some(dir) = self.v1("cpu") {
            write(&dir.join("cpu.cfs_period_us"), &CPU_PERIOD_MICROS.to_string())?;
            write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?;
            write(&dir.join("cpu.shares"), &(1024 * u64::from(limits.vcpus)).min(262_144).to_string())?;
        } else if let Some(dir) = self.v2("cpu") {
            write(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_MICROS}"))?;
            write(&dir.join("cpu.weight"), &(100 * u64::from(limits.vcpus)).min(10_000).to_string())?;
        }
        if let Some(dir) = self.v1("pids").or_else(|| self.v2("pids")) {
            write(&dir.join("pids.max"), &limits.tasks_max.to_string())?;
        }
        Ok(())
    }

    /// The files into which a process writes itself to join, one per hierarchy; for [`crate::qemu::launch::Confinement`].
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Moves a running process (all its threads) into the group.
    pub fn join(&self, pid: i32) -> Result<(), CgroupError> {
        self.procs_files().iter().try_for_each(|file| write(file, &pid.to_string()))
    }

    /// The processes in the group, in any hierarchy; empty if it doesn't exist.
    pub fn members(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .procs_files()
            .iter()
            .filter_map(|file| fs::read_to_string(file).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Stops (`true`) or continues every process in the group. The kernel finishes this a moment later; see [`Self::frozen`].
    pub fn freeze(&self, freeze: bool) -> Result<(), CgroupError> {
        if let Some(dir) = self.v1("freezer") {
            return write(&dir.join("freezer.state"), if freeze { "FROZEN" } else { "THAWED" });
        }
        match &self.cgroups.mounts.v2 {
            Some(mount) => write(&mount.join(&self.below).join("cgroup.freeze"), if freeze { "1" } else { "0" }),
            None => Ok(()),
        }
    }

    /// Whether every process in the group is stopped by now.
    pub fn frozen(&self) -> Result<bool, CgroupError> {
        if let Some(dir) = self.v1("freezer") {
            return Ok(read(&dir.join("freezer.state"))?.trim() == "FROZEN");
        }
        match &self.cgroups.mounts.v2 {
            Some(mount) => Ok(read(&mount.join(&self.below).join("cgroup.events"))?.contains("frozen 1")),
            None => Ok(false),
        }
    }

    /// The memory in use, in bytes; `None` where it isn't counted.
    pub fn memory_used_bytes(&self) -> Option<u64> {
        let (dir, name) = match self.v1("memory") {
            Some(dir) => (dir, "memory.usage_in_bytes"),
            None => (self.v2("memory")?, "memory.current"),
        };
        read(&dir.join(name)).ok()?.trim().parse().ok()
    }

    /// Kills everything in the group until nothing is left. The group is thawed first, because v1 delivers nothing to a frozen process.
    pub async fn kill_all(&self) -> Result<(), CgroupError> {
        const ROUND: Duration = Duration::from_millis(5);
        const ROUNDS: usize = 1000;
        let mut members = self.members();
        for _ in 0..ROUNDS {
            if members.is_empty() {
                return Ok(());
            }
            self.freeze(false)?;
            // The handles are opened before the list is read again: a number that is still listed belongs to the process behind its handle.
            let handles: Vec<(i32, OwnedFd)> = members
                .iter()
                .filter_map(|&pid| Some((pid, pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?)))
                .collect();
            let still = self.members();
            for (_, handle) in handles.iter().filter(|(pid, _)| still.contains(pid)) {
                // An error means that the process has just ended.
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
            tokio::time::sleep(ROUND).await;
            members = self.members();
        }
        Err(CgroupError::Occupied { path: self.below.clone(), members: members.len() })
    }

    /// Removes the group if nothing runs in it. A group that doesn't exist is no error.
    pub fn remove(&self) -> Result<(), CgroupError> {
        for dir in &self.dirs {
            match fs::remove_dir(dir) {
                Err(source) if source.kind() == io::ErrorKind::ResourceBusy => {
                    return Err(CgroupError::Occupied { path: dir.clone(), members: self.members().len() });
                }
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(CgroupError::Write { path: dir.clone(), source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.cgroups.mounts.v1.get(controller).map(|mount| mount.join(&self.below))
    }

    fn v2(&self, controller: &str) -> Option<PathBuf> {
        let mount = self.cgroups.mounts.v2.as_ref()?;
        self.cgroups.v2_controllers.iter().any(|c| c == controller).then(|| mount.join(&self.below))
    }
}

fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::Read { path: path.to_path_buf(), source })
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    fs::write(path, text).map_err(|source| CgroupError::Write { path: path.to_path_buf(), source })
}

fn write_if_there(path: &Path, text: &str) -> Result<(), CgroupError> {
    if path.exists() { write(path, text) } else { Ok(()) }
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
