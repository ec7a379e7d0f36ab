//! Every pool of the product, taken by one as far as they can: another still gets a place. A pool that is added to `share::Pool` doesn't compile
//! here until it is tried too.

use crate::{
    compute::{Cloud, config_of, initrd, kernel, upload},
    harness::{Answer, PASSWORD, Person, World, answer},
};
use futures::{StreamExt, stream::FuturesUnordered};
use reqwest::{Body, Method};
use serde_json::json;
use service_kit::share::Pool;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

/// Where those come from who take all they can of what is counted by addresses: connections, and passwords.
const HOG: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const GUESSER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
/// More than any pool here gives one.
const MANY: usize = 100;

struct Tenants {
    cloud: Cloud,
    /// Ann takes; Bob, of another project, needs one.
    ann: Person,
    bob: Person,
}

impl Tenants {
    async fn start() -> Self {
        let world = World::start_with(|config| {
            config.api.max_connections = 1_000;
            config.api.max_connections_per_peer = 300;
            config.api.max_event_streams = 8;
            config.api.max_waits = 8;
            config.identity.login_attempts_per_address = 10_000;
        })
        .await;
        let cloud = Cloud::in_world(world, vec![config_of("alpha")]).await;
        cloud.running("web").await;
        cloud.world.project(&cloud.admin, "red").await;
        let bob = cloud.world.user(&cloud.admin, "bob", "red", "member").await;
        bob.post("/v1/images", json!({"name": "linux", "kind": "kernel", "cmdline": "x"})).await.expect(201);
        upload(&bob, "linux", "kernel", kernel()).await.expect(200);
        upload(&bob, "linux", "initrd", initrd()).await.expect(200);
        let body = json!({"name": "web", "image": "linux", "flavor": "tiny"});
        bob.post("/v1/instances?wait=running&timeout=30s", body).await.expect(201);
        for person in [&cloud.ann, &bob] {
            person.post("/v1/images", json!({"name": "big", "kind": "disk", "format": "raw"})).await.expect(201);
        }
        Self { ann: cloud.ann.clone(), bob, cloud }
    }

    fn base(&self) -> &str {
        &self.cloud.world.base
    }
}

/// Opens answers that go on, until one is refused.
async fn open_until_refused(person: &Person, path: &str) -> (Vec<reqwest::Response>, Answer) {
    let mut open = Vec::new();
    loop {
        let response = person.request(Method::GET, path).send().await.expect("an answer");
        if response.status() != 200 {
            let (status, headers) = (response.status(), response.headers().clone());
            let text = response.text().await.expect("a body");
            let body = serde_json::from_str(&text).expect("a problem");
            return (open, Answer { status, headers, body, text });
        }
        open.push(response);
        assert!(open.len() < MANY, "{path} is never refused");
    }
}

async fn opens(person: &Person, path: &str) {
    let response = person.request(Method::GET, path).send().await.expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
}

async fn connections(tenants: &Tenants) {
    let port = tenants.base().rsplit(':').next().expect("a port").parse().expect("a number");
    let mut held: FuturesUnordered<_> = FuturesUnordered::new();
    for _ in 0..500 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(HOG, 0)).expect("it binds");
        let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        let mut stream: TcpStream = stream.expect("it is accepted, and perhaps closed at once");
        held.push(async move {
            let end = stream.read(&mut [0; 1]).await;
            (stream, end.map_or(0, |read| read))
        });
    }
    let (closed, end) = held.next().await.expect("one of so many is closed");
    assert_eq!(end, 0);
    let fresh = reqwest::Client::builder().no_proxy().build().expect("a client");
    answer(fresh.get(format!("{}/healthz", tenants.base()))).await.expect(200);
    drop((closed, held));
}

async fn password_hashes(tenants: &Tenants) {
    let http = reqwest::Client::builder().no_proxy().local_address(GUESSER).build().expect("a client");
    let flood: Vec<JoinHandle<Answer>> = (0..MANY)
        .map(|i| {
            let login = http
                .post(format!("{}/v1/auth/login", tenants.base().replace("localhost", "127.0.0.1")))
                .json(&json!({"username": format!("n{i}"), "password": "x"}));
            tokio::spawn(answer(login))
        })
        .collect();
    tenants.cloud.world.login("bob", PASSWORD).await;
    let mut refused = 0;
    for login in flood {
        match login.await.expect("an answer").status.as_u16() {
            401 => {}
            503 => refused += 1,
            other => panic!("a login was answered with {other}"),
        }
    }
    assert!(refused > 0, "the flood got all that it wanted");
}

async fn event_streams(tenants: &Tenants) {
    let (open, refused) = open_until_refused(&tenants.ann, "/v1/events").await;
    refused.problem(429, "too_many_streams");
    opens(&tenants.bob, "/v1/events").await;
    drop(open);
}

async fn waits(tenants: &Tenants) {
    let path = "/v1/instances/web?wait=stopped&timeout=60s";
    let mut waiting: FuturesUnordered<_> = (0..MANY).map(|_| tenants.ann.get(path)).collect();
    let refused = waiting.next().await.expect("one of so many is refused");
    refused.problem(429, "too_many_waits");
    tenants.bob.get("/v1/instances/web?wait=running&timeout=30s").await.expect(200);
    // A change whose wait is refused doesn't happen.
    let stop = tenants.ann.post("/v1/instances/web/stop?wait=stopped", json!({})).await;
    stop.problem(429, "too_many_waits");
    drop(waiting);
}

async fn consoles(tenants: &Tenants) {
    let path = "/v1/instances/web/console-log?follow=true";
    let (open, refused) = open_until_refused(&tenants.ann, path).await;
    refused.problem(429, "too_many_consoles");
    opens(&tenants.bob, path).await;
    drop(open);
}

async fn uploads(tenants: &Tenants) {
    let put = |person: &Person, body: Body| {
        let request = person.request(Method::PUT, "/v1/images/big/parts/disk");
        answer(request.header("content-type", "application/octet-stream").body(body))
    };
    let endless = || {
        let first = futures::stream::iter([Ok::<_, std::io::Error>(vec![0u8; 512])]);
        Body::wrap_stream(first.chain(futures::stream::pending()))
    };
    let mut held: FuturesUnordered<_> = (0..MANY).map(|_| put(&tenants.ann, endless())).collect();
    let refused = held.next().await.expect("one of so many is refused");
    refused.problem(503, "unavailable");
    put(&tenants.bob, Body::from(vec![0u8; 1024 * 1024])).await.expect(200);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_takes_of_a_pool_the_others_do_not_lack() {
    let tenants = Tenants::start().await;
    for pool in Pool::ALL {
        println!("{}", pool.as_str());
        match pool {
            Pool::Connections => connections(&tenants).await,
            Pool::PasswordHashes => password_hashes(&tenants).await,
            Pool::EventStreams => event_streams(&tenants).await,
            Pool::Waits => waits(&tenants).await,
            Pool::Consoles => consoles(&tenants).await,
            Pool::Uploads => uploads(&tenants).await,
        }
    }
    tenants.cloud.stop().await;
}
