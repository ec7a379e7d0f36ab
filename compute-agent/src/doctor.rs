//! Checks whether this host can run instances, and says what to do if not. It changes nothing that lasts.

use crate::{
    config::Config,
    host::{
        cgroup::{Cgroups, parse_mountinfo},
        facts,
    },
    ledger::{Held, Ledger},
    qemu::{argv::Accel, version::find_qemu},
    reconcile::{context::Context, hypervisor::prober},
};
use serde::Serialize;
use service_kit::error_chain;
use std::{fmt, fs, path::Path};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// It works, but less well than it could.
    Warning,
    /// Instances can't run, or soon won't.
    Error,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    pub what: String,
    /// What to do; empty if there is nothing to do.
    pub hint: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok     ",
            Level::Warning => "warning",
            Level::Error => "error  ",
        };
        write!(f, "{level} {}", self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n        {}", self.hint) }
    }
}

impl Finding {
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.level == Level::Error
    }

    fn ok(what: impl Into<String>) -> Self {
        Self { level: Level::Ok, what: what.into(), hint: String::new() }
    }

    fn warning(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level: Level::Warning, what: what.into(), hint: hint.into() }
    }

    fn error(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level: Level::Error, what: what.into(), hint: hint.into() }
    }
}

/// Makes all checks. This takes some seconds if the accelerators were never measured on this host.
pub async fn doctor(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config
        .validate()
        .into_iter()
        .map(|e| Finding::error(e.to_string(), "correct the configuration file"))
        .collect();
    let root = rustix::process::geteuid().is_root();
    findings.push(if root {
        Finding::ok("the agent runs as root")
    } else {
        Finding::error(
            "not run as root: QEMU can't be started with users and control groups of its own",
            "run it as root",
        )
    });
    directories(config, &mut findings);
    qemu(config, root, &mut findings).await;
    cgroups(config, &mut findings);
    space(config, &mut findings);
    ledger(config, &mut findings);
    if let Some(path) = &config.pid_namespace {
        findings.push(match fs::File::open(path) {
            Ok(_) => Finding::ok(format!("the PID namespace {} exists", path.display())),
            Err(e) => Finding::error(
                format!("the PID namespace {} can't be opened: {e}", path.display()),
                "start the process that keeps it, or unset compute.pid_namespace",
            ),
        });
    }
    findings
}

fn directories(config: &Config, findings: &mut Vec<Finding>) {
    if let Err(e) = Context::ensure_dirs(config) {
        let dirs = format!("{} and {}", config.state_dir.display(), config.run_dir.display());
        findings
            .push(Finding::error(format!("{dirs} can't be made: {e}"), "check compute.state_dir and compute.run_dir"));
        return;
    }
    for dir in [&config.state_dir, &config.run_dir] {
        match closed_parent(dir) {
            None => findings.push(Finding::ok(format!("the instances' users can pass through {}", dir.display()))),
            Some(closed) => findings.push(Finding::error(
                format!(
                    "the instances' users can't pass through {}, so their QEMUs can't open their files below it",
                    closed.display()
                ),
                format!("run `chmod o+x {}`", closed.display()),
            )),
        }
    }
}

/// The first directory in the path of `dir` that other users may not pass through.
fn closed_parent(dir: &Path) -> Option<&Path> {
    use std::os::unix::fs::PermissionsExt;
    let mut way: Vec<&Path> = dir.ancestors().collect();
    way.reverse();
    way.into_iter().find(|part| fs::metadata(part).is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0))
}

async fn qemu(config: &Config, root: bool, findings: &mut Vec<Finding>) {
    let qemu = match find_qemu(config.qemu.as_deref()).await {
        Ok(qemu) => qemu,
        // Each of these texts itself says what to do.
        Err(error) => return findings.push(Finding::error(error_chain(&error), "")),
    };
    findings.push(Finding::ok(format!("QEMU {} ({})", qemu.version, qemu.binary.display())));
    match fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => findings.push(Finding::ok("/dev/kvm can be opened")),
        Err(e) => findings.push(Finding::warning(
            format!("/dev/kvm can't be opened ({e}): instances are emulated, which is slow"),
            "enable virtualization in the firmware (or nested virtualization at the provider) and load kvm_intel or kvm_amd",
        )),
    }
    if !root {
        return;
    }
    let probe_uid = config.uid_first + config.uid_count - 1;
    match prober(config, &qemu, probe_uid).accelerator(config.accelerator).await {
        Ok(decision) => {
            findings.push(match decision.accel {
                Accel::Kvm { .. } => Finding::ok(format!("accelerator: {}", decision.reason)),
                Accel::Tcg { .. } => Finding::warning(
                    format!("accelerator: {}", decision.reason),
                    "instances work, but several times slower; for more speed use a machine with working virtualization",
                ),
            });
            // The first warning repeats the reason.
            let because = decision.reason.rsplit("because ").next().unwrap_or_default();
            let warnings = decision.warnings.iter().filter(|w| !w.contains(because));
            findings.extend(warnings.map(|w| Finding::warning(w.clone(), "")));
        }
        Err(error) => findings.push(Finding::error(
            format!("the accelerators can't be measured: {}", error_chain(&error)),
            "check compute.run_dir and compute.state_dir",
        )),
    }
}

