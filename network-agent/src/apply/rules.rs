//! Writes rules: elements by a netlink batch, all else by `nft`.
//!
//! An agent may be killed at any instruction, also while an nft of its works: so nft gets all of its text before it starts (one that
//! read half of it from a pipe would take that half for the whole), and it dies with the agent (one that lives on would write old
//! rules over the next agent's).

use crate::{
    link::nfnetlink::{BatchError, Nfnetlink},
    nft::{batch, render::render_changes},
    plan::Rules,
};
use nix::libc;
use std::{
    fs::{self, File},
    io::{self, Seek, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    #[error("elements were not written")]
    Batch(#[source] BatchError),
    #[error("rules were not written")]
    Nft(#[source] io::Error),
}

/// One transaction, in the calling thread's namespace; the generation that it made. `known`: that of the rules that a difference is
/// to.
pub fn write(socket: &mut Nfnetlink, rules: &Rules, known: u32) -> Result<u32, RulesError> {
    let text = match rules {
        Rules::Whole(text) => text.clone(),
        Rules::Delta(changes) => match batch::encode(changes, known) {
            Some(batch) => {
                socket.commit(&batch).map_err(RulesError::Batch)?;
                return Ok(next_generation(known));
            }
            None => render_changes(changes),
        },
    };
    let before = socket.generation().map_err(RulesError::Nft)?;
    if matches!(rules, Rules::Delta(_)) && before != known {
        return Err(RulesError::Batch(BatchError::Stale));
    }
    load(&text).map_err(RulesError::Nft)?;
    // Ours is the next. If somebody came between, the number stays behind, and the next change or look finds it so.
    let mut generation = next_generation(before);
    if matches!(rules, Rules::Whole(_)) {
        // The kernel has its tracker by now. A flow that was ended must not begin again in its middle, as if by the other end.
        if let Err(error) = fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0") {
            tracing::debug!(%error, "a TCP session may be picked up in its middle");
        }
        // Only now: the rules of an earlier agent may not mark what they saw.
        match socket.ensure_fence() {
            Ok(true) => generation = next_generation(generation),
            Ok(false) => {}
            // A kernel before 6.9 has no such tables: there, a flush opens the network until it is seen.
            Err(error) => tracing::debug!(%error, "the fence can't be made"),
        }
    }
    Ok(generation)
}

/// The generation after one more transaction: the kernel leaves out 0.
pub fn next_generation(generation: u32) -> u32 {
    generation.wrapping_add(1).max(1)
}

/// One transaction of text, in the calling thread's namespace.
pub fn load(text: &str) -> io::Result<()> {
    let memory = rustix::fs::memfd_create("rules", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    run(nft().args(["-f", "-"]).stdin(Stdio::from(file))).map(|_| ())
}

/// What nft prints, in the calling thread's namespace.
pub fn run_nft(args: &[&str]) -> io::Result<String> {
    run(nft().args(args).stdin(Stdio::null()))
}

fn nft() -> Command {
    let mut command = Command::new("nft");
    // SAFETY: prctl with integers alone is async-signal-safe. The thread that starts nft waits for it, so that it ends before only
    // when the process does.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    command
}

fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason: String = String::from_utf8_lossy(&output.stderr).chars().take(600).collect();
    Err(io::Error::other(format!("nft refused: {}", reason.trim())))
}
