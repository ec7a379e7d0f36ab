//! The control plane's disk is full: whoever is to free room gets in.

use crate::harness::{World, answer};
use serde_json::{Value, json};
use std::{io::Write, path::Path, process::Command};

/// A small file system of its own, until it is dropped.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn on(directory: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "none"]).arg(directory).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(directory.to_owned()));
        }
        println!("not run: full disk: a small tmpfs can't be mounted here (it needs root)");
        None
    }

    fn junk(&self) -> std::path::PathBuf {
        self.0.join("junk")
    }

    fn fill(&self) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.junk()).expect("it opens");
        for piece in [1 << 20, 1 << 12, 1usize] {
            while file.write_all(&vec![1; piece]).is_ok() {}
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_a_login_has_no_refresh_token_and_a_refresh_token_stays_good() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mounted) = Mounted::on(directory.path()) else { return };
    let world = World::start_in(directory).await;
    let nobody = world.nobody();
    let password = world.admin_password();
    let login = async || nobody.post("/v1/auth/login", json!({"username": "admin", "password": password})).await;
    let refresh = async |token: &Value| nobody.post("/v1/auth/refresh", json!({"refresh_token": token})).await;
    let before = login().await.expect(200)["refresh_token"].clone();
    assert_ne!(before, "");
    mounted.fill();
    // What is left of the file that is being written takes a few more rows.
    let tokens = crate::harness::eventually("a login that can't be stored", async || {
        mounted.fill();
        let tokens = login().await.expect(200);
        (tokens["refresh_token"] == "").then_some(tokens)
    })
    .await;
    let admin = nobody.http.get(format!("{}/v1/whoami", nobody.base));
    answer(admin.bearer_auth(tokens["access_token"].as_str().expect("a token"))).await.expect(200);
    refresh(&tokens["refresh_token"]).await.problem(401, "refresh_token_invalid");
    // It can't be exchanged now, and isn't used up by the attempt.
    refresh(&before).await.problem(503, "storage_full");
    std::fs::remove_file(mounted.junk()).expect("removed");
    let after = refresh(&before).await.expect(200);
    assert_ne!(after["refresh_token"], "", "with room everything is as before");
    world.stop().await;
}
