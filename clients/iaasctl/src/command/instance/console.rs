//! `instance console`: this terminal as the instance's serial terminal.
//!
//! Every key goes to the guest, Ctrl-C too; only Ctrl-] is ours. However the session ends (the key, the server, a signal, a panic), the
//! terminal is put back as it was: its mode belongs to a guard. With stdin not a terminal, what it holds is typed, and the session ends
//! with Ctrl-] in it, or when the server ends it.

use crate::{context::Context, error::CliError, output::print_bytes, prompt::RawMode};
use bytes::Bytes;
use client::{Client, console::Console};
use std::io::{self, IsTerminal, Read};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Ctrl-], as telnet and virsh have it.
const LEAVE: u8 = 0x1d;

pub(super) async fn run(context: &Context, client: &Client, instance: &str) -> Result<(), CliError> {
    let mut console = client.instance_console(instance).await?;
    let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    context.note(&format!("connected to {instance}; press Ctrl-] to disconnect, Enter for a prompt"));
    let raw = if interactive { Some(RawMode::enter()?) } else { None };
    let ended = session(&mut console).await;
    drop(raw);
    console.close().await;
    if interactive {
        eprintln!();
    }
    context.note(match &ended {
        Ok(End::Left) => "disconnected; the instance keeps running",
        Ok(End::Closed) | Err(_) => "the console was closed",
    });
    ended.map(drop)
}

enum End {
    Left,
    Closed,
}

async fn session(console: &mut Console) -> Result<End, CliError> {
    let mut keys = read_stdin();
    let mut signals = Vec::new();
    for kind in [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()] {
        signals.push(signal(kind).map_err(CliError::Terminal)?);
    }
    let [terminate, hangup, interrupt] = &mut signals[..] else { return Ok(End::Left) };
    let mut typing = true;
    loop {
        tokio::select! {
            typed = keys.recv(), if typing => match typed {
                Some(bytes) => {
                    let leave = bytes.iter().position(|b| *b == LEAVE);
                    let before = bytes.slice(..leave.unwrap_or(bytes.len()));
                    if !before.is_empty() {
                        console.write(before).await?;
                    }
                    if leave.is_some() {
                        return Ok(End::Left);
                    }
                }
                None => typing = false,
            },
            printed = console.read() => match printed? {
                Some(bytes) => print_bytes(&bytes)?,
                None => return Ok(End::Closed),
            },
            _ = terminate.recv() => return Ok(End::Left),
            _ = hangup.recv() => return Ok(End::Left),
            _ = interrupt.recv() => return Ok(End::Left),
        }
    }
}

/// A thread, because a blocking read can't be cancelled; it ends with the process.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (tx, rx) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = [0u8; 1024];
        while let Ok(n @ 1..) = stdin.read(&mut buffer) {
            if tx.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() {
                break;
            }
        }
    });
    rx
}
