//! `qemu-img` as a bounded child: the second opinion on a qcow2 whose header is sound, for the tables behind it.
//!
//! The image is untrusted and qemu-img is C: the child runs with an unprivileged uid (when we are root), can write no byte
//! (`RLIMIT_FSIZE` 0), and is bounded in memory, processor time and wall time. It gets the file as its standard input, because its
//! uid may not enter our directories.

use super::inspect::Refused;
use serde::Deserialize;
use std::{fs::File, path::PathBuf, process::Stdio, time::Duration};
use tokio::process::Command;

/// The uid and gid of `nobody`.
const NOBODY: u32 = 65_534;
/// Address space: the refcounts that a check holds in memory are 2 bytes per cluster, and the binary maps about 400 MiB.
const MEMORY_BYTES: u64 = 2 << 30;
const CPU_SECS: u64 = 120;
const WALL: Duration = Duration::from_secs(300);
/// What the child may say.
const OUTPUT_BYTES: usize = 256 * 1024;
const STDIN: &str = "/proc/self/fd/0";

#[derive(Debug, thiserror::Error)]
pub enum QemuImgError {
    #[error("cannot run {program}")]
    Spawn {
        program: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("qemu-img took longer than {} s", WALL.as_secs())]
    TimedOut,
    #[error("the answer of `qemu-img {command}` makes no sense")]
    Answer {
        command: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

/// What `qemu-img info` is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    format: String,
    virtual_size: u64,
    #[serde(default)]
    backing_filename: Option<PathBuf>,
    #[serde(default)]
    encrypted: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Check {
    #[serde(default)]
    corruptions: u64,
    #[serde(default)]
    check_errors: u64,
}

/// Checks a qcow2 file whose header says `virtual_bytes`. `Ok(Err(_))`: the image is refused.
pub async fn check_qcow2(
    open: impl Fn() -> std::io::Result<File>,
    virtual_bytes: u64,
) -> Result<Result<(), Refused>, QemuImgError> {
    let info = match run("info", &open).await? {
        Ok(json) => {
            serde_json::from_str::<Info>(&json).map_err(|source| QemuImgError::Answer { command: "info", source })?
        }
        Err(said) => return Ok(Err(Refused::QemuImg(said))),
    };
    if info.format != "qcow2" || info.virtual_size != virtual_bytes || info.encrypted {
        return Ok(Err(Refused::QemuImg("its header is read differently by QEMU".into())));
    }
    if let Some(backing) = info.backing_filename {
        return Ok(Err(Refused::QemuImg(format!("it has a backing file, {}", backing.display()))));
    }
    let check = match run("check", &open).await? {
        Ok(json) => {
            serde_json::from_str::<Check>(&json).map_err(|source| QemuImgError::Answer { command: "check", source })?
        }
        Err(said) => return Ok(Err(Refused::QemuImg(said))),
    };
    if check.corruptions > 0 || check.check_errors > 0 {
        let found = check.corruptions + check.check_errors;
        return Ok(Err(Refused::QemuImg(format!("{found} errors in its tables"))));
    }
    Ok(Ok(()))
}

/// Gives the child's JSON, or its complaint.
async fn run(
    command: &'static str,
    open: &impl Fn() -> std::io::Result<File>,
) -> Result<Result<String, String>, QemuImgError> {
    let program = "prlimit";
    let spawn_failed = |source| QemuImgError::Spawn { program, source };
    let mut child = Command::new(program);
    child
        .arg(format!("--as={MEMORY_BYTES}"))
        .arg(format!("--cpu={CPU_SECS}"))
        .args(["--fsize=0", "--core=0", "--", "qemu-img", command, "--output=json", "-f", "qcow2", STDIN])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::from(open().map_err(spawn_failed)?))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if running_as_root() {
        child.uid(NOBODY).gid(NOBODY);
    }
    let running = child.spawn().map_err(spawn_failed)?.wait_with_output();
    let output =
        tokio::time::timeout(WALL, running).await.map_err(|_| QemuImgError::TimedOut)?.map_err(spawn_failed)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(OUTPUT_BYTES)]).trim().to_owned();
    match (output.status.code(), output.status.success()) {
        // 126 and 127: prlimit didn't find or couldn't run qemu-img. That is our fault, not the image's.
        (Some(126 | 127), _) => {
            Err(QemuImgError::Spawn { program: "qemu-img", source: std::io::Error::other(text(&output.stderr)) })
        }
        // `check` says 2 for corruptions and 3 for leaked clusters, both with its JSON.
        (_, true) | (Some(2 | 3), _) if !output.stdout.is_empty() => Ok(Ok(text(&output.stdout))),
        _ => {
            let said = text(&output.stderr).replace(STDIN, "the file");
            let last = said.lines().next_back().unwrap_or("it ended without a message").to_owned();
            Ok(Err(last.trim_start_matches("qemu-img: ").chars().take(300).collect()))
        }
    }
}

fn running_as_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
