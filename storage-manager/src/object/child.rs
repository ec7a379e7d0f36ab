//! Child processes that read untrusted content, bounded in everything that they can take from this machine.
//!
//! **The problem.** What a child does with a tenant's bytes is the tenant's choice: how long it computes, how much memory it asks for, and
//! how much it writes to its standard output and error. A limit on files doesn't hold for pipes, and what a parent reads from a pipe is
//! the parent's memory. So a child that complains without end fills the control plane, not itself.
//!
//! **What holds.**
//! 1. Of each pipe at most [`Bounds::output_bytes`] are read. A child that writes more is killed, and nothing of what it wrote counts.
//! 2. Address space, processor time and wall time end; no file can be written; no core is dumped.
//! 3. It runs as an unprivileged user where this process is root, yields the processor to everything else (nice 19), and is the first that
//!    the kernel ends when memory is short.
//! 4. It is killed and reaped however the wait for it ends, also when the caller goes away.
//!
//! **Rejected.** A control group for it: rights to make one differ from machine to machine, and these limits need none.
//!
//! This is the only module of the storage-manager that starts a process.

use std::{
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

/// The uid and gid of `nobody`.
const NOBODY: u32 = 65_534;

/// What a child may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Address space.
    pub memory_bytes: u64,
    pub cpu_secs: u64,
    pub wall: Duration,
    /// Of its standard output, and as much of its standard error.
    pub output_bytes: usize,
}

/// How a child ended.
#[derive(Debug)]
pub enum Ended {
    /// It ended by itself.
    Exited { status: ExitStatus, stdout: Vec<u8>, stderr: Vec<u8> },
    /// It was killed because it wrote more than it may.
    WroteTooMuch,
    /// The kernel killed it: it took more processor time or memory than it may.
    Killed,
}

#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("cannot run {program}")]
    Spawn {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{program} took longer than {secs} s")]
    TimedOut { program: &'static str, secs: u64 },
}

/// Runs `program`, which gets `input` as its standard input and nothing else of this process.
pub async fn run(program: &'static str, args: &[&str], input: File, bounds: Bounds) -> Result<Ended, ChildError> {
    let failed = |source| ChildError::Spawn { program, source };
    let mut command = Command::new("prlimit");
    command
        .arg(format!("--as={}", bounds.memory_bytes))
        .arg(format!("--cpu={}", bounds.cpu_secs))
        .args(["--fsize=0", "--core=0", "--nofile=256", "--"])
        .args(["nice", "-n", "19", "choom", "-n", "1000", "--", program])
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if running_as_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn().map_err(failed)?;
    let ended = tokio::time::timeout(bounds.wall, wait(&mut child, bounds.output_bytes)).await;
    match ended {
        // 126 and 127 come from prlimit, nice or choom: what they were to run wasn't found, or couldn't be.
        Ok(Ok(Ended::Exited { status, stderr, .. })) if matches!(status.code(), Some(126 | 127)) => {
            Err(failed(io::Error::other(String::from_utf8_lossy(&stderr).trim().to_owned())))
        }
        Ok(Ok(ended @ (Ended::Exited { .. } | Ended::Killed))) => Ok(ended),
        Ok(Ok(Ended::WroteTooMuch)) => {
            child.kill().await.map_err(failed)?;
            Ok(Ended::WroteTooMuch)
        }
        Ok(Err(error)) => {
            // What it was doing doesn't matter any more.
            let _ = child.kill().await;
            Err(failed(error))
        }
        Err(_) => {
            child.kill().await.map_err(failed)?;
            Err(ChildError::TimedOut { program, secs: bounds.wall.as_secs() })
        }
    }
}

async fn wait(child: &mut Child, most: usize) -> io::Result<Ended> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = tokio::try_join!(read_at_most(stdout, most), read_at_most(stderr, most));
    let (stdout, stderr) = match read {
        Ok(both) => both,
        Err(ReadFailure::TooMuch) => return Ok(Ended::WroteTooMuch),
        Err(ReadFailure::Io(error)) => return Err(error),
    };
    let status = child.wait().await?;
    Ok(if status.signal().is_some() { Ended::Killed } else { Ended::Exited { status, stdout, stderr } })
}

