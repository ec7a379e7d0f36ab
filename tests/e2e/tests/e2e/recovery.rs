//! The loss of a host in the lab, with real guests and real packets: what ran there answers elsewhere on the same address, and the host that comes back runs none of it.

use crate::support::{can_run_guests, guests, not_run, until};
use anyhow::{Context, ensure};
use harness::Lab;
use serde_json::Value;

fn of<'a>(value: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    value[field].as_str().with_context(|| format!("{field} in {value}"))
}

/// How many QEMUs run on a machine.
fn qemus(lab: &Lab, machine: &str) -> anyhow::Result<usize> {
    let line = "{ grep -l '^qemu-system' /proc/[0-9]*/comm 2>/dev/null || true; } | wc -l";
    Ok(lab.sh(machine, line)?.trim().parse()?)
}

/// The project, the flavor and the image.
fn prepare(lab: &Lab) -> anyhow::Result<()> {
    let dir = harness::guest_dir().map_err(anyhow::Error::msg)?;
    let at = |name: &str| dir.join(name).display().to_string();
    let cmdline = std::fs::read_to_string(dir.join("cmdline"))?;
    lab.ctl(["project", "create", "demo"])?;
    lab.ctl(["flavor", "create", "small", "--vcpus", "1", "--memory", "192MiB", "--disk", "1GiB"])?;
    let (kernel, initrd) = (at("vmlinuz"), at("initramfs.cpio.gz"));
    lab.ctl([
        "--project",
        "demo",
        "image",
        "create",
        "tiny",
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "--cmdline",
        cmdline.trim(),
    ])?;
    Ok(())
}

#[tokio::test]
async fn what_ran_on_a_host_that_lost_power_answers_on_another_and_the_host_comes_back_without_it() -> anyhow::Result<()>
{
    if let Some(why) = Lab::unavailable() {
        not_run("the loss of a host in the lab", why);
        return Ok(());
    }
    if !can_run_guests("the loss of a host in the lab") {
        return Ok(());
    }
    let _guests = guests(3).await;
    let lab = Lab::up(2, "tcg")?;
    prepare(&lab)?;
    let ctl = |args: &[&str]| lab.ctl(["--project", "demo"].iter().chain(args));
    ctl(&["host", "cordon", "host2"])?;
    for (name, policy) in [("web", "recreate"), ("kept", "wait")] {
        ctl(&[
            "instance",
            "create",
            name,
            "--image",
            "tiny",
            "--flavor",
            "small",
            "--on-host-loss",
            policy,
            "--wait",
            "guest",
        ])?;
    }
    ctl(&["host", "uncordon", "host2"])?;
    let floating = ctl(&["floating-ip", "create", "--instance", "web"])?;
    let address = of(&floating, "address")?.to_owned();
    let answers = || lab.exec("outside", ["ping", "-c", "1", "-W", "1", &address]).is_ok();
    until("the guest answers", async || Ok(answers().then_some(()))).await?;
    let before = ctl(&["instance", "show", "web"])?;

    lab.power_off("host1")?;
    until("its tenants see that the host can't be reached", async || {
        let web = ctl(&["instance", "show", "web"])?;
        Ok(of(&web, "reason")?.contains("can't be reached").then_some(()))
    })
    .await?;
    ensure!(!answers(), "nothing answers yet");
    let mistyped = ctl(&["host", "declare-dead", "host1", "--confirm", "host2"]);
    ensure!(mistyped.is_err(), "it takes the host's own name");
    ctl(&["host", "declare-dead", "host1", "--confirm", "host1"])?;
    until("the guest answers again on the same address", async || Ok(answers().then_some(()))).await?;
    let after = ctl(&["instance", "show", "web"])?;
    let host2 = ctl(&["host", "show", "host2"])?;
    ensure!(after["host_id"] == host2["id"], "it runs on the other host: {after}");
    ensure!((&after["id"], &after["nics"]) == (&before["id"], &before["nics"]), "the same identity: {before} {after}");
    until("its recovery is reported", async || {
        let all = ctl(&["recovery", "list"])?;
        Ok((all[0]["phase"] == "verified").then_some(()))
    })
    .await?;

    // It boots with a ledger that says that both are its own.
    lab.power_on("host1")?;
    until("the host is up again", async || Ok((ctl(&["host", "show", "host1"])?["state"] == "up").then_some(())))
        .await?;
    until("what waited for it runs there, and nothing else does", async || {
        let kept = ctl(&["instance", "show", "kept"])?;
        Ok((kept["state"] == "running" && qemus(&lab, "host1")? == 1).then_some(()))
    })
    .await?;
    ensure!(qemus(&lab, "host2")? == 1, "the other one goes on");
    ensure!(answers(), "and answers");
    let log = lab.log("host1", "compute-agent");
    ensure!(log.contains("it starts nothing until it has stopped what was taken from it"), "it was told: {log}");
    lab.down()
}

