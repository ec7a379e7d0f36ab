//! Hosts as network namespaces, joined by an underlay bridge, with an external network beside it; guests as namespaces at the
//! other ends of their ports. The real agent code runs in each host; everything is gone at the end, also after a panic.

use domain::{
    FloatingIpId, InstanceId, NetworkId, PortId, SecurityGroupId, SubnetId,
    network::{Direction, Ethertype, MacAddr, Match, PortRange, Protocol, Remote, SecurityRule},
};
use network_agent::{
    config::Config,
    host::{Host, reconcile},
    link::netns::{self, Worker},
    model::{names, state::Wiring},
};
use proto::{convert::network::rule_to_pb, network::v1 as pb, sync::v1 as sync};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A bound for hangs on a busy machine, not a measure.
pub const TIMEOUT: Duration = Duration::from_secs(40);
pub const GATEWAY_MAC: &str = "02:00:5e:00:00:01";
static LABS: AtomicU32 = AtomicU32::new(0);
static ROOM: Semaphore = Semaphore::const_new(2);

pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("not run: network namespaces take root");
    }
    for tool in ["ip", "nft"] {
        if !["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(tool).exists()) {
            println!("not run: {tool} is not installed");
            return false;
        }
    }
    root
}

/// Runs a command that must succeed.
pub fn must(command: &str) -> String {
    let (good, said) = run(command);
    assert!(good, "`{command}` failed: {said}");
    said
}

pub fn run(command: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).output().expect("a shell");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

pub fn eventually(what: &str, mut good: impl FnMut() -> bool) {
    let began = Instant::now();
    while !good() {
        assert!(began.elapsed() < TIMEOUT, "{what}: not within {TIMEOUT:?}");
        std::thread::yield_now();
    }
}

/// Does `job` on a thread in a namespace.
pub fn inside<R: Send + 'static>(netns: &str, job: impl FnOnce() -> R + Send + 'static) -> std::thread::JoinHandle<R> {
    let file = std::fs::File::open(Path::new("/run/netns").join(netns)).expect("the namespace is there");
    std::thread::spawn(move || {
        nix::sched::setns(file.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).expect("entered");
        job()
    })
}

pub struct Lab {
    pub name: String,
    pub dir: tempfile::TempDir,
    _room: SemaphorePermit<'static>,
}

impl Lab {
    /// The fabric: an underlay bridge and an external segment with a machine on it (203.0.113.1).
    pub async fn new() -> Self {
        let room = ROOM.acquire().await.expect("never closed");
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("np{}-{number}", std::process::id());
        let lab = Self { name, dir: tempfile::tempdir().expect("dir"), _room: room };
        let (fabric, outside) = (lab.ns("fab"), lab.ns("out"));
        must(&format!(
            "ip netns add {fabric} && ip netns add {outside} && \
             for b in br0 br1; do ip -n {fabric} link add $b type bridge && ip -n {fabric} link set $b up || exit 1; done && \
             ip -n {fabric} link add x0 type veth peer name eth0 netns {outside} && \
             ip -n {fabric} link set x0 master br1 up && ip -n {outside} link set eth0 up && \
             ip -n {outside} link set lo up && ip -n {outside} addr add 203.0.113.1/24 dev eth0"
        ));
        lab
    }

