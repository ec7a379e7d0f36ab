//! iaasd as a process: its configuration, its port, its doctor.

use crate::support::server;
use anyhow::ensure;
use harness::bin_dir;
use std::{path::Path, process::Command};

fn iaasd(args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(bin_dir().join("iaasd")).args(args).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn all_errors_of_a_configuration_are_reported_at_once() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("iaasd.toml");
    std::fs::write(
        &path,
        "[api]\nlisten = 7\nlitsen = 'x'\n[paths]\nstate = 'relative'\n[nonsense]\n[store]\nurl = 'mysql://x'\n",
    )?;
    let (code, text) = iaasd(&["config", "check", "--config", &path.display().to_string()])?;
    ensure!(code == Some(2), "{text}");
    for key in ["api.listen", "api.litsen", "paths.state", "nonsense", "store.url"] {
        ensure!(text.contains(key), "{key} is not reported:\n{text}");
    }
    Ok(())
}

#[test]
fn the_documented_example_is_valid() -> anyhow::Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/iaasd.toml");
    let (code, text) = iaasd(&["config", "check", "--config", &example.display().to_string()])?;
    ensure!(code == Some(0), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_and_a_second_iaasd_are_said_clearly() -> anyhow::Result<()> {
    let server = server().await?;
    let addr = server.base.trim_start_matches("http://").to_owned();
    // The same state and run directory: the lock says so.
    let (code, text) = iaasd(&["all", "--config", &server.config().display().to_string()])?;
    ensure!(code == Some(1) && text.contains("another iaasd"), "{text}");
    // Another state, the same port.
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("iaasd.toml");
    let state = dir.path().display();
    std::fs::write(
        &path,
        format!(
            "[paths]\nstate = '{state}/s'\nrun = '{state}/r'\n[api]\nlisten = '{addr}'\n[identity]\nadmin_password_file = '{state}/p'\n"
        ),
    )?;
    let (code, text) = iaasd(&["all", "--config", &path.display().to_string()])?;
    ensure!(code == Some(1) && text.contains(&addr), "{text}");
    server.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_that_qemu_is_missing_or_too_old() -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir()?;
    let old = dir.path().join("qemu-old");
    std::fs::write(&old, "#!/bin/sh\necho 'QEMU emulator version 5.2.0 (Debian 1:5.2+dfsg-11)'\n")?;
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755))?;
    for (binary, says) in [("/nonexistent/qemu-system-x86_64".to_owned(), "not"), (old.display().to_string(), "5.2.0")]
    {
        let path = dir.path().join("iaasd.toml");
        let state = dir.path().display();
        std::fs::write(
            &path,
            format!("[paths]\nstate = '{state}/s'\nrun = '{state}/r'\n[compute]\nqemu = '{binary}'\n"),
        )?;
        let (code, text) = iaasd(&["doctor", "--config", &path.display().to_string()])?;
        ensure!(code == Some(1) && text.to_lowercase().contains("qemu") && text.contains(says), "{binary}: {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_served_where_others_can_reach_it() -> anyhow::Result<()> {
    // 0.0.0.0 is not loopback: the built-in CA's certificate is used, and plain HTTP isn't spoken.
    let port = harness::free_address()?.port();
    let dir = tempfile::Builder::new().prefix("iaas-").tempdir_in("/var/tmp")?;
    let state = dir.path().display();
    let path = dir.path().join("iaasd.toml");
    std::fs::write(
        &path,
        format!(
            "[paths]\nstate = '{state}/s'\nrun = '{state}/r'\n[api]\nlisten = '0.0.0.0:{port}'\n[identity]\nadmin_password_file = '{state}/p'\n"
        ),
    )?;
    let log = std::fs::File::create(dir.path().join("log"))?;
    let mut child = Command::new(bin_dir().join("iaasd")).args(["all", "--config"]).arg(&path).stderr(log).spawn()?;
    let result = async {
        let ca = dir.path().join("s/ca/ca.pem");
        let pem = crate::support::until("the CA's certificate", async || Ok(std::fs::read(&ca).ok())).await?;
        service_kit::install_crypto();
        let client = reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem)?]).build()?;
        crate::support::until("HTTPS answers", async || {
            let answer = client.get(format!("https://127.0.0.1:{port}/readyz")).send().await;
            Ok(answer.is_ok_and(|r| r.status().is_success()).then_some(()))
        })
        .await?;
        let plain = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await;
        ensure!(plain.is_err() || plain.is_ok_and(|r| !r.status().is_success()), "plain HTTP is not served");
        anyhow::Ok(())
    }
    .await;
    child.kill()?;
    child.wait()?;
    result.map_err(|e| e.context(std::fs::read_to_string(dir.path().join("log")).unwrap_or_default()))
}
