//! Packet filters of others in the host's own namespace.

use crate::rig::{Lab, TestPort, eventually, group, must, network, open_rules, root, uplink};
use domain::{NetworkId, SecurityGroupId};
use network_agent::model::state::Wiring;
use proto::network::v1 as pb;

/// The host routes for its external network, as on a single machine, and Docker is started, and changes its mind.
#[tokio::test(flavor = "multi_thread")]
async fn dockers_filter_lets_external_networks_pass_to_the_outside_and_not_to_containers() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (ns, far, container) = (host.ns.clone(), lab.ns("far"), lab.ns("ctr"));
    must(&format!(
        "ip netns add {far} && ip netns add {container} && ip netns exec {ns} sysctl -qw net.ipv4.ip_forward=1 && \
         ip -n {ns} addr add 203.0.113.254/24 dev br-ext && \
         ip -n {ns} link add f0 type veth peer name eth0 netns {far} && \
         ip -n {ns} addr add 198.51.100.1/24 dev f0 && ip -n {ns} link set f0 up && \
         ip -n {far} addr add 198.51.100.2/24 dev eth0 && ip -n {far} link set eth0 up && \
         ip -n {far} route add default via 198.51.100.1 && \
         ip -n {ns} link add docker0 type veth peer name eth0 netns {container} && \
         ip -n {ns} addr add 172.17.0.1/16 dev docker0 && ip -n {ns} link set docker0 up && \
         ip -n {container} addr add 172.17.0.2/16 dev eth0 && ip -n {container} link set eth0 up && \
         ip -n {container} route add default via 172.17.0.1"
    ));
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5"], &[sg]);
    let by_host = pb::Uplink { gateways: vec!["203.0.113.254".into()], ..uplink(11) };
    host.send(&[network(net, 100, &["10.0.0.0/24"], &[], Some(by_host)), group(sg, 1, &open_rules()), a.local(net)])
        .await;
    host.acquire(&a).await;
    let guest = lab.static_guest(&host, net, &a);
    guest.reaches("198.51.100.2");
    guest.reaches("172.17.0.2");
    let nft = |text: &str| must(&format!("ip netns exec {ns} nft '{text}'"));
    // A policy alone: nobody can overrule it.
    nft("add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
    assert!(!guest.pings("198.51.100.2"));
    nft("add chain ip filter DOCKER-USER; add rule ip filter DOCKER-USER counter return; \
         add rule ip filter FORWARD jump DOCKER-USER");
    guest.reaches("198.51.100.2");
    assert!(!guest.pings("172.17.0.2"), "a container");
    // Somebody cleans up, or Docker is set up anew.
    nft("flush chain ip filter DOCKER-USER");
    guest.reaches("198.51.100.2");
    nft("insert rule ip filter DOCKER-USER counter return");
    eventually("ours come first", || guest.pings("198.51.100.2"));
    assert!(!guest.pings("172.17.0.2"), "a container");
    let mine = must(&format!("ip netns exec {ns} nft list chain ip filter DOCKER-USER")).matches("comment").count();
    assert_eq!(mine, 3, "each once");
}
