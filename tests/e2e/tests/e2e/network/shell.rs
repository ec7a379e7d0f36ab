//! A shell in a guest, over one SSH connection that stays: what cuts it shows.

use anyhow::{Context, bail, ensure};
use harness::Lab;
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// How long a command in an emulated guest may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long a guest may take until it lets somebody in.
const CONNECT: Duration = Duration::from_secs(90);
const END: &str = "--end-of-command--";

pub struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Shell {
    /// From a machine of the lab to an address, as root with this key; tried until the guest lets in.
    pub fn open(lab: &Lab, from: &str, address: &str, key: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        loop {
            match Self::attempt(lab, from, address, key) {
                Ok(shell) => return Ok(shell),
                Err(error) if began.elapsed() > CONNECT => return Err(error.context(format!("ssh to {address}"))),
                Err(_) => {}
            }
        }
    }

    fn attempt(lab: &Lab, from: &str, address: &str, key: &Path) -> anyhow::Result<Self> {
        let mut ssh = lab.command(from, ["ssh"]);
        ssh.args(["-T", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
        ssh.args(["-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR", "-i"]).arg(key);
        ssh.args([&format!("root@{address}"), "sh"]);
        let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let input = child.stdin.take().context("a pipe")?;
        let output = BufReader::new(child.stdout.take().context("a pipe")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut shell = Self { child, input, lines };
        shell.run("true")?;
        Ok(shell)
    }

    /// A command that must succeed; what it printed.
    pub fn run(&mut self, command: &str) -> anyhow::Result<String> {
        let (code, said) = self.tries(command)?;
        ensure!(code == 0, "`{command}` in the guest ended with {code}: {said}");
        Ok(said)
    }

    /// A command; whether it succeeds.
    pub fn can(&mut self, command: &str) -> anyhow::Result<bool> {
        Ok(self.tries(command)?.0 == 0)
    }

    fn tries(&mut self, command: &str) -> anyhow::Result<(i32, String)> {
        writeln!(self.input, "{{ {command}\n}} 2>&1 </dev/null; echo {END}$?").context("the session has ended")?;
        self.input.flush()?;
        let deadline = Instant::now() + TIMEOUT;
        let mut said = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!("`{command}` in the guest: no answer (so far: {said})");
            };
            // The last line of a command may lack its end.
            if let Some((before, code)) = line.split_once(END) {
                said.push_str(before);
                return Ok((code.trim().parse().context("an exit code")?, said));
            }
            said.push_str(&line);
            said.push('\n');
        }
    }
}
