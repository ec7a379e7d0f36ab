//! Ends the QEMUs of probes that an agent left behind when it was killed. They wait for a monitor connection that never comes, and they are
//! in no ledger: nobody else would ever end them.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{fs, os::unix::ffi::OsStrExt, path::Path};

/// The prefix of the names of probes' directories.
pub const PROBE_DIR: &str = "probe-";

/// Ends the probes of this work directory, and removes their directories. Returns how many ran. No probe of a living agent is among them,
/// because only one agent uses a directory.
pub fn end_probes(work_dir: &Path) -> usize {
    let mut needle = work_dir.join(PROBE_DIR).as_os_str().as_bytes().to_vec();
    needle.retain(|byte| *byte != 0);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ended = processes
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| end(*pid, &needle))
        .count();
    for entry in fs::read_dir(work_dir).into_iter().flatten().flatten() {
        if entry.file_name().as_bytes().starts_with(PROBE_DIR.as_bytes())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(dir = %entry.path().display(), %error, "a probe's directory can't be removed");
        }
    }
    ended
}

fn end(pid: Pid, needle: &[u8]) -> bool {
    // The handle is opened first, so that what is read belongs to the process that the signal goes to, or to none.
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let Ok(line) = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else { return false };
    let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    program.starts_with(b"qemu-system-")
        && line.windows(needle.len()).any(|window| window == needle)
        && pidfd_send_signal(&fd, Signal::KILL).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::process::CommandExt,
        process::{Child, Command, Stdio},
    };

    fn looks_like_qemu(monitor: &Path) -> Child {
        let mut command = Command::new("/bin/sh");
        command.arg0("/usr/bin/qemu-system-x86_64").args(["-c", "read line", "-"]).arg(monitor);
        command.stdin(Stdio::piped()).spawn().expect("runs")
    }

    #[test]
    fn a_killed_agents_probes_are_ended_and_nobody_elses() {
        let dir = tempfile::tempdir().expect("a directory");
        let other = tempfile::tempdir().expect("a directory");
        let scratch = dir.path().join("probe-1");
        fs::create_dir(&scratch).expect("made");
        let mut probe = looks_like_qemu(&scratch.join("qmp"));
        let mut instance = looks_like_qemu(&dir.path().join("vms/1/qmp"));
        let mut foreign = looks_like_qemu(&other.path().join("probe-1/qmp"));
        assert_eq!(end_probes(dir.path()), 1);
        assert!(!probe.wait().expect("ended").success());
        assert!(!scratch.exists());
        for child in [&mut instance, &mut foreign] {
            assert!(child.try_wait().expect("readable").is_none(), "it lives on");
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
        assert_eq!(end_probes(dir.path()), 0);
    }
}
