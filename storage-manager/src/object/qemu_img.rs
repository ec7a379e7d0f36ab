//! `qemu-img`: the second opinion on a qcow2 whose header is sound, for the tables behind it.
//!
//! The image is untrusted and qemu-img is C, so it runs in the bounds of [`super::child`]. It gets the file as its standard input, because
//! its user may not enter our directories. What it may take grows with the file: an honest check reads each table once, and holds a
//! refcount of at most 8 bytes per cluster. A small file that makes it compute, allocate or complain for longer is refused.

use super::{
    child::{self, Bounds, ChildError, Ended},
    inspect::Refused,
    qcow2,
};
use serde::Deserialize;
use std::{fs::File, io, path::PathBuf, time::Duration};

/// qemu-img itself maps less than 256 MiB; its caches and the L1 table take up to 80 MiB.
const MEMORY_BYTES: u64 = 512 << 20;
const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// For each cluster of the file: the refcounts that a check counts, while their array grows.
const MEMORY_BYTES_PER_CLUSTER: u64 = 16;
const CPU_SECS: u64 = 10;
const CPU_SECS_MAX: u64 = 120;
const CLUSTERS_PER_CPU_SEC: u64 = 100_000;
const WALL: Duration = Duration::from_secs(300);
/// What it may write to each of its pipes. Its answers have some hundred bytes.
const OUTPUT_BYTES: usize = 256 * 1024;
const STDIN: &str = "/proc/self/fd/0";

#[derive(Debug, thiserror::Error)]
pub enum QemuImgError {
    #[error("qemu-img can't be run")]
    Child(#[source] ChildError),
    #[error("the image can't be opened for qemu-img")]
    Open(#[source] io::Error),
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

/// What a check of such a file may take.
fn bounds(header: &qcow2::Header, file_bytes: u64) -> Bounds {
    let clusters = file_bytes.div_ceil(1 << header.cluster_bits);
    Bounds {
        memory_bytes: (MEMORY_BYTES + clusters * MEMORY_BYTES_PER_CLUSTER).min(MEMORY_BYTES_MAX),
        cpu_secs: (CPU_SECS + clusters / CLUSTERS_PER_CPU_SEC).min(CPU_SECS_MAX),
        wall: WALL,
        output_bytes: OUTPUT_BYTES,
    }
}

/// Checks a qcow2 file of `file_bytes` with this header. `Ok(Err(_))`: the image is refused.
pub async fn check_qcow2(
    open: impl Fn() -> io::Result<File>,
    header: &qcow2::Header,
    file_bytes: u64,
) -> Result<Result<(), Refused>, QemuImgError> {
    let bounds = bounds(header, file_bytes);
    let info = match run("info", &open, bounds).await? {
        Ok(json) => {
            serde_json::from_str::<Info>(&json).map_err(|source| QemuImgError::Answer { command: "info", source })?
        }
        Err(said) => return Ok(Err(Refused::QemuImg(said))),
    };
    if info.format != "qcow2" || info.virtual_size != header.virtual_bytes || info.encrypted {
        return Ok(Err(Refused::QemuImg("its header is read differently by QEMU".into())));
    }
    if let Some(backing) = info.backing_filename {
        return Ok(Err(Refused::QemuImg(format!("it has a backing file, {}", backing.display()))));
    }
    let check = match run("check", &open, bounds).await? {
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

/// Gives its JSON, or why the image is refused.
async fn run(
    command: &'static str,
    open: &impl Fn() -> io::Result<File>,
    bounds: Bounds,
) -> Result<Result<String, String>, QemuImgError> {
    let input = open().map_err(QemuImgError::Open)?;
    let args = [command, "--output=json", "-f", "qcow2", STDIN];
    let (status, stdout, stderr) = match child::run("qemu-img", &args, input, bounds)
        .await
        .map_err(QemuImgError::Child)?
    {
        Ended::Exited { status, stdout, stderr } => (status, stdout, stderr),
        Ended::WroteTooMuch => return Ok(Err("it has more errors or more in its header than can be told".to_owned())),
        Ended::Killed => {
            return Ok(Err("to check it takes more processor time or memory than an image of its size may".to_owned()));
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match (status.code(), status.success()) {
        // `check` says 2 for corruptions and 3 for leaked clusters, both with its JSON.
        (_, true) | (Some(2 | 3), _) if !stdout.is_empty() => Ok(Ok(text(&stdout))),
        _ => {
            let said = text(&stderr).replace(STDIN, "the file");
            let last = said.lines().next_back().unwrap_or("it ended without a message").to_owned();
            Ok(Err(last.trim_start_matches("qemu-img: ").chars().take(300).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_may_take_grows_with_the_file_and_ends() {
        let header = |cluster_bits| qcow2::Header { version: 3, cluster_bits, virtual_bytes: 1 << 40 };
        let small = bounds(&header(16), 1 << 20);
        assert_eq!((small.memory_bytes >> 20, small.cpu_secs), (512, 10));
        let large = bounds(&header(16), 256 << 30);
        assert_eq!((large.memory_bytes >> 20, large.cpu_secs), (512 + 64, 10 + 41));
        let most = bounds(&header(9), 64 << 40);
        assert_eq!((most.memory_bytes, most.cpu_secs), (MEMORY_BYTES_MAX, CPU_SECS_MAX));
    }
}
