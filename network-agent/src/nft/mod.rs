//! The rules of a namespace: what follows from networks, ports and groups ([`rules_of`]), and its text ([`render`]). Pure.
//!
//! Ports that are in the same groups share one chain per direction (a *profile*), and a verdict map leads from the interface's name
//! to it: a port is a handful of set elements and no chain of its own, a packet costs the same whether there is one port or a
//! thousand, and most changes are elements alone. A chain per port was rejected for its cost: a thousand ports, two thousand chains.

pub mod render;
pub mod ruleset;

use crate::model::{
    Wishes, names,
    object::{Network, Port, SecurityGroup},
    state::HostFacts,
};
use domain::{
    SecurityGroupId,
    network::{Cidr, Direction, Ethertype, Match, Protocol, Remote, SecurityRule},
};
use ruleset::{Ruleset, Table};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
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
}

impl DropReason {
    pub const ALL: [Self; 9] = [
        Self::Spoof,
        Self::DhcpServer,
        Self::RouterAdvertisement,
        Self::SecurityGroup,
        Self::Protected,
        Self::Host,
        Self::Rate,
        Self::Transit,
        Self::StaleNat,
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

/// The rules of a network's namespace.
#[must_use]
pub fn rules_of(wishes: &Wishes, network: &Network, host: &HostFacts) -> Ruleset {
    let mut rules = Ruleset::default();
    declare_fixed(&mut rules);
    for block in &host.protected {
        rules.insert(Table::Inet, if block.v4() { "protected4" } else { "protected6" }, block.to_string());
    }
    let mut profiles = BTreeMap::new();
    for port in wishes.ports_of(network.id).filter(|port| port.instance().is_some()) {
        add_guard(&mut rules, port);
        add_limits(&mut rules, port);
        let name = profiles.entry(&port.groups).or_insert_with(|| profile_name(&port.groups));
        let link = names::port_link(port.id);
        rules.insert(Table::Inet, "port_in", format!("\"{link}\" : jump {name}_in"));
        rules.insert(Table::Inet, "port_out", format!("\"{link}\" : jump {name}_out"));
    }
    let mut used: BTreeSet<SecurityGroupId> = BTreeSet::new();
    for (groups, name) in profiles {
        for (suffix, ingress) in [("in", true), ("out", false)] {
            let jumps = groups.iter().map(|id| format!("jump {}", names::group_chain(*id, ingress)));
            let refuse = format!("meta mark set {:#x} accept", DropReason::SecurityGroup.mark());
            rules.chains.insert(format!("{name}_{suffix}"), jumps.chain([refuse]).collect());
        }
        used.extend(groups.iter().copied());
    }
    let mut remotes = BTreeSet::new();
    for id in used {
        add_group(&mut rules, id, wishes.groups.get(&id).map(AsRef::as_ref), &mut remotes);
    }
    add_members(&mut rules, wishes, network, &remotes);
    add_nat(&mut rules, wishes, network, host);
    rules
}

fn declare_fixed(rules: &mut Ruleset) {
    for (name, kind, interval) in [
        ("macs", "ifname . ether_addr", false),
        ("guard4", "ifname . ether_addr . ipv4_addr", false),
        ("guard6", "ifname . ether_addr . ipv6_addr", false),
        ("guard4x", "ifname . ether_addr . ipv4_addr", true),
        ("guard6x", "ifname . ether_addr . ipv6_addr", true),
        ("ours4", "ipv4_addr", false),
        ("ours6", "ipv6_addr", false),
        ("protected4", "ipv4_addr", true),
        ("protected6", "ipv6_addr", true),
    ] {
        rules.declare(Table::Inet, name, kind, false, interval);
    }
    for (name, kind) in [
        ("port_in", "ifname : verdict"),
        ("port_out", "ifname : verdict"),
        ("limit_in", "ifname : limit"),
        ("limit_out", "ifname : limit"),
        ("floating_in", "ipv4_addr : ipv4_addr"),
        ("floating_out", "ipv4_addr : ipv4_addr"),
    ] {
        rules.declare(Table::Inet, name, kind, true, false);
    }
    rules.declare(Table::Arp, "macs", "ifname . ether_addr", false, false);
    rules.declare(Table::Arp, "guard4", "ifname . ether_addr . ipv4_addr", false, false);
    rules.declare(Table::Arp, "guard4x", "ifname . ether_addr . ipv4_addr", false, true);
    rules.chains.insert("source_nat".into(), Vec::new());
}

/// What the port may send from.
fn add_guard(rules: &mut Ruleset, port: &Port) {
    let link = names::port_link(port.id);
    let mac = port.mac;
    for table in [Table::Inet, Table::Arp] {
        rules.insert(table, "macs", format!("\"{link}\" . {mac}"));
    }
    for addr in &port.fixed_ips {
        let element = format!("\"{link}\" . {mac} . {addr}");
        if addr.is_ipv4() {
            rules.insert(Table::Arp, "guard4", element.clone());
            rules.insert(Table::Inet, "guard4", element);
        } else {
            rules.insert(Table::Inet, "guard6", element);
        }
    }
    // Of nested blocks the widest alone: intervals of one set must not overlap.
    let widest = port.allowed.iter().filter(|b| !port.allowed.iter().any(|o| o != *b && o.covers(**b)));
    for block in widest {
        let element = format!("\"{link}\" . {mac} . {}", text_of(*block));
        if block.v4() {
            rules.insert(Table::Arp, "guard4x", element.clone());
            rules.insert(Table::Inet, "guard4x", element);
        } else {
            rules.insert(Table::Inet, "guard6x", element);
        }
    }
}

/// As nft lists it: a block of one address without its prefix length.
fn text_of(block: Cidr) -> String {
    if block == Cidr::host(block.addr()) { block.addr().to_string() } else { block.to_string() }
}

fn add_limits(rules: &mut Ruleset, port: &Port) {
    let link = names::port_link(port.id);
    for (direction, bps) in [("in", port.to_instance_bps), ("out", port.from_instance_bps)] {
        if bps == 0 {
            continue;
        }
        let rate = (bps / 8).max(1);
        // A tenth of a second's worth, and never less than a few large segments: TCP needs room to keep going.
        let burst = (rate / 10).clamp(256 * 1024, u64::from(u32::MAX) / 2);
        let name = format!("{link}_{direction}");
        rules.limits.insert(name.clone(), format!("rate over {rate} bytes/second burst {burst} bytes"));
        rules.insert(Table::Inet, &format!("limit_{direction}"), format!("\"{link}\" : \"{name}\""));
    }
}

fn profile_name(groups: &BTreeSet<SecurityGroupId>) -> String {
    let hash = groups.iter().fold(Sha256::new(), |hash, id| hash.chain_update(id.0.as_bytes())).finalize();
    format!("pr_{}", hex::encode(&hash[..8]))
}

/// Remote groups a rule needs the members of: (group, IPv4).
type Remotes = BTreeSet<(SecurityGroupId, bool)>;

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
    let end = if rule.direction == Direction::Ingress { "saddr" } else { "daddr" };
    let mut parts = vec![match rule.remote {
        Remote::Any => format!("meta nfproto {}", if v4 { "ipv4" } else { "ipv6" }),
        Remote::Cidr(cidr) => format!("{ip} {end} {}", text_of(cidr)),
        Remote::Group(id) => format!("{ip} {end} @{}", names::member_set(id, v4)),
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

/// The addresses of the remote groups' members, wherever they are, in this network and those it exchanges packets with.
fn add_members(rules: &mut Ruleset, wishes: &Wishes, network: &Network, remotes: &Remotes) {
    for (id, v4) in remotes {
        let kind = if *v4 { "ipv4_addr" } else { "ipv6_addr" };
        rules.declare(Table::Inet, &names::member_set(*id, *v4), kind, false, false);
    }
    let ids: BTreeSet<SecurityGroupId> = remotes.iter().map(|(id, _)| *id).collect();
    let networks = wishes.peers_of(network).map(|peer| peer.id).chain([network.id]);
    for port in networks.flat_map(|id| wishes.ports_of(id)) {
        for id in port.groups.intersection(&ids) {
            for addr in port.fixed_ips.iter().filter(|addr| remotes.contains(&(*id, addr.is_ipv4()))) {
                rules.insert(Table::Inet, &names::member_set(*id, addr.is_ipv4()), addr.to_string());
            }
        }
    }
}

fn add_nat(rules: &mut Ruleset, wishes: &Wishes, network: &Network, host: &HostFacts) {
    let uplink = network.uplink.as_ref().filter(|uplink| host.external.contains_key(&uplink.external_network));
    let Some(uplink) = uplink else { return };
    let mut texts = Vec::new();
    for (addr, _) in &uplink.addresses {
        let (family, ours) = if addr.is_ipv4() { ("ip", "ours4") } else { ("ip6", "ours6") };
        rules.insert(Table::Inet, ours, addr.to_string());
        // One address per family; a second would never be used.
        let said = texts.iter().any(|text: &String| text.starts_with(&format!("{family} ")));
        if uplink.source_nat && !said {
            texts.push(format!("{family} saddr != @{ours} snat {family} to {addr}"));
        }
    }
    rules.chains.insert("source_nat".into(), texts);
    for floating in wishes.floating_ips_of(network.id) {
        if wishes.floating_target(floating).is_none() {
            continue;
        }
        rules.insert(Table::Inet, "ours4", floating.address.to_string());
        rules.insert(Table::Inet, "floating_in", format!("{} : {}", floating.address, floating.fixed_ip));
        rules.insert(Table::Inet, "floating_out", format!("{} : {}", floating.fixed_ip, floating.address));
    }
}

/// For tests and logs: whether an address of a port would pass the guard.
#[must_use]
pub fn may_send_from(port: &Port, addr: IpAddr) -> bool {
    port.fixed_ips.contains(&addr) || port.allowed.iter().any(|block| block.contains(addr))
}
