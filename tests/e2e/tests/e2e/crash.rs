//! kill -9 of everything that may be killed.

use crate::support::{can_run_guests, create, guests, not_run, qemus, server_with_tiny, until, until_instance};
use anyhow::ensure;
use harness::Server;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::path::Path;

fn sigkill(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_outlive_iaasd_and_are_adopted() -> anyhow::Result<()> {
    if !can_run_guests("adoption after kill -9 of iaasd") {
        return Ok(());
    }
    let _guests = guests(1).await;
    let (mut server, rest) = server_with_tiny().await?;
    let made = create(&rest, "survivor", "guest", json!({})).await?;
    let id = made["id"].as_str().expect("an id");
    let before = qemus(id);
    server.crash()?;
    ensure!(qemus(id) == before && before.len() == 1, "the guest outlives iaasd");
    server.restart().await?;
    let rest = server.admin().await?.with_project("demo");
    let adopted = until_instance(&rest, "survivor", "running after the restart", |i| i["state"] == "running").await?;
    ensure!(qemus(id) == before, "adopted, not started anew");
    ensure!(adopted["guest_up_at"] == made["guest_up_at"], "what the guest said is not forgotten");
    // It is under control again.
    rest.post("/v1/instances/survivor/pause?wait=paused", &json!({})).await?;
    rest.post("/v1/instances/survivor/resume?wait=running", &json!({})).await?;
    // And a clean stop of iaasd leaves it running, too.
    ensure!(server.terminate()? == Some(0), "SIGTERM: exit code 0\n{}", server.log());
    ensure!(qemus(id) == before, "SIGTERM leaves guests alone");
    server.restart().await?;
    server.stop()?;
    ensure!(qemus(id).is_empty(), "iaasd vms stop ends them");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_handled_by_on_crash() -> anyhow::Result<()> {
    if !can_run_guests("kill -9 of a QEMU") {
        return Ok(());
    }
    let _guests = guests(2).await;
    let (server, rest) = server_with_tiny().await?;
    let restart = create(&rest, "phoenix", "running", json!({"on_crash": "restart"})).await?;
    let stop = create(&rest, "mortal", "running", json!({"on_crash": "stop"})).await?;
    let (restart, stop) = (restart["id"].as_str().expect("id"), stop["id"].as_str().expect("id"));
    let first = qemus(restart);
    sigkill(first[0]);
    sigkill(qemus(stop)[0]);
    let back =
        until_instance(&rest, "phoenix", "started again", |i| i["state"] == "running" && i["crash_count"] == 1).await?;
    ensure!(qemus(restart).len() == 1 && qemus(restart) != first, "a new QEMU: {back}");
    let down = until_instance(&rest, "mortal", "stopped", |i| i["state"] == "stopped").await?;
    ensure!(qemus(stop).is_empty() && !down["reason"].as_str().unwrap_or_default().is_empty(), "it says why: {down}");
    server.stop()
}

/// A bzImage whose whole program is `cli; hlt`: a VM that costs nothing.
fn halting_kernel() -> Vec<u8> {
    let mut bytes = vec![0u8; 8192];
    bytes[0x1f1] = 1; // one setup sector behind the boot sector
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x200..0x202].copy_from_slice(&[0xeb, 0x7e]); // jmp 0x280
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    bytes[0x211] = 1; // loaded high
    bytes[0x280..0x284].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_creates_survive_a_crash_in_their_middle() -> anyhow::Result<()> {
    let what = "kill -9 of iaasd in the middle of 50 creates";
    if !nix::unistd::geteuid().is_root() {
        not_run(what, "only root can start guests");
        return Ok(());
    }
    let _guests = guests(4).await;
    // Fifty halted machines cost no CPU, so each thread may carry more of them than it would of real ones.
    let mut server = Server::start(Path::new("/var/tmp"), "[compute]\ncpu_overcommit_permille = 64000").await?;
    let rest = server.login("demo").await?;
    rest.kernel_image("halt", halting_kernel(), b"070701".repeat(100), "").await?;
    let calls = (0..50).map(|i| {
        let rest = rest.clone();
        tokio::spawn(async move {
            let body = json!({"name": format!("vm-{i}"), "image": "halt", "vcpus": 1, "memory_mib": 64, "disk_gib": 1});
            rest.answer(reqwest::Method::POST, "/v1/instances", Some(&body))
                .await
                .is_ok_and(|(status, _)| status == 201)
        })
    });
    let calls: Vec<_> = calls.collect();
    // In the middle: some have a QEMU, most have not.
    until("some QEMUs run", async || Ok((qemus(&server.dir.path().display().to_string()).len() >= 3).then_some(())))
        .await?;
    server.crash()?;
    let mut accepted = 0;
    for call in calls {
        accepted += usize::from(call.await?);
    }
    server.restart().await?;
    let rest = server.admin().await?.with_project("demo");
    // Those whose request never got through are requested again: names say which.
    for i in 0..50 {
        let body = json!({"name": format!("vm-{i}"), "image": "halt", "vcpus": 1, "memory_mib": 64, "disk_gib": 1});
        let (status, answer) = rest.answer(reqwest::Method::POST, "/v1/instances", Some(&body)).await?;
        ensure!(status == 201 || answer["code"] == "name_taken", "vm-{i}: {status} {answer}");
    }
    let all = until("all 50 run, or are in error with a reason", async || {
        let list = rest.get("/v1/instances?limit=100").await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let settled = items.iter().all(|i| i["state"] == "running" || (i["state"] == "error" && i["reason"] != ""));
        Ok((items.len() == 50 && settled).then_some(items))
    })
    .await?;
    for instance in &all {
        let id = instance["id"].as_str().expect("an id");
        let expected = usize::from(instance["state"] == "running");
        ensure!(qemus(id).len() == expected, "{} has {} QEMUs: {instance}", id, qemus(id).len());
    }
    ensure!(accepted <= 50);
    ensure!(qemus(&server.dir.path().display().to_string()).len() <= 50, "no QEMU without an owner");
    let names: Vec<String> = all.iter().filter_map(|i| i["name"].as_str().map(str::to_owned)).collect();
    for name in names {
        rest.delete(&format!("/v1/instances/{name}")).await?;
    }
    until("all are gone", async || {
        Ok(rest.get("/v1/instances").await?["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })
    .await?;
    ensure!(qemus(&server.dir.path().display().to_string()).is_empty(), "no QEMU is left");
    // No claim without an instance: the host's usage is back to nothing.
    let host = rest.get("/v1/hosts").await?["items"][0].clone();
    ensure!(
        host.to_string().contains("\"used\"") && host["used"]["vcpus"] == 0 && host["used"]["memory_mib"] == 0,
        "{host}"
    );
    let (_, metrics) = rest.send(reqwest::Method::GET, "/metrics", None).await?;
    let metrics = String::from_utf8_lossy(&metrics);
    ensure!(metrics.lines().filter(|l| l.starts_with("iaas_leaks")).all(|l| l.ends_with(" 0")), "leaks");
    server.stop()
}
