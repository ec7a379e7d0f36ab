//! Secrets: from a file, from stdin, or typed unseen at a terminal.

use crate::error::CliError;
use crossterm::{
    event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read},
    terminal,
};
use std::{
    io::{self, IsTerminal, Read},
    path::Path,
};

/// The terminal reads keys one by one while this lives; however it ends, the terminal is as it was.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    pub fn enter() -> Result<Self, CliError> {
        terminal::enable_raw_mode().map_err(CliError::Terminal)?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = terminal::disable_raw_mode();
    }
}

/// A secret's first line: from `file` (`-` is stdin), else typed.
pub fn secret(file: Option<&Path>, label: &str) -> Result<String, CliError> {
    let text = match file {
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            let read = io::stdin().take(64 * 1024).read_to_string(&mut text);
            read.map_err(|source| CliError::File { action: "read", path: "stdin".into(), source })?;
            text
        }
        Some(path) => std::fs::read_to_string(path).map_err(|source| CliError::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?,
        None if io::stdin().is_terminal() => typed(label)?,
        None => {
            return Err(CliError::usage(format!("no {label} was given, and there is no terminal to ask for it"))
                .with_hint("use --password-file FILE (`-` reads stdin)"));
        }
    };
    let line = text.lines().next().unwrap_or_default().to_owned();
    if line.is_empty() { Err(CliError::usage(format!("the {label} is empty"))) } else { Ok(line) }
}

/// A line that may be seen, typed at a terminal.
pub fn line(label: &str) -> Result<String, CliError> {
    if !io::stdin().is_terminal() {
        return Err(
            CliError::usage(format!("no {label} was given")).with_hint(format!("--{label} {}", label.to_uppercase()))
        );
    }
    eprint!("{label}: ");
    let mut text = String::new();
    io::stdin().read_line(&mut text).map_err(CliError::Terminal)?;
    let text = text.trim().to_owned();
    if text.is_empty() { Err(CliError::usage(format!("the {label} is empty"))) } else { Ok(text) }
}

fn typed(label: &str) -> Result<String, CliError> {
    eprint!("{label}: ");
    let raw = RawMode::enter()?;
    let mut text = String::new();
    let result = loop {
        let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) =
            read().map_err(CliError::Terminal)?
        else {
            continue;
        };
        if code == KeyCode::Enter {
            break Ok(text);
        } else if code == KeyCode::Backspace {
            text.pop();
        } else if let KeyCode::Char(c) = code {
            match (c, modifiers.contains(KeyModifiers::CONTROL)) {
                ('c' | 'd', true) => break Err(CliError::usage(format!("no {label} was typed"))),
                ('u', true) => text.clear(),
                _ => text.push(c),
            }
        }
    };
    drop(raw);
    eprintln!();
    result
}
