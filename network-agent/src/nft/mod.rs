//! The rules of a namespace: what follows from networks, ports and groups ([`rules_of`]), and its text ([`render`]). Pure.
//!
//! An address proves nothing by itself: every project may have the same ranges. It counts together with the link that a packet came
//! by: a port's with its own link and MAC, a peered network's with the link to it, a remote port's with its host's end of the tunnel
//! ([`underlay`]). From the uplink come no members, and no private address leaves there untranslated.
//!
//! Ports that are in the same groups share one chain per direction (a *profile*), and a verdict map leads from the interface's name
//! to it: a port is a handful of set elements and no chain of its own, a packet costs the same whether there is one port or a
//! thousand, and most changes are elements alone. A chain per port was rejected for its cost: a thousand ports, two thousand chains.

pub mod batch;
pub mod difference;
pub mod element;
pub mod fence;
pub mod forward;
pub mod port;
pub mod render;
pub mod ruleset;
pub mod underlay;

use crate::model::{
    DesiredState, names,
    object::{Network, SecurityGroup},
    state::{HostFacts, vtep_mac},
};
use domain::{
    SecurityGroupId,
    network::{Cidr, Direction, Ethertype, Match, Protocol, Remote, SecurityRule},
};
use element::{Element, Field, Value};
use port::{PortRules, memberships, port_rules, tunnel_sources};
use ruleset::{Head, Ruleset, Table};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Why a packet was dropped. The number is the low half of its mark on the way to the table that counts and drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    Spoof,
    DhcpServer,
    RouterAdvertisement,
    SecurityGroup,
    Protected,
    Host,
    Rate,
    Transit,
    StaleNat,
    /// Between a network and the outside, with an address that nothing translates.
    NotRoutable,
}

impl DropReason {
    pub const ALL: [Self; 10] = [
        Self::Spoof,
        Self::DhcpServer,
        Self::RouterAdvertisement,
        Self::SecurityGroup,
        Self::Protected,
        Self::Host,
        Self::Rate,
        Self::Transit,
        Self::StaleNat,
        Self::NotRoutable,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spoof => "spoof",
            Self::DhcpServer => "dhcp_server",
            Self::RouterAdvertisement => "router_advertisement",
            Self::SecurityGroup => "security_group",
            Self::Protected => "protected",
            Self::Host => "host",
            Self::Rate => "rate",
            Self::Transit => "transit",
            Self::StaleNat => "stale_nat",
            Self::NotRoutable => "not_routable",
        }
    }

    /// The packet mark.
    #[must_use]
    pub fn mark(self) -> u32 {
        let number = Self::ALL.iter().position(|reason| *reason == self).unwrap_or_default();
        0xd0d0_0001 + number as u32
    }

    #[must_use]
    pub fn of_mark(mark: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.mark() == mark)
    }
}

/// The rules of a network's namespace: the reference that [`crate::model::incremental`] must agree with.
#[must_use]
pub fn rules_of(desired_state: &DesiredState, network: &Network, host: &HostFacts) -> Ruleset {
    let local = || desired_state.ports_of(network.id).filter(|port| port.instance().is_some());
    let profiles: BTreeSet<&BTreeSet<SecurityGroupId>> = local().map(|port| &port.groups).collect();
    let (mut rules, remotes) = shared_rules(desired_state, network, host, profiles);
    for (set, element) in protected_elements(&protected_of(network, host)) {
        rules.insert(Table::Inet, set, element);
    }
    for port in local() {
        let PortRules { elements, limits } = port_rules(port);
        for (table, set, element) in elements {
            rules.insert(table, set, element);
        }
        rules.limits.extend(limits);
    }
    // The members of remote groups, in this network and those it exchanges packets with.
    let networks = desired_state.peers_of(network).map(|peer| peer.id).chain([network.id]);
    for port in networks.flat_map(|id| desired_state.ports_of(id)) {
        for (set, element) in memberships(port, &remotes) {
            rules.insert(Table::Inet, &set, element);
        }
        for (set, element) in tunnel_sources(port) {
            rules.insert(Table::Inet, set, element);
        }
    }
    rules
}

/// The blocks that no instance of the network may reach: without a way out there is nothing to keep it from.
#[must_use]
pub fn protected_of(network: &Network, host: &HostFacts) -> Arc<BTreeSet<Cidr>> {
    if network.uplink.is_some() { Arc::clone(&host.protected) } else { Arc::default() }
}

