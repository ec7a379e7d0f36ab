//! The roles in processes of their own: PostgreSQL, TCP, mutual TLS.

use crate::support::{can_run_guests, create, guests, not_run, until, upload_tiny};
use anyhow::ensure;
use harness::{Pairs, Rest, bin_dir, free_address};
use reqwest::Method;
use serde_json::json;
use service_kit::leader::LeaderTarget;
use sim::SimFleet;
use std::{
    collections::BTreeSet,
    path::Path,
    process::{Child, Command, Stdio},
};

struct Roles(Vec<(String, Child)>, tempfile::TempDir);

impl Drop for Roles {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
        let config = self.1.path().join("compute-agent.toml");
        let _ = Command::new(bin_dir().join("iaasd"))
            .args(["vms", "stop", "--config"])
            .arg(config)
            .stdout(Stdio::null())
            .status();
        if std::thread::panicking() {
            for (role, _) in &self.0 {
                let log = std::fs::read_to_string(self.1.path().join(format!("{role}.log"))).unwrap_or_default();
                eprintln!("--- {role} ---\n{}", log.lines().rev().take(15).collect::<Vec<_>>().join("\n"));
            }
        }
    }
}

fn certs(dir: &Path, role: &str) -> anyhow::Result<()> {
    let issued = Command::new(bin_dir().join("iaasd"))
        .args(["certs", "issue", "--role", role, "--name", "127.0.0.1", "--ca-dir"])
        .arg(dir.join("ca"))
        .arg("--out-dir")
        .arg(dir.join("tls"))
        .stdout(Stdio::null())
        .status()?;
    ensure!(issued.success(), "certs issue {role}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_make_one_cloud() -> anyhow::Result<()> {
    let what = "the roles as five processes over PostgreSQL and mutual TLS";
    let Some(database) = store::testing::TestDatabase::postgres().await else {
        not_run(what, "IAAS_TEST_POSTGRES_URL is not set (./deploy/test sets it)");
        return Ok(());
    };
    if !can_run_guests(what) {
        return Ok(());
    }
    let _guests = guests(1).await;
    let dir = tempfile::Builder::new().prefix("iaas-").tempdir_in("/var/tmp")?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let made = Command::new(bin_dir().join("iaasd"))
        .args(["certs", "ca", "--dir", &at("ca")])
        .stdout(Stdio::null())
        .status()?;
    ensure!(made.success(), "certs ca");
    let (api, cluster, storage, resource) = (free_address()?, free_address()?, free_address()?, free_address()?);
    let mut roles = Roles(Vec::new(), dir);
    let dir = roles.1.path().to_owned();
    for role in ["storage-manager", "resource-manager", "cluster-manager", "api-gateway", "compute-agent"] {
        if role != "compute-agent" {
            certs(&dir, role)?;
        }
        let d = dir.display();
        let url = &database.config.url;
        let config = format!(
            "[paths]\nstate = '{d}/{role}'\nrun = '{d}/r-{role}'\n[log]\nformat = 'json'\n[store]\nurl = '{url}'\n[links]\ncluster_listen = '{cluster}'\nstorage_listen = '{storage}'\nresource_listen = '{resource}'\ntls_dir = '{d}/tls'\n\
             [api]\nlisten = '{api}'\nca_dir = '{d}/ca'\n[identity]\nadmin_password_file = '{d}/password'\n"
        );
        let path = dir.join(format!("{role}.toml"));
        std::fs::write(&path, config)?;
        if role == "compute-agent" {
            continue;
        }
        let log = std::fs::File::create(dir.join(format!("{role}.log")))?;
        let child = Command::new(bin_dir().join("iaasd"))
            .arg(role)
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        roles.0.push((role.to_owned(), child));
    }
    let base = format!("http://{api}");
    harness::wait_ready(&base).await?;
    let password = std::fs::read_to_string(dir.join("password"))?;
    let rest = Rest::login(&base, "admin", password.trim()).await?.in_project("demo").await?;
    // The host joins, as every host does.
    let made = rest.post("/v1/host-tokens", &json!({"name": "far-host"})).await?;
    let child = Command::new(bin_dir().join("iaasd"))
        .args(["compute-agent", "--join", made["token"].as_str().unwrap_or_default(), "--config"])
        .arg(dir.join("compute-agent.toml"))
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(dir.join("compute-agent.log"))?)
        .spawn()?;
    roles.0.push(("compute-agent".to_owned(), child));
    upload_tiny(&rest).await?;
    rest.post("/v1/flavors", &json!({"name": "small", "vcpus": 1, "memory_mib": 192, "disk_gib": 1})).await?;
    until("the host is up", async || {
        let hosts = rest.get("/v1/hosts").await?;
        Ok((hosts["items"][0]["state"] == "up").then_some(()))
    })
    .await?;
    // It has no network-agent, so its instances have no NICs.
    let made = create(&rest, "far", "guest", json!({"networks": []})).await?;
    ensure!(made["state"] == "running", "{made}");

    // The cluster-manager dies and comes back: the guest doesn't notice, and work goes on.
    let manager = roles.0.iter_mut().find(|(role, _)| role == "cluster-manager").expect("it runs");
    manager.1.kill()?;
    manager.1.wait()?;
    let (status, problem) = rest.answer(Method::POST, "/v1/instances/far/pause", Some(&json!({}))).await?;
    ensure!(status == 503 && problem["code"].is_string(), "{status} {problem}");
    ensure!(rest.get("/v1/instances/far").await?["state"] == "running", "reads go on");
    let log = std::fs::OpenOptions::new().append(true).open(dir.join("cluster-manager.log"))?;
    manager.1 = Command::new(bin_dir().join("iaasd"))
        .args(["cluster-manager", "--config"])
        .arg(dir.join("cluster-manager.toml"))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()?;
    until("the manager takes work again", async || {
        let (status, _) =
            rest.answer(Method::POST, "/v1/instances/far/pause?wait=paused&timeout=30s", Some(&json!({}))).await?;
        Ok((status < 300).then_some(()))
    })
    .await?;
    rest.delete("/v1/instances/far?wait=deleted&timeout=60s").await?;
    Ok(())
}

