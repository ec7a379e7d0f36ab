//! Opt-in: a real Debian with stock cloud-init (`./deploy/test --debian`).

use crate::support::{console, guests, not_run, server};
use anyhow::ensure;
use serde_json::json;
use std::time::{Duration, Instant};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtwGcWB2gCgPhk me@example";
/// A Debian under emulation may take some minutes to come up.
const TIMEOUT: Duration = Duration::from_secs(600);

/// At its first boot it is told who it is by the config drive. Then it forgets all that, and may only ask the metadata service.
const USER_DATA: &str = r#"#cloud-config
runcmd:
  - |
    if [ -e /var/lib/first-boot-done ]; then
      echo "metadata-said $(cloud-init query subplatform) $(hostname) $(cat /home/debian/.ssh/authorized_keys)" > /dev/ttyS0
    else
      echo "user-data-ran-on $(hostname)" > /dev/ttyS0
      : > /var/lib/first-boot-done
      rm /home/debian/.ssh/authorized_keys
      hostnamectl set-hostname nobody
      echo 'datasource_list: [Ec2, None]' > /etc/cloud/cloud.cfg.d/99_metadata_alone.cfg
      cloud-init clean
      systemctl --no-block reboot
    fi
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_debian_is_told_who_it_is_by_config_drive_and_by_metadata_service() -> anyhow::Result<()> {
    let Some(image) = std::env::var_os("IAAS_TEST_DEBIAN_IMAGE") else {
        not_run("a stock Debian with cloud-init", "opt-in: ./deploy/test --debian");
        return Ok(());
    };
    let _guests = guests(4).await;
    let server = server().await?;
    let rest = server.login("demo").await?;
    rest.post("/v1/images", &json!({"name": "debian-12", "kind": "disk", "format": "qcow2"})).await?;
    rest.upload("/v1/images/debian-12/parts/disk", std::fs::read(&image)?).await?;
    rest.post("/v1/ssh-keys", &json!({"name": "me", "public_key": KEY})).await?;
    let body = json!({
        "name": "deb", "image": "debian-12", "vcpus": 2, "memory_mib": 1024, "disk_gib": 4, "user_data": USER_DATA,
        "ssh_keys": ["me"], "networks": [{"network": "default"}],
    });
    rest.post("/v1/instances?wait=running&timeout=180s", &body).await?;
    for said in ["user-data-ran-on deb", &format!("metadata-said metadata (http://169.254.169.254) deb {KEY}")] {
        let began = Instant::now();
        while !console(&rest, "deb").await?.contains(said) {
            ensure!(began.elapsed() < TIMEOUT, "never said `{said}`: {}", console(&rest, "deb").await?);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    server.stop()
}