pub fn protected_elements(blocks: &BTreeSet<Cidr>) -> impl Iterator<Item = (&'static str, Element)> {
    blocks.iter().map(|block| (by_family(*block, "protected4", "protected6"), Element::key([Field::Block(*block)])))
}

/// All but what single ports bring and the protected blocks, which may be thousands and change rarely: declarations, the groups' chains, translation. `profiles`: the sets of groups that ports here
/// are in. And the groups whose members it needs to know.
pub fn shared_rules<'a>(
    desired_state: &DesiredState,
    network: &Network,
    host: &HostFacts,
    profiles: impl IntoIterator<Item = &'a BTreeSet<SecurityGroupId>>,
) -> (Ruleset, Remotes) {
    let mut rules = Ruleset::default();
    declare_fixed(&mut rules);
    add_inside(&mut rules, desired_state, network);
    add_tunnel_blocks(&mut rules, desired_state, network);
    let mut used: BTreeSet<SecurityGroupId> = BTreeSet::new();
    for groups in profiles {
        let name = profile_name(groups);
        for (suffix, ingress) in [("in", true), ("out", false)] {
            let jumps = groups.iter().map(|id| format!("jump {}", names::group_chain(*id, ingress)));
            let rest = refuse(DropReason::SecurityGroup);
            rules.chains.insert(format!("{name}_{suffix}"), jumps.chain([rest]).collect());
        }
        used.extend(groups.iter().copied());
    }
    let mut remotes = Remotes::new();
    for id in used {
        add_group(&mut rules, id, desired_state.groups.get(&id).map(AsRef::as_ref), &mut remotes);
    }
    for (id, v4) in &remotes {
        let kind = if *v4 { "ipv4_addr" } else { "ipv6_addr" };
        rules.declare(Table::Inet, &names::member_set(*id, *v4), Head { map: false, kind, interval: false });
    }
    add_nat(&mut rules, desired_state, network, host);
    (rules, remotes)
}

/// Sets and maps that are always there: (table, name, type, map, intervals).
const FIXED: [(Table, &str, &str, bool, bool); 32] = [
    (Table::Inet, "macs", "ifname . ether_addr", false, false),
    (Table::Inet, "guard4", "ifname . ether_addr . ipv4_addr", false, false),
    (Table::Inet, "guard6", "ifname . ether_addr . ipv6_addr", false, false),
    (Table::Inet, "guard4x", "ifname . ether_addr . ipv4_addr", false, true),
    (Table::Inet, "guard6x", "ifname . ether_addr . ipv6_addr", false, true),
    (Table::Inet, "ours4", "ipv4_addr", false, false),
    (Table::Inet, "ours6", "ipv6_addr", false, false),
    (Table::Inet, "hosts", "ether_addr", false, false),
    (Table::Inet, "remote4", "ether_addr . ipv4_addr", false, false),
    (Table::Inet, "remote6", "ether_addr . ipv6_addr", false, false),
    (Table::Inet, "remote4x", "ether_addr . ipv4_addr", false, true),
    (Table::Inet, "remote6x", "ether_addr . ipv6_addr", false, true),
    (Table::Inet, "gateways6", "ipv6_addr", false, false),
    (Table::Inet, "inside4", "ipv4_addr", false, true),
    (Table::Inet, "inside6", "ipv6_addr", false, true),
    (Table::Inet, "behind4", "ifname . ipv4_addr", false, true),
    (Table::Inet, "behind6", "ifname . ipv6_addr", false, true),
    (Table::Inet, "inner4", "ipv4_addr", false, false),
    (Table::Inet, "floats4", "ifname . ipv4_addr", false, false),
    (Table::Inet, "protected4", "ipv4_addr", false, true),
    (Table::Inet, "protected6", "ipv6_addr", false, true),
    (Table::Inet, "onlink4", "ipv4_addr", false, true),
    (Table::Inet, "onlink6", "ipv6_addr", false, true),
    (Table::Inet, "port_in", "ifname : verdict", true, false),
    (Table::Inet, "port_out", "ifname : verdict", true, false),
    (Table::Inet, "limit_in", "ifname : limit", true, false),
    (Table::Inet, "limit_out", "ifname : limit", true, false),
    (Table::Inet, "floating_in", "ipv4_addr : ipv4_addr", true, false),
    (Table::Inet, "floating_out", "ipv4_addr : ipv4_addr", true, false),
    (Table::Arp, "macs", "ifname . ether_addr", false, false),
    (Table::Arp, "guard4", "ifname . ether_addr . ipv4_addr", false, false),
    (Table::Arp, "guard4x", "ifname . ether_addr . ipv4_addr", false, true),
];

