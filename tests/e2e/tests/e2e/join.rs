//! Hosts join a control plane, as processes of their own over mutual TLS: tokens, certificates that renew themselves, removal.

use crate::support::{not_run, until};
use anyhow::{Context, ensure};
use domain::{HostId, Timestamp, join::JoinToken};
use harness::{Rest, bin_dir, free_address};
use proto::{
    agent::v1::{RenewRequest, host_identity_client::HostIdentityClient},
    cluster::v1::{ChangeHostRequest, CreateInstancesRequest, cluster_manager_client::ClusterManagerClient},
    storage::v1::{FetchObjectRequest, ReserveDisksRequest, storage_manager_client::StorageManagerClient},
    sync::v1::{AgentMessage, Hello, agent_message::Message, host_sync_client::HostSyncClient},
};
use reqwest::Method;
use serde_json::{Value, json};
use service_kit::{
    host_cert::HostCertificate,
    peer::says_not_admitted,
    tls::{CertFiles, ClientTls},
    transport::GrpcTarget,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Short enough to see renewals, long enough for a slow machine.
const CERTIFICATE_SECS: u64 = 8;

/// A process of iaasd, ended with the test.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- {} ---\n{}",
                self.log.display(),
                self.log().lines().rev().take(15).collect::<Vec<_>>().join("\n")
            );
        }
    }
}

