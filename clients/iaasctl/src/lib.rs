//! `iaasctl <noun> <verb>`: the cloud from a terminal or a script.
//!
//! The rules that all commands keep: data goes to stdout and everything else to stderr; the exit code says what kind of failure it was
//! (see [`exit`]); an error repeats what the server said, its hint and its request id; nothing asks a question unless it is typed at
//! a terminal.

mod args;
pub mod cli;
mod command;
pub mod config;
mod context;
mod error;
pub mod exit;
pub mod output;
pub mod plain;
mod progress;
mod prompt;
pub mod size;
pub mod view;

use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// The command tree, for help tests and completion.
#[must_use]
pub fn command() -> clap::Command {
    cli::Cli::command()
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run_command_line()),
        Err(error) => {
            eprintln!("iaasctl: the runtime can't start: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run_command_line() -> ExitCode {
    // A reader that has seen enough (`| head`) ends us quietly, as it does every other tool.
    // Rust ignores SIGPIPE; printing checks for the broken pipe instead (output::print).
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    match command::run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code())
        }
    }
}
