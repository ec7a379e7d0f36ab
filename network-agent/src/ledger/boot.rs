//! Which boot of the host the ledger was last used in.
//!
//! A port is acquired by a QEMU, and no QEMU outlives its host's boot. What a ledger of an earlier boot calls acquired is therefore nobody's: to answer for its addresses
//! would be to answer for an instance that may run elsewhere by now. It is acquired again when its instance starts again.

use agent_kit::durable;
use std::{fs, io, path::Path};

const NAME: &str = "boot_id";
const KERNEL: &str = "/proc/sys/kernel/random/boot_id";

/// The id of the present boot; empty where the kernel doesn't say it. A machine that is made of namespaces boots when the init of its processes starts, so that belongs to it.
pub(super) fn current() -> String {
    let kernel = fs::read_to_string(KERNEL).unwrap_or_default();
    match (kernel.trim(), init_started()) {
        ("", _) => String::new(),
        (kernel, started) => format!("{kernel} {}", started.unwrap_or_default()),
    }
}

/// The start time of the init of this PID namespace, in ticks since the kernel's boot.
fn init_started() -> Option<String> {
    let stat = fs::read_to_string("/proc/1/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19).map(str::to_owned)
}

/// Whether the ledger in `dir` is of another boot than `current`. One that says nothing about it isn't.
pub(super) fn is_other(dir: &Path, current: &str) -> io::Result<bool> {
    match fs::read_to_string(dir.join(NAME)) {
        Ok(last) => Ok(!current.is_empty() && last.trim() != current),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Notes that the ledger is of this boot.
pub(super) fn note(dir: &Path, current: &str) -> io::Result<()> {
    let noted = fs::read_to_string(dir.join(NAME)).is_ok_and(|last| last.trim() == current);
    if noted {
        return Ok(());
    }
    durable::replace(dir, NAME, current.as_bytes()).map(drop)
}