    pub fn ns(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    pub fn outside(&self) -> String {
        self.ns("out")
    }

    pub async fn host(&self, number: u8, wiring: Wiring) -> TestHost {
        self.make_host(number, wiring, &[]).await
    }

    /// With a block that instances may not reach.
    pub async fn protected_host(&self, number: u8, wiring: Wiring, block: &str) -> TestHost {
        self.make_host(number, wiring, &[block]).await
    }

    async fn make_host(&self, number: u8, wiring: Wiring, protected: &[&str]) -> TestHost {
        let (fabric, ns) = (self.ns("fab"), self.ns(&format!("h{number}")));
        must(&format!(
            "ip netns add {ns} && ip -n {ns} link set lo up && \
             ip -n {fabric} link add u{number} type veth peer name un0 netns {ns} && \
             ip -n {fabric} link set u{number} master br0 up && \
             ip -n {ns} link set un0 up && ip -n {ns} addr add 10.255.0.{number}/24 dev un0 && \
             ip -n {ns} link add br-ext type bridge && ip -n {ns} link set br-ext up && \
             ip -n {fabric} link add e{number} type veth peer name ext0 netns {ns} && \
             ip -n {fabric} link set e{number} master br1 up && ip -n {ns} link set ext0 master br-ext up"
        ));
        let config = Config {
            state_dir: self.dir.path().join(format!("h{number}")),
            port_socket: self.dir.path().join(format!("h{number}.sock")),
            prefix: format!("{}-a{number}", self.name),
            underlay_address: IpAddr::V4(Ipv4Addr::new(10, 255, 0, number)),
            external: BTreeMap::from([("public".to_owned(), "br-ext".to_owned())]),
            protected: protected.iter().map(|block| block.parse().expect("cidr")).collect(),
            wiring,
            audit_secs: 3600,
            ..Config::default()
        };
        TestHost::start(ns, config)
    }

    /// A namespace for a guest, wired to the port on `host`.
    pub fn guest(&self, host: &TestHost, network: NetworkId, port: &TestPort) -> Guest {
        let ns = self.ns(&format!("g{}", &port.id.0.simple().to_string()[24..]));
        let tenant = host.tenant(network);
        must(&format!("ip netns add {ns} && ip -n {ns} link set lo up"));
        must(&format!(
            "ip -n {tenant} link set {} netns {ns} && ip -n {ns} link set {} name eth0 address {} mtu 1450 up",
            names::endpoint_link(port.id),
            names::endpoint_link(port.id),
            port.mac
        ));
        Guest { ns }
    }

    /// With addresses as if configured by hand.
    pub fn static_guest(&self, host: &TestHost, network: NetworkId, port: &TestPort) -> Guest {
        let guest = self.guest(host, network, port);
        let gateway: MacAddr = GATEWAY_MAC.parse().expect("mac");
        for addr in &port.addrs {
            let ns = &guest.ns;
            match addr {
                IpAddr::V4(a) => {
                    let [x, y, z, _] = a.octets();
                    must(&format!(
                        "ip -n {ns} addr add {a}/24 dev eth0 && ip -n {ns} route add default via {x}.{y}.{z}.1"
                    ));
                }
                IpAddr::V6(a) => {
                    must(&format!(
                        "ip -n {ns} addr add {a}/128 dev eth0 nodad && \
                         ip -n {ns} route add default via {} dev eth0",
                        gateway.link_local()
                    ));
                }
            }
        }
        guest
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let dir = Path::new("/run/netns");
        for name in netns::list(dir).unwrap_or_default() {
            if name.starts_with(&format!("{}-", self.name)) {
                let _ = netns::remove(&dir.join(name));
            }
        }
    }
}

pub struct Guest {
    pub ns: String,
}

impl Guest {
    pub fn exec(&self, command: &str) -> (bool, String) {
        run(&format!("ip netns exec {} {command}", self.ns))
    }

    pub fn must(&self, command: &str) -> String {
        must(&format!("ip netns exec {} {command}", self.ns))
    }

    /// One packet, and an answer within a second.
    pub fn pings(&self, to: &str) -> bool {
        self.exec(&format!("ping -n -c 1 -W 1 {to}")).0
    }

    pub fn reaches(&self, to: &str) {
        eventually(&format!("{} reaches {to}", self.ns), || self.pings(to));
    }
}

pub struct TestHost {
    pub ns: String,
    pub config: Config,
    pub host: Arc<Host>,
    pub shutdown: CancellationToken,
    loop_task: Option<JoinHandle<()>>,
}

impl TestHost {
    fn start(ns: String, config: Config) -> Self {
        // A real kill ends the process and its locks with it; here the killed agent's last kernel job still ends first.
        let mut opened = None;
        eventually("the ledger opens", || {
            let worker = Worker::enter(&PathBuf::from("/run/netns").join(&ns)).expect("the host's namespace");
            opened = Host::open(config.clone(), worker).ok();
            opened.is_some()
        });
        let host = Arc::new(opened.expect("opened"));
        let shutdown = CancellationToken::new();
        let loop_task = Some(tokio::spawn(reconcile::run(Arc::clone(&host), shutdown.clone())));
        Self { ns, config, host, shutdown, loop_task }
    }

    /// Ends the agent in the middle of whatever it does, as a kill would.
    pub async fn kill(mut self) -> (String, Config) {
        if let Some(task) = self.loop_task.take() {
            task.abort();
            let _ = task.await;
        }
        let (ns, config) = (self.ns.clone(), self.config.clone());
        let weak = Arc::downgrade(&self.host);
        drop(self);
        let began = Instant::now();
        while weak.strong_count() > 0 {
            assert!(began.elapsed() < TIMEOUT, "somebody still holds the host");
            tokio::task::yield_now().await;
        }
        (ns, config)
    }

    pub fn restart((ns, config): (String, Config)) -> Self {
        Self::start(ns, config)
    }

