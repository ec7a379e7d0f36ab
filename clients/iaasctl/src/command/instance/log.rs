//! `instance log`: what the guest printed.

use crate::{
    error::CliError,
    output::{print, print_bytes},
    plain::GuestText,
};
use clap::Args;
use client::{Client, ClientError, LogFrom};
use std::{
    io::{self, IsTerminal},
    time::Duration,
};

#[derive(Debug, Args)]
pub struct LogArgs {
    instance: String,
    /// Only this many of the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// Keep printing as the guest writes, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Print the guest's bytes as they are on a terminal too: the guest can then control it
    #[arg(long)]
    raw: bool,
}

/// Where the guest's bytes go: as they are into a file or a program; to a terminal without what it would obey.
enum Printer {
    Raw,
    Terminal(GuestText),
}

impl Printer {
    fn print(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        match self {
            Self::Raw => print_bytes(bytes),
            Self::Terminal(text) => print(&text.show(bytes)),
        }
    }
}

/// Bytes to request for each desired line, at least, and the most that one request returns.
const PER_LINE: u64 = 512;
const AT_LEAST: u64 = 64 * 1024;
const AT_MOST: u64 = 8 * 1024 * 1024;
/// Before a lost connection is made again.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(client: &Client, args: LogArgs) -> Result<(), CliError> {
    let mut printer =
        if args.raw || !io::stdout().is_terminal() { Printer::Raw } else { Printer::Terminal(GuestText::default()) };
    let mut offset = match args.tail {
        Some(lines) => {
            let bytes = (lines as u64).saturating_mul(PER_LINE).clamp(AT_LEAST, AT_MOST);
            let (text, next) = read(client, &args.instance, LogFrom::Tail(bytes)).await?;
            printer.print(last_lines(&text, lines))?;
            next
        }
        None => {
            let mut offset = 0;
            loop {
                let (text, next) = read(client, &args.instance, LogFrom::Offset(offset)).await?;
                printer.print(&text)?;
                offset = next;
                if text.is_empty() {
                    break offset;
                }
            }
        }
    };
    if !args.follow {
        return Ok(());
    }
    loop {
        match follow(client, &args.instance, &mut offset, &mut printer).await {
            // The server ends a stream when the instance stops or itself restarts; the log may go on.
            Ok(()) | Err(CliError::Client(ClientError::Lost { .. })) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

/// What there is, and where to go on.
async fn read(client: &Client, instance: &str, from: LogFrom) -> Result<(Vec<u8>, u64), CliError> {
    let mut log = client.instance_log(instance, from, false).await?;
    let mut text = Vec::new();
    while let Some(chunk) = log.chunk().await? {
        text.extend_from_slice(&chunk);
    }
    Ok((text, log.next_offset()))
}

async fn follow(client: &Client, instance: &str, offset: &mut u64, printer: &mut Printer) -> Result<(), CliError> {
    let mut log = client.instance_log(instance, LogFrom::Offset(*offset), true).await?;
    while let Some(chunk) = log.chunk().await? {
        printer.print(&chunk)?;
        *offset = log.next_offset();
    }
    Ok(())
}

/// The last `lines` lines; a last one that isn't ended yet counts.
fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    if lines == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let start = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').nth(lines - 1);
    start.map_or(text, |(at, _)| &text[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = b"one\ntwo\nthree\n";
        assert_eq!(last_lines(text, 2), b"two\nthree\n");
        assert_eq!(last_lines(text, 3), text);
        assert_eq!(last_lines(text, 9), text);
        assert_eq!(last_lines(text, 0), b"");
        assert_eq!(last_lines(b"one\nprompt# ", 1), b"prompt# ");
        assert_eq!(last_lines(b"", 5), b"");
    }
}
