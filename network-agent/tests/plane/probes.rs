//! Probes of guests by TCP, HTTP and ping, in both families.

use crate::rig::{Guest, Lab, TIMEOUT, TestPort, group, inside, network, out_rules, root};
use domain::{
    NetworkId, SecurityGroupId,
    network::probe::{Probe, ProbeKind, Verdict},
};
use network_agent::{
    link::netns::Worker,
    model::state::Wiring,
    probe::{self, Target},
};
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
};
use tokio::sync::watch;

const PORT: u16 = 8080;

fn start(worker: &Arc<Worker>, address: &str, source: &str, kind: ProbeKind) -> watch::Receiver<Verdict> {
    let target = Target {
        address: address.parse().expect("address"),
        source: source.parse().expect("address"),
        probe: Probe { interval_ms: 50, timeout_ms: 50, ..Probe::new(kind) },
    };
    let (sender, verdict) = watch::channel(Verdict::Unknown);
    tokio::spawn(probe::run(Arc::clone(worker), target, sender));
    verdict
}

async fn becomes(verdict: &mut watch::Receiver<Verdict>, expected: Verdict, why: &str) {
    let reached = tokio::time::timeout(TIMEOUT, verdict.wait_for(|now| *now == expected)).await;
    assert!(reached.is_ok_and(|watched| watched.is_ok()), "not {expected:?}: {why}");
}

/// Answers each connection with `status`, until one asks for /end.
fn serve(guest: &Guest, status: &'static str) -> std::thread::JoinHandle<()> {
    let (ready, listening) = std::sync::mpsc::channel();
    let server = inside(&guest.ns, move || {
        let listener = TcpListener::bind(("::", PORT)).expect("bound");
        ready.send(()).expect("awaited");
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 512];
            let bytes = stream.read(&mut request).unwrap_or_default();
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
            if request[..bytes].starts_with(b"GET /end") {
                return;
            }
        }
    });
    listening.recv().expect("it listens");
    server
}

fn end(guest: &Guest, server: std::thread::JoinHandle<()>) {
    let request = inside(&guest.ns, || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", PORT)).expect("connected");
        stream.write_all(b"GET /end HTTP/1.1\r\n\r\n").expect("written");
    });
    request.join().expect("the request is sent");
    server.join().expect("the server ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_up_while_it_answers_its_probe_whatever_its_security_groups_let_in() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let port = TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg]);
    let subnets = ["10.0.0.0/24", "fd00::/64"];
    host.send(&[network(net, 100, &subnets, &[], None), group(sg, 1, &out_rules()), port.local(net)]).await;
    host.acquire(&port).await;
    let guest = lab.static_guest(&host, net, &port);
    let worker = host.host.worker_of(net).expect("the network is here");
    let worker = Arc::new(worker.second("probes").expect("a thread"));
    let v4 = |kind| start(&worker, "10.0.0.5", "10.0.0.1", kind);
    let v6 = |kind| start(&worker, "fd00::5", "fd00::1", kind);
    let http = || ProbeKind::Http { port: PORT, path: "/health".into() };
    let tcp = || ProbeKind::Tcp { port: PORT };
    let mut pings = [v4(ProbeKind::Ping), v6(ProbeKind::Ping)];
    let mut services = [v4(tcp()), v6(tcp()), v4(http()), v6(http())];
    for ping in &mut pings {
        becomes(ping, Verdict::Up, "the guest answers").await;
    }
    for service in &mut services {
        becomes(service, Verdict::Down, "nobody listens").await;
    }

    let server = serve(&guest, "204 No Content");
    for service in &mut services {
        becomes(service, Verdict::Up, "the service answers").await;
    }
    end(&guest, server);
    let failing = serve(&guest, "503 Service Unavailable");
    let [tcp4, tcp6, http4, http6] = &mut services;
    for http in [http4, http6] {
        becomes(http, Verdict::Down, "the service says that it can't serve").await;
    }
    for tcp in [tcp4, tcp6] {
        becomes(tcp, Verdict::Up, "it accepts connections").await;
    }
    end(&guest, failing);

    // A guest that says nothing at all.
    guest.must("ip link set eth0 down");
    for verdict in pings.iter_mut().chain(&mut services) {
        becomes(verdict, Verdict::Down, "the guest is off").await;
    }
    guest.must("ip link set eth0 up");
    becomes(&mut pings[0], Verdict::Up, "the guest is back").await;

    // The probes end with those who watch them, and release the namespace.
    drop((pings, services));
    let released = async {
        while Arc::strong_count(&worker) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, released).await.expect("the probes end");
}