enum ReadFailure {
    TooMuch,
    Io(io::Error),
}

/// Reads to the end, which must come within `most` bytes.
async fn read_at_most(pipe: Option<impl AsyncRead + Unpin>, most: usize) -> Result<Vec<u8>, ReadFailure> {
    let Some(pipe) = pipe else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    pipe.take(limit).read_to_end(&mut bytes).await.map_err(ReadFailure::Io)?;
    if bytes.len() > most { Err(ReadFailure::TooMuch) } else { Ok(bytes) }
}

fn running_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { memory_bytes: 256 << 20, cpu_secs: 20, wall: Duration::from_secs(60), output_bytes: 4096 };

    async fn shell(script: &str, bounds: Bounds) -> Result<Ended, ChildError> {
        let input = File::open("/dev/null").expect("it opens");
        run("sh", &["-c", script], input, bounds).await
    }

    #[tokio::test]
    async fn what_a_child_writes_is_bounded_on_each_of_its_pipes() {
        for script in [
            "exec yes",
            "exec yes >&2",
            "yes >&2 & exec yes",
            "head -c 4097 /dev/zero",
            "head -c 4097 /dev/zero >&2",
            // It writes little on one pipe and never closes it.
            "echo fine; exec yes >&2",
        ] {
            let ended = shell(script, BOUNDS).await.expect("it runs");
            assert!(matches!(ended, Ended::WroteTooMuch), "{script}: {ended:?}");
        }
        let whole = shell("head -c 4096 /dev/zero; head -c 4096 /dev/zero >&2; exit 3", BOUNDS).await;
        let Ok(Ended::Exited { status, stdout, stderr }) = whole else { panic!("it may write so much: {whole:?}") };
        assert_eq!((status.code(), stdout.len(), stderr.len()), (Some(3), 4096, 4096));
    }

    #[tokio::test]
    async fn time_and_memory_end_and_no_file_is_written() {
        let busy = shell("while :; do :; done", Bounds { cpu_secs: 1, ..BOUNDS }).await.expect("it runs");
        assert!(matches!(busy, Ended::Killed), "{busy:?}");
        let asleep = shell("exec sleep 1000", Bounds { wall: Duration::from_millis(50), ..BOUNDS }).await;
        assert!(matches!(asleep, Err(ChildError::TimedOut { .. })), "{asleep:?}");
        let large = shell("exec head -c 1000000000 /dev/zero | tail -c 999999999 | wc -c", BOUNDS).await;
        let Ok(Ended::Exited { stdout, .. }) = large else { panic!("it ends by itself: {large:?}") };
        assert_ne!(String::from_utf8_lossy(&stdout).trim(), "999999999", "memory has an end");
        let directory = tempfile::tempdir().expect("a directory");
        let script = format!("exec head -c 1 /dev/zero > {}/x", directory.path().display());
        shell(&script, BOUNDS).await.expect("it runs");
        let written = std::fs::metadata(directory.path().join("x")).map_or(0, |m| m.len());
        assert_eq!(written, 0);
    }

    #[tokio::test]
    async fn it_yields_to_everything_else() {
        let script = "cat /proc/self/oom_score_adj; nice; id -u";
        let Ok(Ended::Exited { stdout, .. }) = shell(script, BOUNDS).await else { panic!("it ends by itself") };
        let text = String::from_utf8_lossy(&stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["1000", "19"]);
        assert_ne!(lines[2], "0", "it isn't root");
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_our_failure() {
        let input = File::open("/dev/null").expect("it opens");
        let missing = run("no-such-program", &[], input, BOUNDS).await;
        assert!(matches!(missing, Err(ChildError::Spawn { .. })), "{missing:?}");
    }

    /// A process that is started elsewhere would lack these bounds.
    #[test]
    fn no_other_module_starts_a_process() {
        let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut starting = Vec::new();
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    directories.push(path);
                } else if std::fs::read_to_string(&path).expect("UTF-8").contains("Command::new(") {
                    starting.push(path.file_name().expect("a name").to_owned());
                }
            }
        }
        assert_eq!(starting, ["child.rs"]);
    }
}