    pub fn tenant(&self, network: NetworkId) -> String {
        names::namespace(&self.config.prefix, network)
    }

    /// Sends the host these objects and waits until the kernel has them.
    pub async fn send(&self, objects: &[sync::DesiredObject]) {
        let revision = self.host.ledger.host().revision + 1;
        self.host.accept(objects.to_vec(), revision).await.expect("the ledger takes it");
        self.settled().await;
    }

    pub async fn settled(&self) {
        let mut changes = self.host.signal.changes();
        let quiet = async {
            while self.host.signal.pending() > 0 {
                changes.changed().await.expect("the host lives");
            }
        };
        tokio::time::timeout(TIMEOUT, quiet).await.expect("the host settles");
        let failed: Vec<_> = self
            .host
            .outbox
            .take_due(Instant::now())
            .into_iter()
            .filter(|n| n.observation.state == pb::ObjectState::Error)
            .collect();
        assert!(failed.is_empty(), "not programmed: {failed:?}");
    }

    pub async fn acquire(&self, port: &TestPort) {
        let got = self.host.acquire(port.id, port.instance, port.epoch, TIMEOUT).await;
        assert!(got.is_ok(), "{:?}", got.err());
    }

    pub async fn drops(&self, network: NetworkId, port: &TestPort, reason: network_agent::nft::DropReason) -> u64 {
        let worker = self.host.worker_of(network).expect("the network is here");
        let drops = network_agent::drops::read(&worker).await.expect("worker").expect("listed");
        drops.get(&(names::port_link(port.id), reason)).copied().unwrap_or_default()
    }
}

#[derive(Debug, Clone)]
pub struct TestPort {
    pub id: PortId,
    pub instance: InstanceId,
    pub epoch: i64,
    pub generation: i64,
    pub mac: MacAddr,
    pub addrs: Vec<IpAddr>,
    pub groups: Vec<SecurityGroupId>,
    pub hostname: String,
    pub rate: u64,
    pub allowed: Vec<String>,
}

impl TestPort {
    pub fn new(n: u8, addrs: &[&str], groups: &[SecurityGroupId]) -> Self {
        Self {
            id: PortId::new(),
            instance: InstanceId::new(),
            epoch: 1,
            generation: 1,
            mac: MacAddr([2, 0, 0, 0, 1, n]),
            addrs: addrs.iter().map(|a| a.parse().expect("address")).collect(),
            groups: groups.to_vec(),
            hostname: format!("vm{n}"),
            rate: 0,
            allowed: Vec::new(),
        }
    }

    fn object(&self, network: NetworkId, binding: pb::port::Binding) -> sync::DesiredObject {
        desired(
            self.id.to_string(),
            (self.epoch, self.generation),
            sync::desired_object::Object::Port(pb::Port {
                network_id: network.to_string(),
                mac: self.mac.to_string(),
                fixed_ips: self.addrs.iter().map(ToString::to_string).collect(),
                security_group_ids: self.groups.iter().map(ToString::to_string).collect(),
                binding: Some(binding),
                rate_limit: Some(pb::RateLimit { to_instance_bps: self.rate, from_instance_bps: self.rate }),
                hostname: self.hostname.clone(),
                allowed_addresses: self.allowed.clone(),
                ..Default::default()
            }),
        )
    }

    pub fn local(&self, network: NetworkId) -> sync::DesiredObject {
        let metadata = pb::Metadata {
            instance_name: self.hostname.clone(),
            ssh_keys: vec![pb::SshKey { name: "me".into(), public_key: format!("ssh-ed25519 {}", self.hostname) }],
            user_data: format!("#!/bin/sh\necho {}\n", self.hostname).into_bytes().into(),
            zone: "z1".into(),
            flavor: "small".into(),
            ..Default::default()
        };
        let local = pb::LocalBinding { instance_id: self.instance.to_string(), metadata: Some(metadata) };
        self.object(network, pb::port::Binding::Local(local))
    }

    pub fn remote(&self, network: NetworkId, host: &TestHost) -> sync::DesiredObject {
        self.remote_at(network, host.config.underlay_address)
    }

    /// Bound to a host that needn't have an agent.
    pub fn remote_at(&self, network: NetworkId, underlay: IpAddr) -> sync::DesiredObject {
        self.object(network, pb::port::Binding::RemoteUnderlay(underlay.to_string()))
    }

