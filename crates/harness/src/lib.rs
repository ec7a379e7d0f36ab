//! What benches and end-to-end tests share: the real `iaasd` as a process of its own, and a caller of its REST API that costs little.

mod lab;
mod pairs;
mod rest;
mod server;

use anyhow::Context;
pub use lab::{Cable, Lab};
pub use pairs::Pairs;
pub use rest::Rest;
pub use server::{Server, bin_dir};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// An address that was free a moment ago.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Waits until /readyz answers with success: every role works. 60 s at most.
pub async fn wait_ready(base: &str) -> anyhow::Result<()> {
    wait_for(base, "/readyz").await
}

/// Waits until the gateway answers, whatever stands behind it. 60 s at most.
pub async fn wait_alive(base: &str) -> anyhow::Result<()> {
    wait_for(base, "/healthz").await
}

async fn wait_for(base: &str, path: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let ready = async {
        loop {
            let answer = client.get(format!("{base}{path}")).send().await;
            if answer.is_ok_and(|r| r.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready)
        .await
        .with_context(|| format!("{path} of the API didn't answer with success within 60 s"))
}

/// The directory of the built guest image `tiny` (vmlinuz, initramfs.cpio.gz, cmdline), or why there is none.
pub fn guest_dir() -> Result<PathBuf, String> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/guest/tiny");
    let dir = std::env::var_os("IAAS_TEST_GUEST_DIR").map_or(workspace, PathBuf::from);
    if dir.join("vmlinuz").exists() {
        Ok(dir)
    } else {
        Err(format!("{} has no guest image: run deploy/guest/tiny/build", dir.display()))
    }
}
