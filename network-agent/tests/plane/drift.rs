//! What others change of ours: seen without the audit, put back, counted; and closed for as long as it isn't.

use crate::rig::{
    Guest, Lab, TestHost, TestPort, eventually, group, must, network, open_rules, out_rules, root, run, uplink,
};
use domain::{NetworkId, SecurityGroupId};
use network_agent::{
    host::disturbance::{Disturbance, file_beside, read},
    link::netns::{self, Worker},
    model::{names, state::Wiring},
};

/// What somebody does, in which namespace, and as what it is counted. `{t}` is the first port's interface, `{u}` the host's end of the
/// uplink, `{table}` the host's own table.
enum Place {
    Network,
    Host,
}

const ACTIONS: [(Place, &str, Disturbance); 24] = [
    (Place::Network, "nft flush ruleset", Disturbance::Rules),
    (Place::Network, "nft delete table inet iaas", Disturbance::Rules),
    (Place::Network, "nft delete table inet iaas_drops", Disturbance::Rules),
    (Place::Network, "nft flush chain inet iaas ingress", Disturbance::Rules),
    (Place::Network, "nft flush set inet iaas guard4", Disturbance::Rules),
    (Place::Network, "nft insert rule inet iaas guard accept", Disturbance::Rules),
    (Place::Network, "nft flush table arp iaas", Disturbance::Rules),
    (Place::Network, "ip link set {t} down", Disturbance::Links),
    (Place::Network, "ip link set {t} down && ip link set {t} up", Disturbance::Ways),
    (Place::Network, "ip link set {t} mtu 1300", Disturbance::Links),
    (Place::Network, "ip link set vx down", Disturbance::Links),
    (Place::Network, "ip link del vx", Disturbance::Links),
    (Place::Network, "ip link set dev up down", Disturbance::Links),
    (Place::Network, "ip link del dev up", Disturbance::Links),
    (Place::Network, "ip route del 10.0.0.5", Disturbance::Ways),
    (Place::Network, "ip route flush table main", Disturbance::Ways),
    (Place::Network, "ip -6 route del fd00::5", Disturbance::Ways),
    (Place::Network, "ip neigh del 10.0.0.5 dev {t}", Disturbance::Ways),
    (Place::Network, "bridge fdb del 02:76:0a:ff:00:03 dev vx dst 10.255.0.3 self", Disturbance::Ways),
    (Place::Network, "ip addr del 10.0.0.1/32 dev lo", Disturbance::Ways),
    (Place::Network, "ip addr add 10.99.99.99/32 dev lo", Disturbance::Ways),
    (Place::Host, "nft flush ruleset", Disturbance::Underlay),
    (Place::Host, "nft flush chain inet {table} tunnel", Disturbance::Underlay),
    (Place::Host, "nft delete table inet {table}", Disturbance::Underlay),
];

/// All that the agent makes, without what counts and what the kernel numbers.
fn picture(host: &TestHost, net: NetworkId) -> String {
    let tenant = host.tenant(net);
    let inside = |command: &str| run(&format!("ip netns exec {tenant} {command}")).1;
    let links = sorted(&inside("ip -o link").lines().map(link_line).collect::<Vec<_>>().join("\n"));
    let mut parts: Vec<String> = vec![links];
    for command in [
        "ip -o addr show dev lo",
        "ip route",
        "ip -6 route show proto 0x99",
        "ip neigh show nud permanent",
        "ip -6 neigh show nud permanent",
        "bridge fdb show dev vx",
    ] {
        parts.push(sorted(&inside(command)));
    }
    for table in ["inet iaas", "inet iaas_drops", "arp iaas", "inet iaas_fence"] {
        parts.push(tokens(&inside(&format!("nft -s list table {table}"))));
    }
    let own = names::underlay_table(&host.config.prefix);
    parts.push(tokens(&run(&format!("ip netns exec {} nft -s list table inet {own}", host.ns)).1));
    parts.push(run(&format!("ip -n {} -o link show master br-ext", host.ns)).1.lines().count().to_string());
    parts.join("\n--\n")
}

