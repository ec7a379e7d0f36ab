//! `iaas-bench boot --network`: from the REST call until the instance answers its first ping, against instances without a NIC until their
//! up line, in turns. The network is on the host already, as it is for all but a project's first instance there.

use crate::{
    boot::{UP_LIMIT, delete, until_up},
    stats::{Sample, round},
};
use anyhow::Context;
use harness::{Rest, Server};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    process::{Command, Stdio},
    time::Instant,
};

pub async fn run(rest: &Rest, server: &Server, runs: usize) -> anyhow::Result<Value> {
    let network = rest.get("/v1/networks/default").await?;
    let namespace = format!("{}-{}", server.prefix, network["id"].as_str().context("an id")?.replace('-', ""));
    let keeper = with_nic("keeper", "10.0.1.1");
    rest.call(Method::POST, "/v1/instances?wait=guest&timeout=120s", Some(&keeper)).await?;
    let (mut without, mut up, mut ping) = (vec![], vec![], vec![]);
    for run in 0..runs {
        let name = format!("bare-{run}");
        let body = json!({"name": name, "image": "tiny", "vcpus": 1, "memory_mib": 256, "disk_gib": 1, "networks": []});
        without.push(up_ms(rest, server, &name, &body).await?);
        delete(rest, &name).await?;
        let (name, address) = (format!("nic-{run}"), format!("10.0.2.{}", 1 + run % 250));
        let (began, inside) = (Instant::now(), namespace.clone());
        let pinged = tokio::task::spawn_blocking(move || first_ping(&inside, &address, began));
        up.push(up_ms(rest, server, &name, &with_nic(&name, &format!("10.0.2.{}", 1 + run % 250))).await?);
        ping.push(pinged.await??);
        delete(rest, &name).await?;
    }
    delete(rest, "keeper").await?;
    let (without, up, ping) = (Sample::new(without), Sample::new(up), Sample::new(ping));
    Ok(json!({
        "bench": "boot",
        "network": true,
        "up_without_ms_p50": round(without.percentile(50.0)),
        "up_with_ms_p50": round(up.percentile(50.0)),
        "first_ping_ms_p50": round(ping.percentile(50.0)),
        "first_ping_ms_p99": round(ping.percentile(99.0)),
        "added_ms_p50": round(ping.percentile(50.0) - without.percentile(50.0)),
    }))
}

fn with_nic(name: &str, address: &str) -> Value {
    let nics = json!([{"network": "default", "fixed_ips": [address]}]);
    json!({"name": name, "image": "tiny", "vcpus": 1, "memory_mib": 256, "disk_gib": 1, "networks": nics})
}

async fn up_ms(rest: &Rest, server: &Server, name: &str, body: &Value) -> anyhow::Result<f64> {
    let began = Instant::now();
    let watched = until_up(server, name, began);
    rest.call(Method::POST, "/v1/instances?wait=guest&timeout=120s", Some(body)).await?;
    watched.await
}

/// Echo requests every 10 ms out of the network's namespace, until one is answered; milliseconds since `began`.
fn first_ping(namespace: &str, address: &str, began: Instant) -> anyhow::Result<f64> {
    while began.elapsed() < UP_LIMIT {
        let mut ping = Command::new("ip");
        ping.args(["netns", "exec", namespace, "ping", "-n", "-q", "-c", "1", "-i", "0.01", "-w", "120", address]);
        // It ends at once while there is no way to the address yet.
        if ping.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
            return Ok(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    anyhow::bail!("{address} never answered")
}