impl Daemon {
    fn start(dir: &Path, role: &str, args: &[&str]) -> anyhow::Result<Self> {
        let log = dir.join(format!("{role}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(bin_dir().join("iaasd"))
            .arg(role)
            .args(args)
            .arg("--config")
            .arg(dir.join("iaasd.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()?;
        Ok(Self { child, log })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Until it ends by itself: whether it failed, and what it said.
    async fn refused(mut self) -> anyhow::Result<String> {
        let status = until("the agent gives up", || {
            let ended = self.child.try_wait();
            async move { Ok(ended?) }
        })
        .await?;
        ensure!(status.code() == Some(1), "it ended with {status}");
        Ok(self.log())
    }
}

struct Fleet {
    dir: tempfile::TempDir,
    rest: Rest,
    cluster: String,
    storage: String,
    _control_plane: Daemon,
}

impl Fleet {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("iaas-").tempdir_in("/var/tmp")?;
        let home = dir.path().join("manager");
        std::fs::create_dir(&home)?;
        let (api, cluster, storage) = (free_address()?, free_address()?, free_address()?);
        let config = format!(
            "[paths]\nstate = '{h}/state'\nrun = '{h}/run'\n[log]\nformat = 'json'\n[api]\nlisten = '0.0.0.0:{port}'\n\
             [links]\ncluster_listen = '0.0.0.0:{cluster_port}'\nstorage_listen = '{storage}'\n\
             [cluster]\nhost_certificate_secs = {CERTIFICATE_SECS}\n[identity]\nadmin_password_file = '{h}/password'\n",
            h = home.display(),
            port = api.port(),
            cluster_port = cluster.port(),
        );
        std::fs::write(home.join("iaasd.toml"), config)?;
        let control_plane = Daemon::start(&home, "control-plane", &[])?;
        let base = format!("https://127.0.0.1:{}", api.port());
        let rest = until("the API is there", async || {
            let (ca, password) = (home.join("state/ca/ca.pem"), home.join("password"));
            let (Ok(ca), Ok(password)) = (std::fs::read(ca), std::fs::read_to_string(password)) else {
                return Ok(None);
            };
            Ok(Rest::login_trusting(&base, &ca, "admin", password.trim()).await.ok())
        })
        .await?;
        Ok(Self {
            rest,
            cluster: format!("https://{cluster}"),
            storage: format!("https://{storage}"),
            _control_plane: control_plane,
            dir,
        })
    }

    /// A machine that may become a host.
    fn machine(&self, name: &str) -> anyhow::Result<PathBuf> {
        let home = self.dir.path().join(name);
        std::fs::create_dir(&home)?;
        let h = home.display();
        let config = format!(
            "[paths]\nstate = '{h}/state'\nrun = '{h}/run'\n[log]\nformat = 'json'\n\
             [compute]\nhost_name = '{name}'\naccelerator = 'tcg'\n[network]\nhost_name = '{name}'\nnetns_dir = '{h}/netns'\nprefix = 'iaas-{name}'\n"
        );
        std::fs::write(home.join("iaasd.toml"), config)?;
        Ok(home)
    }

    async fn token(&self, body: Value) -> anyhow::Result<String> {
        let made = self.rest.post("/v1/host-tokens", &body).await?;
        made["token"].as_str().map(str::to_owned).context("no token")
    }

    async fn host(&self, name: &str) -> anyhow::Result<Option<Value>> {
        let (status, host) = self.rest.answer(Method::GET, &format!("/v1/hosts/{name}"), None).await?;
        Ok((status == 200).then_some(host))
    }

    async fn until_up(&self, name: &str) -> anyhow::Result<Value> {
        until("the host is up", async || Ok(self.host(name).await?.filter(|host| host["state"] == "up"))).await
    }

    /// As the role's agent on that machine would call.
    fn target(home: &Path, role: &str, url: &str) -> anyhow::Result<GrpcTarget> {
        let at = |name: String| home.join("state/host").join(name);
        let files = CertFiles {
            cert: at(format!("{role}.pem")),
            key: at("host.key".into()),
            peers_ca: Some(at("ca.pem".into())),
        };
        Ok(GrpcTarget::Tcp { url: url.to_owned(), tls: Some(ClientTls::new(files)?) })
    }
}

fn certificate(home: &Path, role: &str) -> anyhow::Result<HostCertificate> {
    let pem = std::fs::read_to_string(home.join(format!("state/host/{role}.pem")))?;
    Ok(HostCertificate::parse(&pem)?)
}

/// Whether a message of that kind is in a JSON log.
fn says(log: &str, text: &str) -> bool {
    log.lines().any(|line| line.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_join_renew_and_are_removed() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        not_run("hosts that join", "only root can run agents");
        return Ok(());
    }
    service_kit::install_crypto();
    let fleet = Fleet::start().await?;
    let token = fleet.token(json!({"name": "rack-1"})).await?;
    let home = fleet.machine("one")?;

    // A token that names another CA, one that has expired, and one of nobody: each is refused for its reason, and nothing joins.
    let mut forged: JoinToken = token.parse()?;
    forged.ca_sha256 = "0".repeat(64);
    let said = Daemon::start(&home, "compute-agent", &["--join", &forged.to_string()])?.refused().await?;
    ensure!(says(&said, "doesn't show the CA"), "{said}");
    let brief = fleet.token(json!({"ttl_secs": 1})).await?;
    until("the token has expired", async || {
        let tokens = fleet.rest.get("/v1/host-tokens").await?;
        Ok(tokens["items"].as_array().is_some_and(|all| all.iter().any(|t| t["state"] == "expired")).then_some(()))
    })
    .await?;
    let said = Daemon::start(&home, "compute-agent", &["--join", &brief])?.refused().await?;
    ensure!(says(&said, "the token expired"), "{said}");
    let mut nobodys: JoinToken = token.parse()?;
    nobodys.secret = "0".repeat(64);
    let said = Daemon::start(&home, "compute-agent", &["--join", &nobodys.to_string()])?.refused().await?;
    ensure!(says(&said, "the token is unknown"), "{said}");
    ensure!(fleet.rest.get("/v1/hosts").await?["items"] == json!([]), "nothing joined");

    // The host joins under the name of its token; its other agent with the same token; no other host.
    let agent = Daemon::start(&home, "compute-agent", &["--join", &token])?;
    let host = fleet.until_up("rack-1").await?;
    let host_id: HostId = host["id"].as_str().context("an id")?.parse()?;
    let network = Daemon::start(&home, "network-agent", &["--join", &token])?;
    until("the network-agent has joined", async || Ok(certificate(&home, "network-agent").ok())).await?;
    ensure!(
        certificate(&home, "network-agent")?.host_id == host_id
            && certificate(&home, "compute-agent")?.host_id == host_id
    );
    let other = fleet.machine("two")?;
    let said = Daemon::start(&other, "compute-agent", &["--join", &token])?.refused().await?;
    ensure!(says(&said, "has admitted another host"), "{said}");
    let key = std::fs::metadata(home.join("state/host/host.key"))?;
    ensure!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o077 == 0, "the key is root's alone");

    // What a host's certificate may do, and may not.
    let compute = Fleet::target(&home, "compute-agent", &fleet.cluster)?.channel()?;
    let denied = |status: &dyn std::fmt::Debug| format!("{status:?}").contains("PermissionDenied");
    let mut managers = ClusterManagerClient::new(compute.clone());
    let status =
        managers.create_instances(CreateInstancesRequest::default()).await.expect_err("a manager's call").code();
    ensure!(denied(&status), "{status:?}");
    let status = managers.change_host(ChangeHostRequest::default()).await.expect_err("a manager's call").code();
    ensure!(denied(&status), "{status:?}");
    let fetch = || FetchObjectRequest { sha256: "0".repeat(64), offset: 0 };
    let compute_storage = Fleet::target(&home, "compute-agent", &fleet.storage)?.channel()?;
    let mut storage = StorageManagerClient::new(compute_storage);
    let status = storage.reserve_disks(ReserveDisksRequest::default()).await.expect_err("a manager's call").code();
    ensure!(denied(&status), "{status:?}");
    let status = storage.fetch_object(fetch()).await.expect_err("no such object").code();
    ensure!(format!("{status:?}") == "NotFound", "a compute-agent may fetch: {status:?}");
    let mut as_network = StorageManagerClient::new(Fleet::target(&home, "network-agent", &fleet.storage)?.channel()?);
    let status = as_network.fetch_object(fetch()).await.expect_err("the other agent's call").code();
    ensure!(denied(&status), "{status:?}");
    let hello = AgentMessage {
        message: Some(Message::Hello(Hello { host_id: HostId::new().to_string(), ..Hello::default() })),
    };
    let mut link = HostSyncClient::new(compute.clone());
    let status = link.attach(futures::stream::iter([hello])).await.expect_err("another host's name").code();
    ensure!(denied(&status), "{status:?}");
    // Another key than the admitted one gets no certificate.
    let csr_pem = service_kit::host_cert::request_for(&service_kit::host_cert::new_key()?)?;
    let mut identity = HostIdentityClient::new(compute.clone());
    let status = identity.renew(RenewRequest { csr_pem: csr_pem.clone() }).await.expect_err("another key").code();
    ensure!(format!("{status:?}") == "InvalidArgument", "{status:?}");
    let stranger = json!({"host_id": host_id, "role": "compute-agent", "csr_pem": csr_pem});
    let (status, problem) = fleet.rest.answer(Method::POST, "/v1/host-joins", Some(&stranger)).await?;
    ensure!(status == 403 && problem["code"] == "host_not_admitted", "{status} {problem}");

    // Certificates renew themselves, and the host stays up meanwhile.
    let first = certificate(&home, "compute-agent")?;
    until("both certificates were renewed past their first life", async || {
        let now = Timestamp::now() > first.not_after;
        Ok((now && certificate(&home, "network-agent")?.not_after > first.not_after).then_some(()))
    })
    .await?;
    ensure!(certificate(&home, "compute-agent")?.not_after > first.not_after, "renewed");
    ensure!(fleet.host("rack-1").await?.is_some_and(|host| host["state"] == "up"));
    ensure!(!says(&agent.log(), "not connected to the cluster-manager"), "the link stayed: {}", agent.log());

    // A host that was off for longer than its certificate lived comes back by its key.
    drop((agent, network));
    until("the certificate has expired", async || {
        Ok((certificate(&home, "compute-agent")?.not_after < Timestamp::now()).then_some(()))
    })
    .await?;
    until("the host is seen to be away", async || {
        Ok(fleet.host("rack-1").await?.filter(|host| host["state"] == "disconnected"))
    })
    .await?;
    let agent = Daemon::start(&home, "compute-agent", &[])?;
    fleet.until_up("rack-1").await?;

    // Removal: tried first, fenced, then done. Its open stream is cut, its certificate refused everywhere, for good.
    let open = Fleet::target(&home, "compute-agent", &fleet.storage)?.channel()?;
    let mut open = StorageManagerClient::new(open);
    let status = open.fetch_object(fetch()).await.expect_err("no such object").code();
    ensure!(format!("{status:?}") == "NotFound", "{status:?}");
    let plan = fleet.rest.call(Method::DELETE, "/v1/hosts/rack-1?dry_run=true", None).await?;
    ensure!(plan["dry_run"] == true && fleet.host("rack-1").await?.is_some(), "{plan}");
    fleet.rest.delete("/v1/hosts/rack-1").await?;
    ensure!(fleet.host("rack-1").await?.is_none());
    until("the agent says so", async || Ok(says(&agent.log(), "isn't part of the fleet").then_some(()))).await?;
    until("the storage-manager refuses it too", || {
        let mut open = open.clone();
        async move { Ok(open.fetch_object(fetch()).await.err().filter(says_not_admitted).map(drop)) }
    })
    .await?;
    ensure!(fleet.host("rack-1").await?.is_none(), "it doesn't come back by itself");
    let audit = fleet.rest.get("/v1/audit?limit=1000").await?;
    for action in ["host_token.create", "host.join", "host.remove"] {
        let found = audit["items"].as_array().is_some_and(|all| all.iter().any(|entry| entry["action"] == action));
        ensure!(found, "{action} is in the audit log");
    }
    drop(agent);

    // The token that admitted it went with it; with a fresh one it joins anew, as the same host.
    let said = Daemon::start(&home, "network-agent", &["--join", &nobodys.to_string()])?.refused().await?;
    ensure!(says(&said, "the token is unknown"), "{said}");
    let fresh = fleet.token(json!({})).await?;
    let _agent = Daemon::start(&home, "compute-agent", &["--join", &fresh])?;
    let host = fleet.until_up("one").await?;
    ensure!(host["id"] == json!(host_id), "{host}");
    Ok(())
}
