//! The links between roles, for real: in process, plain TCP, mutual TLS, and a certificate that changes under a running server.

use domain::{HostId, host::AgentRole};
use proto::storage::v1::{
    ConfirmDisksRequest, ReleaseDisksRequest, ReleaseDisksResponse, storage_manager_client::StorageManagerClient,
};
use service_kit::{
    context::CallContext,
    fleet::Fleet,
    host_cert::{self, HostCertificate, SigningRequest},
    peer::{self, Peer, require_role},
    secret_file,
    tls::{Ca, CertFiles, ClientTls, ServerTls},
    transport::{self, GrpcListener, GrpcTarget},
};
use std::{path::Path, time::Duration};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, server::NamedService};

/// Answers ReleaseDisks with the caller's name in the metadata, everything else with UNIMPLEMENTED.
#[derive(Clone)]
struct WhoAreYou;

impl NamedService for WhoAreYou {
    const NAME: &'static str = "iaas.storage.v1.StorageManager";
}

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for WhoAreYou {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        struct Answer;
        impl tonic::server::UnaryService<ReleaseDisksRequest> for Answer {
            type Response = ReleaseDisksResponse;
            type Future = tonic::codegen::BoxFuture<Response<ReleaseDisksResponse>, Status>;
            fn call(&mut self, request: Request<ReleaseDisksRequest>) -> Self::Future {
                let peer = request.extensions().get::<Peer>().cloned();
                let allowed = match &peer {
                    Some(Peer::Host(_)) => peer::require_agent(&request, AgentRole::ComputeAgent).map(drop),
                    Some(_) | None => require_role(&request, &["cluster-manager"]),
                };
                let context = CallContext::extract(&request);
                Box::pin(async move {
                    let mut response = Response::new(ReleaseDisksResponse {});
                    allowed?;
                    let name = match peer {
                        Some(Peer::Role { role }) => role,
                        Some(Peer::Host(host)) => host.host_id.to_string(),
                        Some(other) => format!("{other:?}"),
                        None => "none".to_owned(),
                    };
                    let metadata = response.metadata_mut();
                    metadata.insert("peer", name.parse().expect("ascii"));
                    metadata.insert("seen-request-id", context.request_id.parse().expect("ascii"));
                    Ok(response)
                })
            }
        }
        Box::pin(async move {
            if request.uri().path() != "/iaas.storage.v1.StorageManager/ReleaseDisks" {
                return Ok(Status::unimplemented("not in this test").into_http());
            }
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(Answer, request).await)
        })
    }
}

async fn serve(listener: GrpcListener) -> CancellationToken {
    let shutdown = CancellationToken::new();
    let router = tonic::transport::Server::builder().add_service(WhoAreYou);
    tokio::spawn(transport::serve(router, listener, shutdown.clone()));
    shutdown
}

async fn ask(target: &GrpcTarget) -> Result<(String, String), Status> {
    let mut client = StorageManagerClient::new(target.channel().expect("a target"));
    let context = CallContext { request_id: "req-7".into(), ..CallContext::default() };
    let answer = tokio::time::timeout(
        Duration::from_secs(20),
        client.release_disks(context.request(ReleaseDisksRequest::default())),
    );
    let answer = answer.await.expect("answered in time")?;
    let get = |key| answer.metadata().get(key).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    Ok((get("peer"), get("seen-request-id")))
}

#[tokio::test]
async fn in_process_calls_carry_their_context_and_refusals() {
    let (listener, target) = transport::in_process();
    let shutdown = serve(listener).await;
    assert_eq!(ask(&target).await.expect("answered"), ("InProcess".into(), "req-7".into()));
    let mut client = StorageManagerClient::new(target.channel().expect("a target"));
    let refused = client.confirm_disks(ConfirmDisksRequest::default()).await.expect_err("unimplemented");
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    shutdown.cancel();
}

async fn tls_pair(dir: &Path) -> (CertFiles, CertFiles) {
    let ca = Ca::open_or_create(&dir.join("ca")).expect("a CA");
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let hour = Duration::from_secs(3600);
    let server = ca.issue_files(&dir.join("server"), "storage-manager", &names, hour).expect("issued");
    let client = ca.issue_files(&dir.join("client"), "cluster-manager", &[], hour).expect("issued");
    (server, client)
}

#[tokio::test]
async fn mutual_tls_names_the_caller_and_refuses_strangers() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (server, client) = tls_pair(dir.path()).await;
    let tls = ServerTls::new(server.clone(), &[b"h2"]).expect("server tls");
    let listener = GrpcListener::tcp("127.0.0.1:0".parse().expect("addr"), Some(tls)).await.expect("bound");
    let url = format!("https://{}", listener.local_addr().expect("tcp"));
    let shutdown = serve(listener).await;
    let target = |files| GrpcTarget::Tcp { url: url.clone(), tls: Some(ClientTls::new(files).expect("client tls")) };
    assert_eq!(ask(&target(client.clone())).await.expect("answered").0, "cluster-manager");

    // A certificate of our CA for a role that may not make this call is refused, by name.
    let ca = Ca::open_or_create(&dir.path().join("ca")).expect("the same CA");
    let agent =
        ca.issue_files(&dir.path().join("agent"), "compute-agent", &[], Duration::from_secs(3600)).expect("issued");
    let refused = ask(&target(agent)).await.expect_err("another role");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);

    // A certificate of another CA is refused, and so is plain text.
    let foreign_dir = tempfile::tempdir().expect("tempdir");
    let (_, mut foreign) = tls_pair(foreign_dir.path()).await;
    foreign.peers_ca = client.peers_ca.clone();
    assert!(ask(&target(foreign)).await.is_err());
    assert!(ask(&GrpcTarget::Tcp { url: url.replace("https", "http"), tls: None }).await.is_err());

    // The server's certificate is replaced: the next connection gets the new one, without a restart.
    let ca = Ca::open_or_create(&dir.path().join("ca")).expect("the same CA");
    ca.issue_files(
        &dir.path().join("server"),
        "storage-manager",
        &["elsewhere.example".to_owned()],
        Duration::from_secs(60),
    )
    .expect("issued");
    assert!(ask(&target(client)).await.is_err(), "the new certificate doesn't name 127.0.0.1");
    shutdown.cancel();
}

