//! A lab of several hosts (deploy/lab), for one test: with a name and a directory of its own, gone when it is dropped.

use crate::bin_dir;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

/// Which of a machine's cables.
#[derive(Debug, Clone, Copy)]
pub enum Cable {
    Underlay,
    External,
    All,
}

impl Cable {
    fn as_str(self) -> &'static str {
        match self {
            Self::Underlay => "underlay",
            Self::External => "external",
            Self::All => "all",
        }
    }
}

pub struct Lab {
    name: String,
    dir: tempfile::TempDir,
    up: bool,
}

impl Lab {
    /// Why this machine can't have one, if it can't.
    #[must_use]
    pub fn unavailable() -> Option<&'static str> {
        if !nix::unistd::geteuid().is_root() {
            return Some("a lab of several hosts takes root");
        }
        let possible = Command::new("unshare").args(["--net", "--pid", "--mount", "--uts", "--fork", "true"]).output();
        (!possible.is_ok_and(|output| output.status.success())).then_some("namespaces can't be made here")
    }

    /// N hosts, joined and up. The accelerator is what `[compute] accelerator` takes; `tcg` spares each host the measurement.
    pub fn up(hosts: usize, accelerator: &str) -> anyhow::Result<Self> {
        let mut lab = Self::new()?;
        lab.up = true;
        lab.script("up", ["--hosts", &hosts.to_string(), "--accelerator", accelerator])?;
        Ok(lab)
    }

    /// The machines and cables alone: nothing runs in them.
    pub fn bare(hosts: usize) -> anyhow::Result<Self> {
        let mut lab = Self::new()?;
        lab.up = true;
        lab.script("up", ["--hosts", &hosts.to_string(), "--bare"])?;
        Ok(lab)
    }

    fn new() -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { name, dir: tempfile::Builder::new().prefix("iaas-lab-").tempdir_in("/var/tmp")?, up: false })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What a machine keeps over a power loss, as its `/var/lib/iaas`.
    #[must_use]
    pub fn state_dir(&self, machine: &str) -> PathBuf {
        self.dir.path().join("machines").join(machine).join("state")
    }

    /// A service's log so far; empty when it never ran.
    #[must_use]
    pub fn log(&self, machine: &str, service: &str) -> String {
        let path = self.dir.path().join("machines").join(machine).join("log").join(service);
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// A command on a machine, not yet run: for what is to go on beside the test.
    pub fn command<S: AsRef<OsStr>>(&self, machine: &str, command: impl IntoIterator<Item = S>) -> Command {
        let mut run = self.tool("exec");
        run.arg(machine).args(command);
        run
    }

    /// Runs a command on a machine; what it printed, or why it failed.
    pub fn exec<S: AsRef<OsStr>>(&self, machine: &str, command: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
        output(self.command(machine, command))
    }

    /// Runs a line of shell on a machine.
    pub fn sh(&self, machine: &str, line: &str) -> anyhow::Result<String> {
        self.exec(machine, ["bash", "-euo", "pipefail", "-c", line])
    }

    /// `iaasctl` as the administrator; its answer as JSON.
    pub fn ctl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<Value> {
        let mut run = self.tool("ctl");
        run.args(args).args(["--output", "json"]);
        let text = output(run)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("iaasctl printed no JSON: {text}"))
    }

    /// `iaasctl` as the administrator; what it printed.
    pub fn ctl_text<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
        let mut run = self.tool("ctl");
        run.args(args);
        output(run)
    }

    pub fn cut(&self, machine: &str, cable: Cable) -> anyhow::Result<()> {
        self.script("cut", [machine, "--network", cable.as_str()])
    }

    /// Cuts it so that nothing passes while the link stays up.
    pub fn cut_silently(&self, machine: &str, cable: Cable) -> anyhow::Result<()> {
        self.script("cut", [machine, "--network", cable.as_str(), "--silent"])
    }

    pub fn heal(&self, machine: &str) -> anyhow::Result<()> {
        self.script("heal", [machine])
    }

    pub fn power_off(&self, machine: &str) -> anyhow::Result<()> {
        self.script("power-off", [machine])
    }

    pub fn power_on(&self, machine: &str) -> anyhow::Result<()> {
        self.script("power-on", [machine])
    }

    /// `start`, `stop`, `kill` or `restart` of a machine's service.
    pub fn service(&self, action: &str, machine: &str, service: &str) -> anyhow::Result<()> {
        self.script("service", [action, machine, service])
    }

    /// Ends it, and says what went wrong with that; dropping it ends it too.
    pub fn down(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if !std::mem::take(&mut self.up) {
            return Ok(());
        }
        self.script("down", ["--purge"])
    }

    /// Runs one of deploy/lab's commands.
    pub fn script<const N: usize>(&self, tool: &str, args: [&str; N]) -> anyhow::Result<()> {
        let mut run = self.tool(tool);
        if tool == "up" {
            run.arg("--bin-dir").arg(bin_dir());
        }
        run.args(args);
        output(run).map(drop)
    }

    fn tool(&self, tool: &str) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/lab");
        let mut command = Command::new(scripts.join(tool));
        command.env("IAAS_LAB_NAME", &self.name).env("IAAS_LAB_DIR", self.dir.path()).env("NO_COLOR", "1");
        command.stdin(std::process::Stdio::null());
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the lab {} could not be ended: {error:#}", self.name);
        }
    }
}

fn output(mut command: Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("{command:?} can't be run"))?;
    let said = String::from_utf8_lossy(&stdout).into_owned();
    ensure!(status.success(), "{command:?} ended with {status}:\n{said}{}", String::from_utf8_lossy(&stderr));
    Ok(said)
}
