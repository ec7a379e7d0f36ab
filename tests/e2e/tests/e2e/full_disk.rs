//! `iaasd all` as a whole on a disk that is full: it starts, lets people in, and deletes.

use crate::support::{not_run, until};
use anyhow::Context;
use harness::{Rest, Server};
use reqwest::Method;
use serde_json::json;
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

/// A small file system of its own, until it is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> anyhow::Result<Option<Self>> {
        let directory = tempfile::tempdir_in("/var/tmp")?;
        let options = ["-t", "tmpfs", "-o", "size=256m", "none"];
        let mounted = Command::new("mount").args(options).arg(directory.path()).status();
        Ok(mounted.is_ok_and(|status| status.success()).then_some(Self(directory)))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn junk(&self) -> PathBuf {
        self.path().join("junk")
    }

    fn fill(&self) -> anyhow::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.junk())?;
        for piece in [1 << 20, 1 << 12, 1usize] {
            while file.write_all(&vec![1; piece]).is_ok() {}
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

async fn refused_for_the_disk(rest: &Rest, name: &str) -> anyhow::Result<bool> {
    let body = json!({"name": name, "description": "x".repeat(200)});
    let (status, answer) = rest.answer(Method::POST, "/v1/projects", Some(&body)).await?;
    Ok(status == 503 && answer["code"] == "storage_full")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_neither_a_start_nor_a_login_nor_a_deletion() -> anyhow::Result<()> {
    let Some(disk) = Disk::new()? else {
        not_run("iaasd on a full disk", "a small tmpfs can't be mounted here (it needs root)");
        return Ok(());
    };
    let mut server = Server::start(disk.path(), "[storage]\nfree_gib_min = 0\n").await?;
    let rest = server.admin().await?;
    for name in ["one", "two"] {
        rest.post("/v1/projects", &json!({"name": name})).await?;
    }
    disk.fill()?;
    server.crash()?;
    disk.fill()?;
    server.restart_unready().await.context("it starts on a full disk")?;
    let rest = server.admin().await.context("an admin logs in")?;
    let number = AtomicU32::new(0);
    until("a project that there is no room for", || async {
        disk.fill()?;
        let name = format!("p{}", number.fetch_add(1, Ordering::Relaxed));
        Ok(refused_for_the_disk(&rest, &name).await?.then_some(()))
    })
    .await?;
    until("readiness to say so", || async {
        let (status, answer) = rest.answer(Method::GET, "/readyz", None).await?;
        Ok((status == 503 && answer["detail"].as_str().is_some_and(|detail| detail.contains("full"))).then_some(()))
    })
    .await?;
    rest.delete("/v1/projects/one").await.context("a deletion")?;
    let rest = server.admin().await.context("an admin logs in again")?;
    std::fs::remove_file(disk.junk())?;
    until("a project after there is room", || async {
        let (status, _) = rest.answer(Method::POST, "/v1/projects", Some(&json!({"name": "three"}))).await?;
        Ok(matches!(status, 201 | 409).then_some(()))
    })
    .await?;
    until("readiness to come back", || async {
        Ok((rest.answer(Method::GET, "/readyz", None).await?.0 == 200).then_some(()))
    })
    .await?;
    server.stop()
}
