//! A lab of two hosts, each a zone, with a project, an image, a flavor and a key.

use super::shell::Shell;
use crate::support::{can_run_guests, not_run};
use anyhow::{Context, ensure};
use harness::Lab;
use serde_json::Value;
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(120);

pub struct Cloud {
    pub lab: Lab,
    pub key: PathBuf,
}

impl Cloud {
    /// None, and a line that says why, where this machine can't.
    pub fn up(what: &str) -> anyhow::Result<Option<Self>> {
        if let Some(why) = Lab::unavailable() {
            not_run(what, why);
            return Ok(None);
        }
        if !can_run_guests(what) {
            return Ok(None);
        }
        let lab = Lab::up(2, "tcg")?;
        let key = lab.dir().join("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status()?;
        ensure!(made.success(), "ssh-keygen");
        let cloud = Self { lab, key };
        cloud.project("demo")?;
        cloud.ctl("flavor create small --vcpus 1 --memory 192MiB --disk 0GiB")?;
        let dir = harness::guest_dir().map_err(anyhow::Error::msg)?;
        let cmdline = std::fs::read_to_string(dir.join("cmdline"))?;
        let at = |file: &str| dir.join(file).display().to_string();
        cloud.lab.ctl([
            "image",
            "create",
            "tiny",
            "--kernel",
            &at("vmlinuz"),
            "--initrd",
            &at("initramfs.cpio.gz"),
            "--cmdline",
            cmdline.trim(),
            "--public",
        ])?;
        for host in ["host1", "host2"] {
            cloud.ctl(&format!("host set {host} --zone {host}"))?;
        }
        Ok(Some(cloud))
    }

    /// A project, with the key in it; used from then on.
    pub fn project(&self, name: &str) -> anyhow::Result<()> {
        self.ctl(&format!("project create {name}"))?;
        self.ctl(&format!("config set project {name}"))?;
        self.ctl(&format!("key create lab {}.pub", self.key.display()))?;
        Ok(())
    }

    /// A line of `iaasctl`.
    pub fn ctl(&self, line: &str) -> anyhow::Result<Value> {
        self.lab.ctl(line.split_whitespace())
    }

    /// A line of `iaasctl` that must be refused with this code.
    pub fn refused(&self, line: &str, code: &str) -> anyhow::Result<()> {
        match self.ctl(line) {
            Ok(done) => anyhow::bail!("`iaasctl {line}` was done: {done}"),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains(code), "`iaasctl {line}` was refused without {code}: {said}");
                Ok(())
            }
        }
    }

    /// An instance on that host, up as its guest says.
    pub fn instance(&self, name: &str, host: &str, options: &str) -> anyhow::Result<Value> {
        self.ctl(&format!(
            "instance create {name} --image tiny --flavor small --key lab --zone {host} --wait guest --timeout 120s {options}"
        ))
    }

    /// A floating IP for the instance; its address.
    pub fn float(&self, instance: &str) -> anyhow::Result<String> {
        let made = self.ctl(&format!("floating-ip create --instance {instance}"))?;
        Ok(made["address"].as_str().context("an address")?.to_owned())
    }

    /// A shell in the instance, by a new floating IP; and that.
    pub fn shell(&self, instance: &str) -> anyhow::Result<(Shell, String)> {
        let address = self.float(instance)?;
        let shell = self.shell_at(&address).with_context(|| format!("into {instance}"))?;
        Ok((shell, address))
    }

    /// A shell in the instance that has this floating IP.
    pub fn shell_at(&self, address: &str) -> anyhow::Result<Shell> {
        Shell::open(&self.lab, "outside", address, &self.key)
    }

    /// The first NIC's address of that family.
    pub fn address(&self, instance: &str, v4: bool) -> anyhow::Result<String> {
        let shown = self.ctl(&format!("instance show {instance}"))?;
        let addresses = shown["nics"][0]["addresses"].as_array().context("a NIC")?;
        let found = addresses.iter().filter_map(Value::as_str).find(|a| a.contains('.') == v4);
        found.map(str::to_owned).with_context(|| format!("no such address: {shown}"))
    }

    /// What a program of `outside` fetches from an address; empty when there is no answer.
    pub fn fetch(&self, address: &str) -> String {
        let url = format!("http://{address}/");
        self.lab.exec("outside", ["curl", "-s", "-m", "3", &url]).unwrap_or_default().trim().to_owned()
    }
}

/// Looks until it is so.
pub fn until(what: &str, mut good: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        if good().with_context(|| what.to_owned())? {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < TIMEOUT, "waited {TIMEOUT:?} for: {what}");
    }
}