/// A certificate of a new host, its key made here.
fn host_files(dir: &Path, role: AgentRole) -> (CertFiles, HostCertificate) {
    let ca = Ca::open_or_create(&dir.join("ca")).expect("the CA");
    let (host_id, key) = (HostId::new(), host_cert::new_key().expect("a key"));
    let request = SigningRequest::parse(&host_cert::request_for(&key).expect("made")).expect("read");
    let pem = ca.issue_host(request, host_id, role, Duration::from_secs(60)).expect("issued");
    let home = dir.join(host_id.to_string());
    let files =
        CertFiles { cert: home.join("agent.pem"), key: home.join("host.key"), peers_ca: Some(home.join("ca.pem")) };
    for (path, text) in [(&files.cert, pem.as_str()), (&files.key, key.as_str()), (&home.join("ca.pem"), ca.pem())] {
        secret_file::write(path, text.as_bytes()).expect("written");
    }
    (files, HostCertificate::parse(&pem).expect("readable"))
}

#[tokio::test]
async fn a_host_is_known_by_its_certificate_until_it_is_removed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (server, _) = tls_pair(dir.path()).await;
    let fleet = Fleet::default();
    let tls = ServerTls::new(server, &[b"h2"]).expect("server tls");
    let addr = "127.0.0.1:0".parse().expect("addr");
    let tcp = GrpcListener::tcp_for(addr, Some(tls), fleet.clone()).await.expect("bound");
    let url = format!("https://{}", tcp.local_addr().expect("tcp"));
    // The same service to the roles of its own process.
    let (inside, inside_target) = transport::in_process();
    let shutdown = serve(GrpcListener::Many(vec![inside, tcp])).await;
    assert_eq!(ask(&inside_target).await.expect("answered").0, "InProcess");

    let target = |files| GrpcTarget::Tcp { url: url.clone(), tls: Some(ClientTls::new(files).expect("client tls")) };
    let (files, certificate) = host_files(dir.path(), AgentRole::ComputeAgent);
    let list = [(certificate.host_id, certificate.key_hash.clone())];
    fleet.publish(list.clone().into());
    let agent = target(files);
    assert_eq!(ask(&agent).await.expect("answered").0, certificate.host_id.to_string());

    let (other_role, network) = host_files(dir.path(), AgentRole::NetworkAgent);
    fleet.publish([list[0].clone(), (network.host_id, network.key_hash)].into());
    let refused = ask(&target(other_role)).await.expect_err("not a compute-agent");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);

    // A channel that is open is cut when its host goes; the next connection is refused with the reason.
    let channel = agent.channel().expect("a target");
    let mut client = StorageManagerClient::new(channel);
    client.release_disks(ReleaseDisksRequest::default()).await.expect("answered");
    fleet.publish([].into());
    let keeps_publishing = tokio::spawn({
        let fleet = fleet.clone();
        async move {
            loop {
                fleet.list_requested().await;
                fleet.publish([].into());
            }
        }
    });
    let refusal = loop {
        let answer = client.release_disks(ReleaseDisksRequest::default()).await.expect_err("removed");
        // The first answer may be the cut itself.
        if peer::says_not_admitted(&answer) {
            break answer;
        }
    };
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
    keeps_publishing.abort();
    shutdown.cancel();
}

#[tokio::test]
async fn without_tls_another_user_of_the_machine_is_not_served() {
    let listener = GrpcListener::tcp(([127, 0, 0, 1], 0).into(), None).await.expect("bound");
    let port = listener.local_addr().expect("tcp").port();
    let shutdown = serve(listener).await;
    // A client's first words in HTTP/2; a server answers them with its settings.
    let greeting = r"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && printf '{greeting}' >&3; head -c 1 <&3 | wc -c");
    let answered = async |command: &mut tokio::process::Command| {
        let output = command.args(["bash", "-c", &script]).output().await.expect("it runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(answered(&mut tokio::process::Command::new("env")).await, "1", "this user");
    let mut other = tokio::process::Command::new("setpriv");
    let other = other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let probe = tokio::process::Command::new("setpriv").args(["--reuid", "65534", "true"]).status().await;
    if !probe.is_ok_and(|status| status.success()) {
        println!("not run: another user's connection: root and setpriv are needed");
        return;
    }
    assert_eq!(answered(other).await, "0", "another user");
    shutdown.cancel();
}