/// What an image needs to look like a kernel to the storage-manager's inspection; nothing here is ever run.
fn kernel_like() -> Vec<u8> {
    let mut bytes = vec![0u8; 4096];
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_each_manager_lose_and_double_nothing_when_the_leaders_are_killed_amid_creates() -> anyhow::Result<()> {
    let Some(database) = store::testing::TestDatabase::postgres().await else {
        not_run("two processes of each manager", "IAAS_TEST_POSTGRES_URL is not set (./deploy/test sets it)");
        return Ok(());
    };
    service_kit::install_crypto();
    let mut pairs = Pairs::start(Path::new("/var/tmp"), &database.config.url).await?;
    let cluster = LeaderTarget { urls: pairs.cluster_urls(), tls: None, lookup: None }.target();
    let capacity = domain::flavor::Size { vcpus: 64, memory_mib: 65_536, disk_gib: 1000 };
    let fleet = SimFleet::start(&cluster, 4, capacity)?;
    fleet.connected().await;
    let rest = pairs.login("blue").await?;
    rest.kernel_image("none", kernel_like(), b"070701".repeat(100), "").await?;
    let creates = futures::future::join_all((0..20).map(|number| {
        let rest = rest.clone();
        async move {
            let name = format!("vm-{number}");
            let body =
                json!({"name": name, "image": "none", "vcpus": 1, "memory_mib": 128, "disk_gib": 1, "networks": []});
            until("the create is answered", async || {
                let (status, answer) = rest.answer_once(Method::POST, "/v1/instances", &body, &name).await?;
                ensure!(matches!(status, 200..300 | 503 | 504), "{status}: {answer}");
                Ok((status < 300).then(|| answer["id"].clone()))
            })
            .await
        }
    }));
    let killed = async {
        until("some are made", async || {
            let list = rest.get("/v1/instances").await?;
            Ok(list["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(()))
        })
        .await?;
        let managers = rest.get("/v1/managers").await?;
        let managers = managers["items"].as_array().cloned().unwrap_or_default();
        let of = |state: &str| managers.iter().filter(|manager| manager["state"] == state).count();
        ensure!((of("leader"), of("standby")) == (3, 3), "{managers:?}");
        let leaders = managers.iter().filter(|manager| manager["state"] == "leader");
        let pids = leaders.filter_map(|manager| u32::try_from(manager["pid"].as_u64()?).ok());
        pairs.kill(pids)
    };
    let (answers, killed) = tokio::join!(creates, killed);
    killed?;
    let ids: BTreeSet<String> =
        answers.into_iter().map(|id| id.map(|id| id.to_string())).collect::<anyhow::Result<_>>()?;
    until("all of them run", async || {
        let list = rest.get("/v1/instances?limit=100").await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let there: BTreeSet<String> = items.iter().map(|item| item["id"].to_string()).collect();
        ensure!(there == ids && items.len() == 20, "{} of 20 are there", items.len());
        Ok(items.iter().all(|item| item["state"] == "running").then_some(()))
    })
    .await?;
    ensure!(fleet.world.starts_so_far() == 20, "{} starts", fleet.world.starts_so_far());
    ensure!(fleet.world.violations().is_empty(), "{:?}", fleet.world.violations());
    let hosts = rest.get("/v1/hosts").await?;
    ensure!(hosts["items"].as_array().is_some_and(|hosts| hosts.iter().all(|h| h["state"] == "up")), "{hosts}");
    fleet.stop().await;
    Ok(())
}
