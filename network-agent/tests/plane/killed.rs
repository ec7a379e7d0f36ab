//! A separate agent process, ended by SIGKILL in the middle of its work, again and again; the manager is away all the time.

use crate::rig::{
    Lab, TIMEOUT, TestHost, TestPort, eventually, group, inside, must, network, open_rules, root, run, tombstone,
};
use domain::{NetworkId, SecurityGroupId, network::MacAddr};
use network_agent::{
    Deps,
    config::Config,
    host::Host,
    link::netns::{self, Worker},
    model::{names, state::Wiring},
};
use proto::{
    port_socket::{PortClient, PortReply, PortRequest},
    sync::v1 as sync,
};
use service_kit::transport::GrpcTarget;
use std::{
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tokio_util::sync::CancellationToken;

/// Names the configuration file of an agent that this program is to be.
const AGENT: &str = "NETWORK_AGENT_UNDER_TEST";
const PORTS: u16 = 200;

/// Not a test by itself: the agent that the test below starts and kills.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_that_is_killed() {
    let Some(path) = std::env::var_os(AGENT) else { return };
    let config: Config = serde_json::from_slice(&std::fs::read(path).expect("read")).expect("a configuration");
    let manager = GrpcTarget::Tcp { url: "http://127.0.0.1:9".into(), tls: None };
    network_agent::serve(config, Deps { manager }, CancellationToken::new()).await.expect("served");
}

struct Agent(Child);

impl Agent {
    fn start(ns: &str, file: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "killed::the_agent_that_is_killed"]).env(AGENT, file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(inside(ns, move || command.spawn()).join().expect("thread").expect("started"))
    }

    /// SIGKILL, and until it is gone.
    fn kill(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn acquire(socket: &Path, port: &TestPort) -> Option<PortReply> {
    let request = PortRequest::Acquire { port_id: port.id, instance_id: port.instance, epoch: 1, timeout_ms: 20_000 };
    let mut client = PortClient::connect(socket).ok()?;
    client.call(&request, TIMEOUT).ok().map(|(reply, _)| reply)
}

fn count(command: &str, what: &str) -> usize {
    run(command).1.lines().filter(|line| line.contains(what)).count()
}

/// Processes whose network namespace is the one mounted there.
fn processes_in(namespace: &Path) -> Vec<String> {
    let Ok(tracked) = std::fs::metadata(namespace) else { return Vec::new() };
    let entries = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    entries
        .filter(|entry| entry.path().join("ns/net").metadata().is_ok_and(|ns| ns.ino() == tracked.ino()))
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_programming_two_hundred_ports_converges_and_leaves_nothing() {
    if !root() || !Path::new("/dev/net/tun").exists() {
        println!("not run: it takes root and /dev/net/tun");
        return;
    }
    let lab = Lab::new().await;
    let (ns, config) = lab.host(1, Wiring::Tap).await.kill().await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let ports: Vec<TestPort> = (0..PORTS)
        .map(|n| {
            let [high, low] = (n + 10).to_be_bytes();
            TestPort {
                addrs: vec![IpAddr::V4(Ipv4Addr::new(10, 0, high, low))],
                mac: MacAddr([2, 0, 0, 1, high, low]),
                ..TestPort::new(0, &[], &[sg])
            }
        })
        .collect();
    let mut objects = vec![network(net, 100, &["10.0.0.0/16"], &[], None), group(sg, 1, &open_rules())];
    objects.extend(ports.iter().map(|port| port.local(net)));
    // The objects are durable; no agent has done anything about them.
    {
        let worker = Worker::enter(&PathBuf::from("/run/netns").join(&ns)).expect("the host's namespace");
        let host = Host::open(config.clone(), worker).expect("opened");
        host.accept(objects, 1).await.expect("taken");
    }
    let file = lab.dir.path().join("agent.json");
    std::fs::write(&file, serde_json::to_vec(&config).expect("written")).expect("written");
    let tenant = names::namespace(&config.prefix, net);
    let namespace = Path::new("/run/netns").join(&tenant);
    let taps = || count(&format!("ip -n {tenant} -o link"), ": t");
    let routes = || count(&format!("ip -n {tenant} route"), " dev t");
    for enough in [0, 1, usize::from(PORTS) / 2] {
        let agent = Agent::start(&ns, &file);
        eventually("the agent makes taps", || namespace.exists() && taps() >= enough);
        agent.kill();
        assert_eq!(processes_in(&namespace), [""; 0], "after {enough} taps");
    }
    // In the middle of handing over.
    for enough in [1, usize::from(PORTS) / 3] {
        let agent = Agent::start(&ns, &file);
        let (socket, ports) = (config.port_socket.clone(), ports.clone());
        let (answered, answer) = std::sync::mpsc::channel();
        let caller = std::thread::spawn(move || {
            // Until the agent is there; then until it is gone.
            eventually("the agent answers", || acquire(&socket, &ports[0]).is_some());
            let _ = answered.send(());
            for port in &ports {
                if acquire(&socket, port).is_none() {
                    return;
                }
            }
        });
        // The agent before this one may have left as many routes: only one that answered is at work.
        answer.recv_timeout(2 * TIMEOUT).expect("the agent answered");
        eventually("ports are handed over", || routes() >= enough);
        agent.kill();
        caller.join().expect("thread");
        assert_eq!(processes_in(&namespace), [""; 0], "after {enough} routes");
    }
    let agent = Agent::start(&ns, &file);
    let socket = config.port_socket.clone();
    eventually("the agent answers", || acquire(&socket, &ports[0]).is_some());
    for port in &ports {
        let reply = acquire(&socket, port).expect("answered");
        assert!(matches!(reply, PortReply::Acquired { .. }), "{reply:?}");
    }
    agent.kill();
    assert_eq!((taps(), routes()), (usize::from(PORTS), usize::from(PORTS)));
    let rules = must(&format!("ip netns exec {tenant} nft list map inet iaas port_in"));
    assert!(ports.iter().all(|port| rules.contains(&names::port_link(port.id))));
    let guard = must(&format!("ip netns exec {tenant} nft list set inet iaas guard4"));
    assert!(ports.iter().all(|port| guard.contains(&port.mac.to_string())));
    // All that goes while no agent is there, is gone with the next one.
    let host = TestHost::restart((ns, config.clone()));
    let (gone, kept) = ports.split_at(100);
    host.send(&gone.iter().map(TestPort::gone).collect::<Vec<_>>()).await;
    assert_eq!((taps(), routes()), (kept.len(), kept.len()));
    host.send(&[tombstone(net.to_string(), sync::ObjectKind::Network, (1, 2))]).await;
    host.send(&kept.iter().map(TestPort::gone).collect::<Vec<_>>()).await;
    let ours = |name: &String| name.starts_with(&config.prefix);
    let left: Vec<String> = netns::list(Path::new("/run/netns")).expect("listed").into_iter().filter(ours).collect();
    assert_eq!(left, [""; 0], "namespaces");
    let links = must(&format!("ip -n {} -o link", host.ns));
    assert!(!links.contains(&names::uplink_host_end(net)) && links.lines().count() == 4, "{links}");
}