/// Counts its boots on its disk, and says what it found there.
const COUNTS_BOOTS: &str = r#"#!/bin/sh
n=$(dd if=/dev/vda bs=512 count=1 2>/dev/null | tr -d '\000')
echo "boots before this one: ${n:-none}" >/dev/console
printf %s "$((${n:-0} + 1))" | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null
echo "noted on the disk" >/dev/console
"#;

#[tokio::test]
async fn a_disk_in_the_shared_pool_goes_on_elsewhere_and_the_host_that_had_it_deletes_nothing() -> anyhow::Result<()> {
    if let Some(why) = Lab::unavailable() {
        not_run("the loss of a host with a shared pool", why);
        return Ok(());
    }
    if !can_run_guests("the loss of a host with a shared pool") {
        return Ok(());
    }
    let _guests = guests(2).await;
    let lab = Lab::up(2, "tcg")?;
    prepare(&lab)?;
    let ctl = |args: &[&str]| lab.ctl(["--project", "demo"].iter().chain(args));
    let script = lab.state_dir("manager").join("counts-boots");
    std::fs::write(&script, COUNTS_BOOTS)?;
    let create = ["instance", "create", "db", "--image", "tiny", "--flavor", "small", "--pool", "shared"];
    let rest = ["--on-host-loss", "restart", "--user-data", "/var/lib/iaas/counts-boots", "--wait", "guest"];
    ctl(&create.iter().chain(&rest).copied().collect::<Vec<_>>())?;
    let id = of(&ctl(&["instance", "show", "db"])?, "id")?.to_owned();
    let console = || lab.ctl_text(["--project", "demo", "instance", "log", "db"]);
    until("it has written to its disk", async || Ok(console()?.contains("noted on the disk").then_some(()))).await?;
    ensure!(console()?.contains("boots before this one: none"), "its disk is new: {}", console()?);
    let disk = lab.dir().join("pool/disks").join(&id).join("root-0.qcow2");
    ensure!(disk.exists(), "its disk is in the pool");
    let floating = ctl(&["floating-ip", "create", "--instance", "db"])?;
    let address = of(&floating, "address")?.to_owned();
    let answers = || lab.exec("outside", ["ping", "-c", "1", "-W", "1", &address]).is_ok();
    until("the guest answers", async || Ok(answers().then_some(()))).await?;
    let before = ctl(&["instance", "show", "db"])?;
    let host = |name: &str| ctl(&["host", "show", name]);
    let (lost, other) = if before["host_id"] == host("host1")?["id"] { ("host1", "host2") } else { ("host2", "host1") };

    lab.power_off(lost)?;
    until("its host is silent", async || Ok((host(lost)?["state"] == "disconnected").then_some(()))).await?;
    ctl(&["host", "declare-dead", lost, "--confirm", lost])?;
    until("the guest answers again on the same address", async || Ok(answers().then_some(()))).await?;
    until("it found what it had written", async || Ok(console()?.contains("boots before this one: 1").then_some(())))
        .await?;
    let after = ctl(&["instance", "show", "db"])?;
    ensure!(after["host_id"] == host(other)?["id"], "it runs on the other host: {after}");
    ensure!((&after["id"], &after["nics"]) == (&before["id"], &before["nics"]), "the same identity: {before} {after}");

    lab.power_on(lost)?;
    until("the host is up again", async || Ok((host(lost)?["state"] == "up").then_some(()))).await?;
    ensure!(disk.exists() && answers(), "it has deleted nothing");
    ensure!((qemus(&lab, lost)?, qemus(&lab, other)?) == (0, 1), "and runs nothing");

    ctl(&["instance", "delete", "db", "--wait"])?;
    until("nothing of it is left in the pool", async || Ok((!disk.exists()).then_some(()))).await?;
    lab.down()
}
