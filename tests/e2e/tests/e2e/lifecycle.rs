//! One instance from its creation to nothing left, through everything a tenant may do to it.

use crate::support::{can_run_guests, console, create, guests, qemus, server_with_tiny, until, until_instance, usage};
use anyhow::ensure;
use base64::Engine;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lives_and_leaves_nothing() -> anyhow::Result<()> {
    if !can_run_guests("an instance's whole life") {
        return Ok(());
    }
    let _guests = guests(1).await;
    let (server, rest) = server_with_tiny().await?;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtwGcWB2gCgPhk me@example";
    rest.post("/v1/ssh-keys", &json!({"name": "me", "public_key": key})).await?;
    let user_data = "#!/bin/sh\necho user-data-ran-on $(hostname)\ncat /root/.ssh/authorized_keys\n";
    let made =
        create(&rest, "hello", "guest", json!({"user_data": user_data, "ssh_keys": ["me"], "tags": {"role": "web"}}))
            .await?;
    let id = made["id"].as_str().expect("an id").to_owned();
    ensure!(made["state"] == "running" && made["guest_up_at"].is_string(), "{made}");
    let log = console(&rest, "hello").await?;
    ensure!(log.contains("iaas-guest: up hello "), "{log}");
    ensure!(log.contains("user-data-ran-on hello") && log.contains(key), "identity from the config drive: {log}");
    ensure!(qemus(&id).len() == 1, "one QEMU");
    let pid = qemus(&id)[0];

    // Rename, tags, and the list's filters.
    let renamed = rest
        .call(reqwest::Method::PATCH, "/v1/instances/hello", Some(&json!({"name": "hi", "tags": {"role": "db"}})))
        .await?;
    ensure!(renamed["name"] == "hi" && renamed["generation"].as_i64() > made["generation"].as_i64(), "{renamed}");
    let listed = rest.get("/v1/instances?tag=role=db&state=running").await?;
    ensure!(listed["items"].as_array().is_some_and(|i| i.len() == 1), "{listed}");

    // Pause and resume keep the process.
    rest.post("/v1/instances/hi/pause?wait=paused", &json!({})).await?;
    rest.post("/v1/instances/hi/resume?wait=running", &json!({})).await?;
    ensure!(qemus(&id) == [pid], "the same QEMU after pause and resume");

    // The serial console answers, with a ticket that works once.
    serial_console_answers(&rest, "hi").await?;

    // A hard reboot: the guest says again that it is up, in the same QEMU or a new one.
    let before = rest.get("/v1/instances/hi").await?["guest_up_at"].clone();
    rest.post("/v1/instances/hi/reboot", &json!({"hard": true})).await?;
    until_instance(&rest, "hi", "up again after the reboot", |i| {
        i["guest_up_at"].is_string() && i["guest_up_at"] != before
    })
    .await?;

    // A graceful stop: the guest powers itself off. Then resize, and start again.
    let stopped = rest.post("/v1/instances/hi/stop?wait=stopped&timeout=60s", &json!({"timeout_secs": 30})).await?;
    ensure!(stopped["state"] == "stopped", "{stopped}");
    ensure!(console(&rest, "hi").await?.contains("ower down") || qemus(&id).is_empty(), "the guest was asked");
    ensure!(qemus(&id).is_empty(), "no QEMU of a stopped instance");
    let resized = rest.post("/v1/instances/hi/resize", &json!({"vcpus": 2, "memory_mib": 256, "disk_gib": 2})).await?;
    ensure!(resized["vcpus"] == 2 && resized["disk_gib"] == 2, "{resized}");
    let started = rest.post("/v1/instances/hi/start?wait=guest&timeout=180s", &json!({})).await?;
    ensure!(started["state"] == "running", "{started}");
    let used = usage(&rest).await?;
    ensure!(used == json!([1, 2, 256, 2, 1]), "{used}");

    // What happened, and why it is where it is.
    let timeline = rest.get("/v1/instances/hi/timeline").await?;
    let kinds: Vec<&str> =
        timeline["items"].as_array().into_iter().flatten().filter_map(|e| e["kind"].as_str()).collect();
    ensure!(kinds.iter().any(|k| k.contains("running")) && kinds.iter().any(|k| k.contains("stopped")), "{kinds:?}");
    let explain = rest.get("/v1/instances/hi/explain").await?;
    ensure!(explain.to_string().contains("hosts_considered"), "{explain}");

    // Deletion leaves nothing: no process, no file with its id, no row, no quota.
    rest.delete("/v1/instances/hi?wait=deleted&timeout=60s").await?;
    ensure!(rest.answer(reqwest::Method::GET, &format!("/v1/instances/{id}"), None).await?.0 == 404);
    ensure!(qemus(&id).is_empty());
    let state = server.dir.path().to_owned();
    until("the host's files are gone but for the tombstone", async || {
        let left: Vec<_> = files_with(&state, &id).into_iter().filter(|p| !p.contains("ledger")).collect();
        Ok(left.is_empty().then_some(()))
    })
    .await?;
    let used = usage(&rest).await?;
    ensure!(used == json!([0, 0, 0, 0, 0]), "{used}");
    server.stop()
}

