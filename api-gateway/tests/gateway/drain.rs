//! Every call that stays open, with a peer that has stopped reading (or sending): a stop ends them all within its drain, and each peer sees the end.
//!
//! Which calls those are isn't a list by hand: the .proto files say which gRPC calls stream, and the OpenAPI document which answers and
//! requests aren't JSON. One that is added fails here until it is stalled too.

use crate::{
    compute::{Cloud, config_of, initrd, sha256},
    harness::{Person, answer},
};
use futures::{SinkExt, StreamExt, future::BoxFuture};
use hyper_util::rt::TokioIo;
use proto::{
    agent::v1::console_relay_client::ConsoleRelayClient,
    cluster::v1::{self as cluster, cluster_manager_client::ClusterManagerClient, console_input::Input},
    network::v1::NetworkHost,
    storage::v1::{self as storage, storage_manager_client::StorageManagerClient},
    sync::v1::{
        self as sync, agent_message::Message as Up, host_liveness_client::HostLivenessClient,
        host_sync_client::HostSyncClient,
    },
};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use service_kit::transport::GrpcTarget;
use std::{collections::BTreeSet, path::Path, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{connect_async, tungstenite::Message};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// Waits until the peer of a stalled call sees its end.
type SeesTheEnd = BoxFuture<'static, ()>;

/// A gRPC channel whose streams take one byte of an answer, and more only while somebody reads.
fn deaf_channel(target: &GrpcTarget) -> Channel {
    let GrpcTarget::InProcess(connections) = target else { panic!("the harness runs in one process") };
    let connections = connections.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let connections = connections.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            connections.send(theirs).await.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
            Ok::<_, std::io::Error>(TokioIo::new(ours))
        }
    });
    let endpoint = Endpoint::from_static("http://in-process").initial_stream_window_size(1);
    endpoint.connect_with_connector_lazy(connector)
}

/// A person whose answers stop after a byte: nothing of them is read.
fn deaf(person: &Person) -> Person {
    let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().http2_initial_stream_window_size(1);
    Person { http: http.build().expect("a client"), ..person.clone() }
}

fn answer_ends<T: Send + 'static>(mut answer: Streaming<T>) -> SeesTheEnd {
    Box::pin(async move { while let Ok(Some(_)) = answer.message().await {} })
}

fn body_ends(mut response: reqwest::Response) -> SeesTheEnd {
    assert_eq!(response.status(), 200);
    Box::pin(async move { while let Ok(Some(_)) = response.chunk().await {} })
}

async fn unread_body(person: &Person, path: &str) -> SeesTheEnd {
    body_ends(deaf(person).request(Method::GET, path).send().await.expect("an answer"))
}

/// Types without reading what comes back, until nothing more is taken.
async fn unread_console(cloud: &Cloud) -> SeesTheEnd {
    let url = crate::console::ticket(cloud, &cloud.ann).await;
    let (mut socket, _) = connect_async(&url).await.expect("it opens");
    let flood = async {
        loop {
            socket.send(Message::binary(vec![b'x'; 64 * 1024])).await.expect("it is sent");
        }
    };
    tokio::time::timeout(Duration::from_secs(3), flood).await.expect_err("it is full");
    Box::pin(async move { while let Some(Ok(_)) = socket.next().await {} })
}

async fn endless_upload(cloud: &Cloud) -> SeesTheEnd {
    cloud.ann.post("/v1/images", json!({"name": "big", "kind": "disk", "format": "raw"})).await.expect(201);
    let (sent, chunks) = mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let request = cloud.ann.request(Method::PUT, "/v1/images/big/parts/disk");
    let body = Body::wrap_stream(ReceiverStream::new(chunks));
    let uploading = tokio::spawn(request.header("content-type", "application/octet-stream").body(body).send());
    for _ in 0..4 {
        sent.send(Ok(vec![0; 512])).await.expect("it is taken");
    }
    Box::pin(async move {
        drop(uploading.await.expect("the task ends"));
        drop(sent);
    })
}

async fn unread_session(target: &GrpcTarget, host: sync::hello::Host) -> SeesTheEnd {
    let (sent, messages) = mpsc::channel(1);
    let hello = sync::Hello {
        host_id: domain::HostId::new().to_string(),
        name: "deaf".to_owned(),
        start: 1,
        ledger_id: "a".to_owned(),
        host: Some(host),
        ..sync::Hello::default()
    };
    sent.send(sync::AgentMessage { message: Some(Up::Hello(hello)) }).await.expect("it has room");
    let mut client = HostSyncClient::new(deaf_channel(target));
    let answer = client.attach(ReceiverStream::new(messages)).await.expect("it is taken in").into_inner();
    let end = answer_ends(answer);
    Box::pin(async move {
        end.await;
        drop(sent);
    })
}

async fn unread_heartbeats(target: &GrpcTarget) -> SeesTheEnd {
    let (sent, messages) = mpsc::channel(1);
    let host_id = domain::HostId::new().to_string();
    sent.send(sync::BeatRequest { host_id, sequence: 1 }).await.expect("it has room");
    let mut client = HostLivenessClient::new(deaf_channel(target));
    let answer = client.beat(ReceiverStream::new(messages)).await.expect("it is taken in").into_inner();
    let end = answer_ends(answer);
    Box::pin(async move {
        end.await;
        drop(sent);
    })
}