fn cgroups(config: &Config, findings: &mut Vec<Finding>) {
    // The mounts are only read here, to distinguish a missing mount from a group that can't be made.
    let mounts = fs::read_to_string("/proc/self/mountinfo").map(|text| parse_mountinfo(&text)).unwrap_or_default();
    let version = match (mounts.v1.is_empty(), mounts.v2.is_some()) {
        (true, true) => "2",
        (false, true) => "1 and 2",
        (false, false) => "1",
        (true, false) => "none",
    };
    match Cgroups::detect(&config.cgroup_parent) {
        Ok(cgroups) if cgroups.warnings().is_empty() => {
            findings.push(Finding::ok(format!("control groups of version {version}")));
        }
        Ok(cgroups) => findings.extend(
            cgroups
                .warnings()
                .iter()
                .map(|w| Finding::warning(w.clone(), "mount the controller, or accept that this limit isn't enforced")),
        ),
        Err(error) => findings.push(Finding::error(error_chain(&error), "see compute.cgroup_parent")),
    }
}

fn space(config: &Config, findings: &mut Vec<Finding>) {
    let Ok(space) = facts::disk_space(&config.state_dir) else { return };
    let (free_gib, reserve) = (space.available_bytes >> 30, config.reserve_disk_gib);
    let what = format!("{free_gib} GiB free in {}", config.state_dir.display());
    findings.push(if free_gib < reserve {
        Finding::error(
            format!("{what}, less than the reserve of {reserve} GiB"),
            "free or add space: guests whose disks can't grow are paused until they can",
        )
    } else if space.total_bytes >> 30 <= reserve + config.image_cache_gib {
        Finding::warning(
            format!("{what}; nothing is left for the instances' disks after the reserve and the image cache"),
            "lower compute.reserve_disk_gib or compute.image_cache_gib, or add space",
        )
    } else {
        Finding::ok(what)
    });
}

fn ledger(config: &Config, findings: &mut Vec<Finding>) {
    match Ledger::peek(&config.state_dir) {
        Ok((held, bad)) => {
            let live = held.iter().filter(|held| matches!(held, Held::Live(_))).count();
            findings.push(Finding::ok(format!("the ledger holds {live} instances")));
            findings.extend(bad.into_iter().map(|file| {
                Finding::error(
                    format!("{} can't be understood: {}", file.path.display(), file.reason),
                    "the next start moves it to ledger/quarantine; its instance keeps running, unmanaged",
                )
            }));
        }
        Err(error) => findings.push(Finding::error(error_chain(&error), "check the disk below compute.state_dir")),
    }
    let quarantine = config.state_dir.join("ledger/quarantine");
    let count = fs::read_dir(&quarantine).map_or(0, Iterator::count);
    if count > 0 {
        findings.push(Finding::warning(
            format!("{count} damaged ledger files are in {}", quarantine.display()),
            "repair them and move them back while the agent is stopped, or remove them",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn config(dir: &Path) -> Config {
        Config {
            state_dir: dir.join("state"),
            run_dir: dir.join("run"),
            qemu: Some("/nonexistent/qemu-system-x86_64".into()),
            cgroup_parent: format!("iaas-doctor-{}", std::process::id()),
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn problems_are_found_and_say_what_to_do() {
        let dir = tempfile::tempdir().expect("dir");
        let config = config(dir.path());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("closed");
        let findings = doctor(&config).await;
        let find = |text: &str| {
            findings.iter().find(|f| f.what.contains(text)).unwrap_or_else(|| panic!("{text}: {findings:?}"))
        };
        assert_eq!(find("qemu-system-x86_64 is not installed").level, Level::Error);
        assert!(find("can't pass through").hint.contains("chmod o+x"));
        assert_eq!(find("the ledger holds 0").level, Level::Ok);

        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("opened");
        fs::create_dir_all(config.state_dir.join("ledger")).expect("made");
        fs::write(config.state_dir.join("ledger/x.json"), b"{").expect("written");
        let findings = doctor(&config).await;
        assert!(findings.iter().any(|f| f.level == Level::Error && f.what.contains("x.json")));
        assert!(!findings.iter().any(|f| f.what.contains("can't pass through")));
        assert!(config.state_dir.join("ledger/x.json").exists(), "it only reads");
        let bad = doctor(&Config { zone: String::new(), ..config.clone() }).await;
        assert!(bad.iter().any(|f| f.what.contains("compute.zone")));
        if let Ok(cgroups) = Cgroups::detect(&config.cgroup_parent) {
            let mounts =
                fs::read_to_string("/proc/self/mountinfo").map(|text| parse_mountinfo(&text)).unwrap_or_default();
            drop(cgroups);
            for mount in mounts.v1.values().chain(&mounts.v2) {
                let _ = fs::remove_dir(mount.join(&config.cgroup_parent));
            }
        }
    }
}
