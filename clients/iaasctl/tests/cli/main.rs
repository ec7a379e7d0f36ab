//! The binary as people and scripts meet it: its help, its tables, its exit codes, its profile file, its console.

mod console;
mod exit_codes;
mod golden;
mod host;
mod network;
mod profile;
mod server;