fn files_with(dir: &std::path::Path, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.display().to_string().contains(needle) {
                found.push(path.display().to_string());
            } else if entry.file_type().is_ok_and(|t| t.is_dir()) {
                open.push(path);
            }
        }
    }
    found
}

async fn serial_console_answers(rest: &harness::Rest, name: &str) -> anyhow::Result<()> {
    let ticket = rest.post(&format!("/v1/instances/{name}/console-ticket"), &json!({})).await?;
    let ticket = ticket["ticket"].as_str().expect("a ticket").to_owned();
    let url = format!("{}/v1/console?ticket={ticket}", rest.base().replace("http://", "ws://"));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await?;
    // The shell computes: an echo of what was typed is not taken for an answer.
    socket.send(Message::binary(b"\necho answer-$((6*7))\n".to_vec())).await?;
    let mut output = String::new();
    let answered = async {
        while let Some(message) = socket.next().await {
            match message? {
                Message::Binary(bytes) => output.push_str(&String::from_utf8_lossy(&bytes)),
                Message::Text(text) => output.push_str(&text),
                Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
            }
            if output.contains("answer-42") {
                return Ok(());
            }
        }
        anyhow::bail!("the console closed: {output}")
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), answered).await??;
    let again = tokio_tungstenite::connect_async(&url).await;
    ensure!(again.is_err(), "a ticket works once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_makes_the_root_disk_anew() -> anyhow::Result<()> {
    if !can_run_guests("rebuild") {
        return Ok(());
    }
    let _guests = guests(1).await;
    let (server, rest) = server_with_tiny().await?;
    let script = "#!/bin/sh\nif [ \"$(head -c 4 /dev/vda)\" = mark ]; then echo disk-has-mark; else echo disk-is-new; printf mark > /dev/vda; sync; fi\n";
    let user_data_base64 = base64::engine::general_purpose::STANDARD.encode(script);
    create(&rest, "keeper", "guest", json!({"user_data_base64": user_data_base64})).await?;
    let log = console(&rest, "keeper").await?;
    ensure!(log.contains("disk-is-new"), "{log}");
    let cycle = async |verb: &str, body: Value| -> anyhow::Result<String> {
        let before = rest.get("/v1/instances/keeper").await?["guest_up_at"].clone();
        rest.post(&format!("/v1/instances/keeper/{verb}"), &body).await?;
        until_instance(&rest, "keeper", verb, |i| {
            i["state"] == "running" && i["guest_up_at"].is_string() && i["guest_up_at"] != before
        })
        .await?;
        console(&rest, "keeper").await
    };
    let log = cycle("reboot", json!({"hard": true})).await?;
    ensure!(log.contains("disk-has-mark"), "a reboot keeps the disk: {log}");
    let log = cycle("rebuild", json!({})).await?;
    let last = log.rfind("disk-is-new").zip(log.rfind("disk-has-mark"));
    ensure!(last.is_none_or(|(new, kept)| new > kept), "a rebuild makes it anew: {log}");
    server.stop()
}