fn declare_fixed(rules: &mut Ruleset) {
    for (table, name, kind, map, interval) in FIXED {
        rules.declare(table, name, Head { map, kind, interval });
    }
    rules.chains.insert("source_nat".into(), Vec::new());
    rules.chains.insert("leaving".into(), vec![refuse(DropReason::NotRoutable)]);
}

/// What a chain says of packets that it doesn't let pass.
fn refuse(reason: DropReason) -> String {
    format!("meta mark set {:#x} accept", reason.mark())
}

fn by_family(block: Cidr, v4: &'static str, v6: &'static str) -> &'static str {
    if block.v4() { v4 } else { v6 }
}

/// The blocks that no other of them covers: intervals of one set must not overlap.
fn widest(blocks: &BTreeSet<Cidr>) -> impl Iterator<Item = Cidr> {
    blocks.iter().copied().filter(|block| !blocks.iter().any(|other| other != block && other.covers(*block)))
}

/// Whose addresses are at home on which side: the ranges that no packet from the outside comes from, and those behind each link to a
/// peered network.
fn add_inside(rules: &mut Ruleset, desired_state: &DesiredState, network: &Network) {
    let mut inside: BTreeSet<Cidr> = network.subnets.iter().map(|subnet| subnet.cidr).collect();
    for peer in desired_state.peers_of(network) {
        let behind: BTreeSet<Cidr> = peer.subnets.iter().map(|subnet| subnet.cidr).collect();
        for block in widest(&behind) {
            let key = [Field::Link(names::peer_link(peer.id)), Field::Block(block)];
            rules.insert(Table::Inet, by_family(block, "behind4", "behind6"), Element::key(key));
        }
        inside.extend(behind);
    }
    for block in widest(&inside) {
        rules.insert(Table::Inet, by_family(block, "inside4", "inside6"), Element::key([Field::Block(block)]));
    }
    let subnets = desired_state.peers_of(network).flat_map(|peer| &peer.subnets).chain(&network.subnets);
    for gateway in subnets.map(|subnet| subnet.gateway).filter(IpAddr::is_ipv6) {
        rules.insert(Table::Inet, "gateways6", Element::key([Field::Addr(gateway)]));
    }
}

/// The blocks that ports elsewhere may send from besides their own addresses. Ports of one host share its MAC, and so one set of
/// blocks that must not overlap: that makes them a matter of all ports together.
fn add_tunnel_blocks(rules: &mut Ruleset, desired_state: &DesiredState, network: &Network) {
    let networks = desired_state.peers_of(network).map(|peer| peer.id).chain([network.id]);
    let ports = networks.flat_map(|id| desired_state.ports_of(id)).filter(|port| !port.allowed.is_empty());
    let mut blocks: BTreeMap<IpAddr, BTreeSet<Cidr>> = BTreeMap::new();
    for (underlay, port) in ports.filter_map(|port| Some((port.underlay()?, port))) {
        blocks.entry(underlay).or_default().extend(&port.allowed);
    }
    for (underlay, blocks) in blocks {
        for block in widest(&blocks) {
            let key = [Field::Mac(vtep_mac(underlay)), Field::Block(block)];
            rules.insert(Table::Inet, by_family(block, "remote4x", "remote6x"), Element::key(key));
        }
    }
}

fn profile_name(groups: &BTreeSet<SecurityGroupId>) -> String {
    let hash = groups.iter().fold(Sha256::new(), |hash, id| hash.chain_update(id.0.as_bytes())).finalize();
    format!("pr_{}", hex::encode(&hash[..8]))
}

/// Remote groups a rule needs the members of: (group, IPv4).
pub type Remotes = BTreeSet<(SecurityGroupId, bool)>;

/// A group that isn't known yet allows nothing.
fn add_group(rules: &mut Ruleset, id: SecurityGroupId, group: Option<&SecurityGroup>, remotes: &mut Remotes) {
    for direction in Direction::ALL {
        let ingress = direction == Direction::Ingress;
        let declared = group.into_iter().flat_map(|group| &group.rules).filter(|rule| rule.direction == direction);
        let mut texts = Vec::new();
        for rule in declared {
            if let Remote::Group(id) = rule.remote {
                remotes.insert((id, rule.ethertype == Ethertype::Ipv4));
            }
            texts.push(rule_text(rule));
        }
        texts.sort();
        texts.dedup();
        rules.chains.insert(names::group_chain(id, ingress), texts);
    }
}