/// Name, flags that are set on purpose, MTU.
fn link_line(line: &str) -> String {
    let tokens: Vec<&str> = line.split_whitespace().collect();
    let name = tokens[1].split('@').next().unwrap_or_default().trim_end_matches(':');
    let mtu = tokens.iter().position(|w| *w == "mtu").map_or("", |at| tokens[at + 1]);
    let up = tokens[2].trim_matches(['<', '>']).split(',').any(|flag| flag == "UP");
    format!("{name} {up} {mtu}")
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Sets that packets fill by rules.
const FILLED: [&str; 10] = [
    "links6",
    "links6_taken",
    "neighbours",
    "outside4",
    "outside6",
    "outside_new",
    "flows",
    "flow_rate",
    "by_source",
    "by_target",
];

/// In no order: that of elements is the kernel's. What packets enter into sets isn't ours to compare.
fn tokens(text: &str) -> String {
    let filled = |line: &str| FILLED.iter().any(|name| line.trim() == format!("set {name} {{"));
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        inside = filled(line) || (inside && line.trim() != "}");
        !inside
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut tokens: Vec<&str> = text.split([' ', '\n', '\t', ',']).filter(|word| !word.is_empty()).collect();
    tokens.sort_unstable();
    tokens.join(" ")
}

struct Fixture {
    lab: Lab,
    host: TestHost,
    net: NetworkId,
    a: TestPort,
    ga: Guest,
    _gb: Guest,
}

async fn fixture(open_b: bool) -> Fixture {
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg, closed) = (NetworkId::new(), SecurityGroupId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg]);
    let b = TestPort::new(2, &["10.0.0.6", "fd00::6"], &[if open_b { sg } else { closed }]);
    let c = TestPort::new(3, &["10.0.0.7", "fd00::7"], &[sg]);
    host.send(&[
        network(net, 100, &["10.0.0.0/24", "fd00::/64"], &[], Some(uplink(11))),
        group(sg, 1, &open_rules()),
        group(closed, 1, &out_rules()),
        a.local(net),
        b.local(net),
        c.remote_at(net, "10.255.0.3".parse().expect("ip")),
    ])
    .await;
    host.acquire(&a).await;
    host.acquire(&b).await;
    let (ga, _gb) = (lab.static_guest(&host, net, &a), lab.static_guest(&host, net, &b));
    Fixture { lab, host, net, a, ga, _gb }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_others_change_is_seen_put_back_and_counted() {
    if !root() {
        return;
    }
    let Fixture { lab: _lab, host, net, a, ga, _gb } = fixture(true).await;
    for to in ["10.0.0.6", "fd00::6", "203.0.113.1"] {
        ga.reaches(to);
    }
    let good = picture(&host, net);
    assert!(good.contains("iaas_fence"), "{good}");
    let fill = |command: &str| {
        command.replace("{t}", &names::port_link(a.id)).replace("{table}", &names::underlay_table(&host.config.prefix))
    };
    for (place, command, kind) in &ACTIONS {
        let before = host.host.disturbances.count(*kind);
        let ns = match place {
            Place::Network => host.tenant(net),
            Place::Host => host.ns.clone(),
        };
        must(&format!("ip netns exec {ns} sh -c '{}'", fill(command)));
        eventually(&format!("`{command}` is counted"), || host.host.disturbances.count(*kind) > before);
        eventually(&format!("`{command}` is put back"), || picture(&host, net) == good);
    }
    // Not in the namespace, but of it.
    let end = names::uplink_host_end(net);
    for command in [format!("ip link set {end} nomaster"), format!("ip link set {end} down")] {
        must(&format!("ip netns exec {} {command}", host.ns));
        ga.reaches("203.0.113.1");
    }
    let name = format!("/run/netns/{}", host.tenant(net));
    must(&format!("umount {name}"));
    eventually("the name is mounted again", || host.host.disturbances.count(Disturbance::Mounts) > 0);
    eventually("and leads to the same place", || picture(&host, net) == good);
    for to in ["10.0.0.6", "fd00::6", "203.0.113.1"] {
        ga.reaches(to);
    }
    let noted = read(&file_beside(&host.config.port_socket)).expect("readable");
    let kinds: Vec<Disturbance> = noted.iter().map(|noted| noted.kind).collect();
    assert_eq!(kinds, Disturbance::ALL, "for the doctor");
    assert!(noted.iter().all(|noted| noted.count > 0 && noted.last_at > 0));
    // What the agent itself changes is nobody else's.
    let counts = || Disturbance::ALL.map(|kind| host.host.disturbances.count(kind));
    let before = counts();
    for generation in 2..6 {
        host.send(&[TestPort { generation, rate: 8_000_000 * generation as u64, ..a.clone() }.local(net)]).await;
        ga.reaches("10.0.0.6");
    }
    assert_eq!(counts(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_passes_while_the_rules_are_gone() {
    if !root() {
        return;
    }
    let Fixture { lab: _lab, host, net, ga, .. } = fixture(false).await;
    ga.reaches("10.0.0.1");
    ga.reaches("203.0.113.1");
    let refused = |what: &str| {
        for to in ["10.0.0.6", "fd00::6"] {
            assert!(!ga.pings(to), "{what}: {to}");
        }
    };
    refused("by its group");
    let tenant = host.tenant(net);
    let mut stopped = host.kill().await;
    for action in [
        "nft flush ruleset",
        "nft delete table inet iaas",
        "nft delete table inet iaas_drops",
        "nft flush chain inet iaas guard",
        "nft flush chain inet iaas egress",
        "nft flush chain inet iaas ingress",
    ] {
        must(&format!("ip netns exec {tenant} sh -c '{action}'"));
        refused(action);
        let host = TestHost::restart(stopped);
        host.settled().await;
        ga.reaches("203.0.113.1");
        refused("by its group again");
        let fence = format!("ip netns exec {tenant} nft delete table inet iaas_fence");
        assert!(!run(&fence).0, "nobody else removes it");
        stopped = host.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_two_mounts_is_removed_and_made_again() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let names_dir = dir.path().join("names");
    let path = names_dir.join("one");
    let first = Worker::create(&path).expect("made");
    // As `ip netns add` does where the directory is no mount yet.
    must(&format!("mount --rbind {0} {0}", names_dir.display()));
    assert!(netns::names(&path, &first.namespace()));
    drop(first);
    netns::remove(&path).expect("removed");
    assert!(!netns::mounted(&path));
    let second = Worker::create(&path).expect("made again");
    assert!(netns::names(&path, &second.namespace()));
    drop(second);
    netns::remove(&path).expect("removed again");
    // Prepared as iproute2 would, a directory is left alone by it.
    must(&format!("umount -l {}", names_dir.display()));
    let _ = netns::remove(&path);
    let prepared = dir.path().join("prepared");
    netns::prepare_dir(&prepared).expect("made");
    netns::prepare_dir(&prepared).expect("again");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    let shown = prepared.display().to_string();
    assert_eq!(mounts.lines().filter(|line| line.contains(&shown)).count(), 1, "{mounts}");
    must(&format!("umount -l {shown}"));
}
