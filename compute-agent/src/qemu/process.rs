//! Identifies a process that may outlive its starter, so that it isn't confused with whatever gets its number next.
//!
//! QEMU isn't the agent's child (a restarted agent could never wait for it), so `wait` can't report its exit.
//! A pid file with a number alone was rejected: numbers are reused, and a kill by number could hit a stranger. The pair
//! of number and start time is unique within a boot, and `boot_id` makes it unique across boots. A pidfd opened for
//! the number and *then* compared by start time refers to that process for good; it becomes readable at its exit.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

/// Names one process of one boot of this host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessRef {
    /// The number in the host's PID namespace.
    pub pid: i32,
    /// The clock ticks from boot to its start: field 22 of `/proc/PID/stat`.
    pub start_time_ticks: u64,
    pub boot_id: String,
}

#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("process {pid} can't be observed")]
    Observe {
        pid: i32,
        #[source]
        source: io::Error,
    },
    #[error("process {pid} can't be signalled")]
    Signal {
        pid: i32,
        #[source]
        source: io::Error,
    },
}

/// The id that the kernel has given to this boot.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The start time of a running process; `None` if there is none, or if it has ended and only waits for its parent.
pub fn start_time_ticks(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads the start time. The name in parentheses may itself contain spaces and parentheses, so fields are counted from the last one.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let start = fields.nth(18)?.parse().ok()?;
    (!ended).then_some(start)
}

/// Registers a descriptor with the runtime, for reading.
pub(crate) fn await_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always gives the same number, and stays so until it is dropped, which here is with
    // the `AsyncFd` that owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?)
}

impl ProcessRef {
    /// The running process with this number.
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        let start_time_ticks = start_time_ticks(pid).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self { pid, start_time_ticks, boot_id: boot_id()? })
    }

    /// Whether this very process runs. This is cheap: one read of `/proc`.
    pub fn alive(&self) -> bool {
        start_time_ticks(self.pid) == Some(self.start_time_ticks) && boot_id().is_ok_and(|id| id == self.boot_id)
    }

    /// A handle that stays with this process; `None` if it has ended.
    pub fn open(&self) -> Result<Option<ProcessHandle>, ProcessError> {
        let observe = |source: io::Error| ProcessError::Observe { pid: self.pid, source };
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(observe(errno.into())),
        };
        // This is checked after the open: the start time shows if the number was reused before, and from then on the handle is fixed.
        if !self.alive() {
            return Ok(None);
        }
        let fd = await_readable(fd).map_err(observe)?;
        Ok(Some(ProcessHandle { pid: self.pid, fd }))
    }

    /// Returns as soon as the process has ended; at once if it has ended already.
    pub async fn wait_exit(&self) -> Result<(), ProcessError> {
        match self.open()? {
            Some(handle) => handle.wait_exit().await,
            None => Ok(()),
        }
    }

    /// Kills the process and waits until it is gone. Nothing happens if it has ended already.
    pub async fn kill(&self) -> Result<(), ProcessError> {
        let Some(handle) = self.open()? else { return Ok(()) };
        handle.signal(Signal::KILL)?;
        handle.wait_exit().await
    }
}

/// An open pidfd. Needs a Tokio runtime with I/O.
#[derive(Debug)]
pub struct ProcessHandle {
    pid: i32,
    fd: AsyncFd<OwnedFd>,
}

impl ProcessHandle {
    /// Returns as soon as the process has ended, whether or not its parent has waited for it. May be awaited repeatedly.
    pub async fn wait_exit(&self) -> Result<(), ProcessError> {
        match self.fd.readable().await {
            Ok(_) => Ok(()),
            Err(source) => Err(ProcessError::Observe { pid: self.pid, source }),
        }
    }

    /// Sends a signal; one to a process that has ended is no error.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(ProcessError::Signal { pid: self.pid, source: errno.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    #[test]
    fn stat_is_read_behind_any_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(&format!("7 (a) b (c)) {tail}")), Some(4242));
        assert_eq!(parse_stat(&format!("7 (qemu) {}", tail.replacen('S', "Z", 1))), None);
        assert_eq!(parse_stat("7 (qemu"), None);
        assert_eq!(parse_stat("7 (qemu) S 1"), None);
    }

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep runs")
    }

    #[tokio::test]
    async fn kill_is_seen_through_the_pidfd_even_before_the_parent_waits() {
        let mut child = sleeper();
        let process = ProcessRef::of_pid(child.id() as i32).expect("it runs");
        assert!(process.alive());
        tokio::time::timeout(Duration::from_secs(5), process.kill()).await.expect("in time").expect("killed");
        assert!(!process.alive(), "a zombie is not alive");
        assert!(process.open().expect("no error").is_none());
        child.wait().expect("reaped");
        process.wait_exit().await.expect("at once");
    }

    #[tokio::test]
    async fn a_number_that_was_reused_is_another_process() {
        let mut child = sleeper();
        let process = ProcessRef::of_pid(child.id() as i32).expect("it runs");
        let earlier = ProcessRef { start_time_ticks: process.start_time_ticks - 1, ..process.clone() };
        let other_boot = ProcessRef { boot_id: "another".into(), ..process.clone() };
        for stranger in [earlier, other_boot] {
            stranger.kill().await.expect("nothing to kill");
            assert!(process.alive());
        }
        process.kill().await.expect("killed");
        child.wait().expect("reaped");
    }
}