async fn silent_relay(cloud: &Cloud) -> SeesTheEnd {
    let (sent, messages) = mpsc::channel(1);
    let mut client = ConsoleRelayClient::new(deaf_channel(&cloud.world.cluster));
    let call = tokio::spawn(async move { client.console_session(ReceiverStream::new(messages)).await });
    Box::pin(async move {
        drop(call.await.expect("the task ends"));
        drop(sent);
    })
}

async fn unread_serial_port(cloud: &Cloud, web: &Value) -> SeesTheEnd {
    let text = |field: &str| web[field].as_str().expect("a text").to_owned();
    let open = cluster::ConsoleOpen {
        project_id: text("project_id"),
        instance_id: text("id"),
        what: Some(cluster::console_open::What::Serial(cluster::SerialConsole { replay_bytes: 1024 })),
    };
    let (sent, messages) = mpsc::channel(1);
    sent.send(cluster::ConsoleInput { input: Some(Input::Open(open)) }).await.expect("it has room");
    let mut client = ClusterManagerClient::new(deaf_channel(&cloud.world.cluster));
    let answer = client.console(ReceiverStream::new(messages)).await.expect("it opens").into_inner();
    let end = answer_ends(answer);
    Box::pin(async move {
        end.await;
        drop(sent);
    })
}

async fn silent_upload(cloud: &Cloud) -> SeesTheEnd {
    let (sent, messages) = mpsc::channel(1);
    let mut client = StorageManagerClient::new(deaf_channel(&cloud.world.storage));
    let call = tokio::spawn(async move { client.upload_image(ReceiverStream::new(messages)).await });
    Box::pin(async move {
        drop(call.await.expect("the task ends"));
        drop(sent);
    })
}

async fn unread_object(cloud: &Cloud) -> SeesTheEnd {
    let request = storage::FetchObjectRequest { sha256: sha256(&initrd()), offset: 0 };
    let mut client = StorageManagerClient::new(deaf_channel(&cloud.world.storage));
    answer_ends(client.fetch_object(request).await.expect("it begins").into_inner())
}

/// The calls of the .proto files in which a stream is.
fn streaming_calls() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto/iaas");
    let mut found = BTreeSet::new();
    for package in std::fs::read_dir(root).expect("the packages") {
        let version = package.expect("an entry").path().join("v1");
        for file in std::fs::read_dir(version).expect("the files") {
            let text = std::fs::read_to_string(file.expect("an entry").path()).expect("a text");
            let calls = text.lines().map(str::trim).filter(|line| line.starts_with("rpc ") && line.contains("stream "));
            found.extend(calls.filter_map(|line| line[4..].split('(').next()).map(str::to_owned));
        }
    }
    found
}

/// The operations of the API whose request or answer isn't a JSON document.
fn streaming_routes(openapi: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, operations) in openapi["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let bodies = operation["responses"].as_object().into_iter().flatten().map(|(_, response)| response);
            let kinds = bodies.chain([&operation["requestBody"]]).flat_map(|body| body["content"].as_object());
            let streams = kinds.flatten().any(|(kind, _)| !kind.ends_with("json"));
            if streams || !operation["responses"]["101"].is_null() {
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_every_call_whose_peer_does_nothing_within_its_drain() {
    let cloud = Cloud::start().await;
    let web = cloud.running("web").await;
    let openapi = answer(cloud.ann.request(Method::GET, "/openapi.json")).await.expect(200);
    let mut stalled: Vec<(String, SeesTheEnd)> = Vec::new();
    for route in streaming_routes(&openapi) {
        let end = match route.as_str() {
            "GET /v1/events" => unread_body(&cloud.ann, "/v1/events").await,
            "GET /v1/instances/{instance}/console-log" => {
                unread_body(&cloud.ann, "/v1/instances/web/console-log?follow=true").await
            }
            "GET /v1/console" => unread_console(&cloud).await,
            "PUT /v1/images/{image}/parts/{part}" => endless_upload(&cloud).await,
            // An answer of a few kilobytes, made at once.
            "GET /metrics" => continue,
            other => panic!("{other} streams, and this test doesn't stall it"),
        };
        stalled.push((route, end));
    }
    for call in streaming_calls() {
        let end = match call.as_str() {
            "Attach" => {
                let compute = sync::hello::Host::Compute(config_of("deaf").description());
                let network = sync::hello::Host::Network(NetworkHost {
                    underlay_address: "192.0.2.9".to_owned(),
                    underlay_mtu: 1500,
                    external_networks: vec![],
                    ..NetworkHost::default()
                });
                let cluster = unread_session(&cloud.world.cluster, compute).await;
                let resource = unread_session(&cloud.world.resource, network).await;
                Box::pin(async move {
                    cluster.await;
                    resource.await;
                })
            }
            "Beat" => unread_heartbeats(&cloud.world.cluster).await,
            "Console" => unread_serial_port(&cloud, &web).await,
            "ConsoleSession" => silent_relay(&cloud).await,
            "UploadImage" => silent_upload(&cloud).await,
            "FetchObject" => unread_object(&cloud).await,
            other => panic!("{other} streams, and this test doesn't stall it"),
        };
        stalled.push((call, end));
    }
    let Cloud { world, hosts, .. } = cloud;
    // Fails when a role takes longer than its drain.
    world.stop().await;
    for (call, end) in stalled {
        let ended = tokio::time::timeout(Duration::from_secs(20), end).await;
        assert!(ended.is_ok(), "{call} goes on after the stop");
    }
    for host in hosts {
        host.stop().await;
    }
}