    pub fn gone(&self) -> sync::DesiredObject {
        tombstone(self.id.to_string(), sync::ObjectKind::Port, (self.epoch, self.generation + 1))
    }
}

pub fn desired(
    id: String,
    (epoch, generation): (i64, i64),
    object: sync::desired_object::Object,
) -> sync::DesiredObject {
    sync::DesiredObject { id, epoch, generation, object: Some(object), ..Default::default() }
}

pub fn tombstone(id: String, kind: sync::ObjectKind, (epoch, generation): (i64, i64)) -> sync::DesiredObject {
    sync::DesiredObject { id, epoch, generation, deleted: true, kind: kind.into(), ..Default::default() }
}

/// With subnets whose gateway is the first address.
pub fn network(
    id: NetworkId,
    vni: u32,
    cidrs: &[&str],
    peers: &[NetworkId],
    uplink: Option<pb::Uplink>,
) -> sync::DesiredObject {
    network_at(1, id, vni, cidrs, peers, uplink)
}

pub fn network_at(
    generation: i64,
    id: NetworkId,
    vni: u32,
    cidrs: &[&str],
    peers: &[NetworkId],
    uplink: Option<pb::Uplink>,
) -> sync::DesiredObject {
    let subnets = cidrs.iter().map(|cidr| {
        let base = cidr.split('/').next().expect("cidr");
        let gateway = match base.strip_suffix('0') {
            Some(start) => format!("{start}1"),
            None => format!("{base}1"),
        };
        pb::Subnet { id: SubnetId::new().to_string(), cidr: (*cidr).into(), gateway, dhcp: true, ..Default::default() }
    });
    desired(
        id.to_string(),
        (1, generation),
        sync::desired_object::Object::Network(pb::Network {
            vni,
            mtu: 1450,
            gateway_mac: GATEWAY_MAC.into(),
            subnets: subnets.collect(),
            dns_domain: "lab.internal".into(),
            peer_ids: peers.iter().map(ToString::to_string).collect(),
            uplink,
            ..Default::default()
        }),
    )
}

/// A part of the addresses of the fleet that no instance may reach.
pub fn protected(part: &str, generation: i64, blocks: &[&str]) -> sync::DesiredObject {
    let blocks = blocks.iter().map(ToString::to_string).collect();
    desired(part.to_owned(), (0, generation), sync::desired_object::Object::Protected(pb::Protected { blocks }))
}

/// A router's leg on the external segment; the address and the MAC end with `n`.
pub fn uplink(n: u8) -> pb::Uplink {
    pb::Uplink {
        external_network: "public".into(),
        addresses: vec![format!("203.0.113.{n}/24")],
        gateways: vec!["203.0.113.1".into()],
        source_nat: true,
        mac: MacAddr([2, 0, 0, 0, 2, n]).to_string(),
    }
}

pub fn group(id: SecurityGroupId, generation: i64, rules: &[SecurityRule]) -> sync::DesiredObject {
    let rules = rules.iter().map(|rule| rule_to_pb("r", rule)).collect();
    let object = sync::desired_object::Object::SecurityGroup(pb::SecurityGroup { rules, ..Default::default() });
    desired(id.to_string(), (1, generation), object)
}

pub fn floating(
    id: FloatingIpId,
    epoch: i64,
    network: NetworkId,
    port: &TestPort,
    address: &str,
) -> sync::DesiredObject {
    let fixed = port.addrs.iter().find(|a| a.is_ipv4()).expect("an IPv4 address");
    desired(
        id.to_string(),
        (epoch, 1),
        sync::desired_object::Object::FloatingIp(pb::FloatingIp {
            network_id: network.to_string(),
            port_id: port.id.to_string(),
            address: address.into(),
            fixed_ip: fixed.to_string(),
        }),
    )
}

pub fn rule(direction: Direction, ethertype: Ethertype, matches: Match, remote: Remote) -> SecurityRule {
    SecurityRule { direction, ethertype, matches, remote }
}

/// Everything, in both directions and families.
pub fn open_rules() -> Vec<SecurityRule> {
    let each = |direction| Ethertype::ALL.map(|ethertype| rule(direction, ethertype, Match::Any, Remote::Any));
    Direction::ALL.into_iter().flat_map(each).collect()
}

/// Out: everything. In: nothing but one TCP port.
pub fn tcp_in(port: u16) -> SecurityRule {
    let ports = Some(PortRange { first: port, last: port });
    let matches = Match::Protocol { protocol: Protocol::Tcp, ports, icmp_type: None, icmp_code: None };
    rule(Direction::Ingress, Ethertype::Ipv4, matches, Remote::Any)
}

pub fn out_rules() -> Vec<SecurityRule> {
    Ethertype::ALL.map(|e| rule(Direction::Egress, e, Match::Any, Remote::Any)).to_vec()
}
