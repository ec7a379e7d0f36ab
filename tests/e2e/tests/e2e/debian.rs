//! Opt-in: a real Debian with stock cloud-init (`./deploy/test --debian`).

use crate::support::{console, guests, not_run, server, until_instance};
use anyhow::ensure;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_debian_runs_its_user_data() -> anyhow::Result<()> {
    let Some(image) = std::env::var_os("IAAS_TEST_DEBIAN_IMAGE") else {
        not_run("a stock Debian with cloud-init", "opt-in: ./deploy/test --debian");
        return Ok(());
    };
    let _guests = guests(4).await;
    let server = server().await?;
    let rest = server.login("demo").await?;
    rest.post("/v1/images", &json!({"name": "debian-12", "kind": "disk", "format": "qcow2"})).await?;
    rest.upload("/v1/images/debian-12/parts/disk", std::fs::read(&image)?).await?;
    let user_data = "#cloud-config\nruncmd:\n  - 'echo user-data-ran-on $(hostname) > /dev/ttyS0'\n";
    let body = json!({"name": "deb", "image": "debian-12", "vcpus": 2, "memory_mib": 1024, "disk_gib": 4, "user_data": user_data});
    rest.post("/v1/instances", &body).await?;
    let mut last = None;
    for _ in 0..4 {
        // A Debian under emulation may take some minutes to come up.
        match until_instance(&rest, "deb", "cloud-init has finished", |i| i["guest_up_at"].is_string()).await {
            Ok(up) => {
                last = Some(up);
                break;
            }
            Err(error) => eprintln!("{error}"),
        }
    }
    ensure!(last.is_some(), "{}", console(&rest, "deb").await?);
    ensure!(console(&rest, "deb").await?.contains("user-data-ran-on deb"));
    server.stop()
}