fn rule_text(rule: &SecurityRule) -> String {
    let v4 = rule.ethertype == Ethertype::Ipv4;
    let ip = if v4 { "ip" } else { "ip6" };
    let (end, link) = match rule.direction {
        Direction::Ingress => ("saddr", "iifname"),
        Direction::Egress => ("daddr", "oifname"),
    };
    let mut parts = vec![match rule.remote {
        Remote::Any => format!("meta nfproto {}", if v4 { "ipv4" } else { "ipv6" }),
        Remote::Cidr(cidr) => format!("{ip} {end} {}", Field::Block(cidr)),
        // An address makes a member only together with the link: nobody outside is one.
        Remote::Group(id) => format!("{link} != \"{}\" {ip} {end} @{}", names::UPLINK, names::member_set(id, v4)),
    }];
    if let Match::Protocol { protocol, ports, icmp_type, icmp_code } = rule.matches {
        match (protocol, ports, icmp_type) {
            (Protocol::Icmp, _, None) => parts.push(format!("meta l4proto {}", if v4 { 1 } else { 58 })),
            (Protocol::Icmp, _, Some(kind)) => {
                let icmp = if v4 { "icmp" } else { "icmpv6" };
                parts.push(format!("{icmp} type {kind}"));
                parts.extend(icmp_code.map(|code| format!("{icmp} code {code}")));
            }
            (Protocol::Number(number), ..) => parts.push(format!("meta l4proto {number}")),
            (Protocol::Tcp | Protocol::Udp | Protocol::Sctp, Some(ports), _) => {
                let range = if ports.first == ports.last {
                    ports.first.to_string()
                } else {
                    format!("{}-{}", ports.first, ports.last)
                };
                parts.push(format!("{} dport {range}", protocol.as_str()));
            }
            (Protocol::Tcp | Protocol::Udp | Protocol::Sctp, None, _) => {
                parts.push(format!("meta l4proto {}", protocol.as_str()));
            }
        }
    }
    parts.push("accept".into());
    parts.join(" ")
}

fn add_nat(rules: &mut Ruleset, desired_state: &DesiredState, network: &Network, host: &HostFacts) {
    let uplink = network.uplink.as_ref().filter(|uplink| host.external.contains_key(&uplink.external_network));
    let Some(uplink) = uplink else { return };
    let mut texts = Vec::new();
    // What `source_nat` and `floating_out` will translate, decided before they do.
    let mut leaving = vec![
        "iifname . ip saddr @floats4 return".to_owned(),
        // Another port would be taken for the one that has the floating IP.
        format!("ip saddr @inner4 {}", refuse(DropReason::NotRoutable)),
    ];
    for (addr, _) in &uplink.addresses {
        let (family, ours) = if addr.is_ipv4() { ("ip", "ours4") } else { ("ip6", "ours6") };
        rules.insert(Table::Inet, ours, Element::key([Field::Addr(*addr)]));
        // One address per family; a second would never be used.
        let declared = texts.iter().any(|text: &String| text.starts_with(&format!("{family} ")));
        if uplink.source_nat && !declared {
            texts.push(format!("{family} saddr != @{ours} snat {family} to {addr}"));
            leaving.push(format!("{family} saddr != @{ours} return"));
        }
    }
    let onlink: BTreeSet<Cidr> = uplink.addresses.iter().map(|(addr, prefix)| Cidr::around(*addr, *prefix)).collect();
    for block in widest(&onlink) {
        rules.insert(Table::Inet, by_family(block, "onlink4", "onlink6"), Element::key([Field::Block(block)]));
    }
    leaving.push(refuse(DropReason::NotRoutable));
    rules.chains.insert("source_nat".into(), texts);
    rules.chains.insert("leaving".into(), leaving);
    for floating in desired_state.floating_ips_of(network.id) {
        let Some(port) = desired_state.floating_target(floating) else { continue };
        let (outer, inner) = (IpAddr::V4(floating.address), IpAddr::V4(floating.fixed_ip));
        rules.insert(Table::Inet, "ours4", Element::key([Field::Addr(outer)]));
        rules.insert(Table::Inet, "floating_in", Element::entry(Field::Addr(outer), Value::Addr(inner)));
        rules.insert(Table::Inet, "inner4", Element::key([Field::Addr(inner)]));
        let sender = [Field::Link(names::port_link(port.id)), Field::Addr(inner)];
        rules.insert(Table::Inet, "floats4", Element::key(sender));
        rules.insert(Table::Inet, "floating_out", Element::entry(Field::Addr(inner), Value::Addr(outer)));
    }
}
