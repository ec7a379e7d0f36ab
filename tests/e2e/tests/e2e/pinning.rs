//! A pinned flavor, from REST to the threads of a real QEMU.

use crate::support::{can_run_guests, create, guests, not_run, qemus, server_with_tiny};
use anyhow::{Context, ensure};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_flavors_instance_has_a_thread_of_its_own() -> anyhow::Result<()> {
    if !can_run_guests("a pinned guest") {
        return Ok(());
    }
    let _guests = guests(1).await;
    let (server, rest) = server_with_tiny().await?;
    let hosts = rest.get("/v1/hosts").await?;
    let host = &hosts["items"][0];
    if host["facts"]["numa"].as_array().is_none_or(|nodes| nodes.iter().all(|n| n["threads"].as_u64() < Some(2))) {
        not_run("a pinned guest", "no NUMA node here has two threads");
        return server.stop();
    }
    let flavor = json!({"name": "own", "vcpus": 1, "memory_mib": 192, "disk_gib": 1, "pinning": "numa"});
    ensure!(rest.post("/v1/flavors", &flavor).await?["pinning"] == "numa");
    let made = create(&rest, "alone", "guest", json!({"flavor": "own"})).await?;
    ensure!(made["numa_node"].is_u64() && made["cpu_baseline"] == host["cpu_baseline"], "{made}");
    let pid = *qemus(made["id"].as_str().context("an id")?).first().context("it runs")?;
    let mut found = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        if std::fs::read_to_string(task.path().join("comm"))?.starts_with("CPU ") {
            let status = std::fs::read_to_string(task.path().join("status"))?;
            let on = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).context("an affinity")?;
            ensure!(on.trim().parse::<u32>().is_ok(), "one thread alone, not {on}");
            found += 1;
        }
    }
    ensure!(found == 1, "{found} vCPUs");
    rest.delete("/v1/instances/alone?wait=deleted&timeout=60s").await?;
    server.stop()
}
