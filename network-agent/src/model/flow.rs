//! Which flows that once began may go on. Pure.
//!
//! The problem: the rules judge a flow's first packet, and what was let in stays in: a rule that is removed, a group that is taken off a
//! port or a floating IP that moves would leave its sessions for ever. Judging every packet was rejected for its cost, and because the rules
//! look at the direction of the first.
//!
//! So when rules shrink, the flows that the kernel tracks are judged once more, as their first packets would be now. This is a second
//! reading of the rules, beside the text that the kernel gets; a test holds the two against each other with packets.

use super::{
    DesiredState,
    object::{Network, Port, SecurityGroup},
    state::{HostFacts, METADATA_ADDRESS},
};
use crate::nft::protected_of;
use domain::{
    SecurityGroupId,
    network::{Cidr, Direction, Ethertype, Match, Protocol, Remote, SecurityRule},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// A flow by its first packet and the answers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub protocol: u8,
    pub from: IpAddr,
    pub to: IpAddr,
    /// Not `to` where the destination was translated.
    pub answered_by: IpAddr,
    /// Not `from` where the source was translated.
    pub answered_to: IpAddr,
    /// After translation, for protocols with ports.
    pub to_port: Option<u16>,
    /// Type and code, of ICMP.
    pub icmp: Option<(u8, u8)>,
}

/// Judges flows of one network on this host.
pub struct FlowJudge {
    /// Ports in use here, by their addresses.
    local: HashMap<IpAddr, Vec<Arc<Port>>>,
    /// Those of them that may send from blocks besides.
    wide: Vec<Arc<Port>>,
    /// All addresses of ports, here and elsewhere, in this network and its peers.
    known: HashSet<IpAddr>,
    known_blocks: Vec<Cidr>,
    /// The ranges whose addresses must be some port's.
    inside: Vec<Cidr>,
    /// The router's own.
    own: HashSet<IpAddr>,
    groups: HashMap<SecurityGroupId, Arc<SecurityGroup>>,
    members: HashMap<SecurityGroupId, HashSet<IpAddr>>,
    /// Floating addresses and what they stand for, while their ports are in use here.
    floating: HashMap<IpAddr, IpAddr>,
    /// What no instance may begin a flow to, unless it is in one of the ranges inside.
    protected: Arc<BTreeSet<Cidr>>,
}

impl FlowJudge {
    #[must_use]
    pub fn new(desired_state: &DesiredState, network: &Network, host: &HostFacts) -> Self {
        let mut judge = Self {
            local: HashMap::new(),
            wide: Vec::new(),
            known: HashSet::new(),
            known_blocks: Vec::new(),
            inside: network.subnets.iter().map(|subnet| subnet.cidr).collect(),
            own: network.subnets.iter().map(|subnet| subnet.gateway).chain([METADATA_ADDRESS.into()]).collect(),
            groups: HashMap::new(),
            members: HashMap::new(),
            floating: HashMap::new(),
            protected: protected_of(network, host),
        };
        judge.own.extend(network.uplink.iter().flat_map(|uplink| &uplink.addresses).map(|(addr, _)| *addr));
        for port in desired_state.active(network.id) {
            for addr in &port.fixed_ips {
                judge.local.entry(*addr).or_default().push(Arc::clone(port));
            }
            if !port.allowed.is_empty() {
                judge.wide.push(Arc::clone(port));
            }
            let groups = port.groups.iter().filter_map(|id| Some((*id, Arc::clone(desired_state.groups.get(id)?))));
            judge.groups.extend(groups);
        }
        let networks = desired_state.peers_of(network).map(|peer| peer.id).chain([network.id]);
        for port in networks.flat_map(|id| desired_state.ports_of(id)) {
            judge.known.extend(&port.fixed_ips);
            judge.known_blocks.extend(&port.allowed);
            for group in &port.groups {
                judge.members.entry(*group).or_default().extend(&port.fixed_ips);
            }
        }
        for floating in desired_state.floating_ips_of(network.id) {
            if desired_state.floating_target(floating).is_some() {
                judge.floating.insert(floating.address.into(), floating.fixed_ip.into());
            }
        }
        judge
    }

    /// Whether the flow's first packet would pass now.
    #[must_use]
    pub fn allows(&self, flow: &Flow) -> bool {
        if self.own.contains(&flow.answered_by) || self.own.contains(&flow.from) {
            return true;
        }
        if self.leaves_for_protected(flow) {
            return false;
        }
        let translated_to = flow.to != flow.answered_by;
        if translated_to && self.floating.get(&flow.to) != Some(&flow.answered_by) {
            return false;
        }
        // By the router's own address it goes on, also when source NAT was switched off since.
        let translated_from = flow.from != flow.answered_to && !self.own.contains(&flow.answered_to);
        if translated_from && self.floating.get(&flow.answered_to) != Some(&flow.from) {
            return false;
        }
        self.end_allows(flow, Direction::Egress, flow.from, flow.answered_by)
            && self.end_allows(flow, Direction::Ingress, flow.answered_by, flow.from)
    }

    /// What goes by the uplink was translated on its way out.
    fn leaves_for_protected(&self, flow: &Flow) -> bool {
        let to = flow.answered_by;
        // They are in order and don't overlap, so the last that begins at or before an address is the only one that may hold it.
        let block = self.protected.range(..=Cidr::host(to)).next_back();
        flow.from != flow.answered_to && block.is_some_and(|block| block.contains(to))
    }

    /// What the port at `near` says; an end that is elsewhere is judged there.
    fn end_allows(&self, flow: &Flow, direction: Direction, near: IpAddr, far: IpAddr) -> bool {
        let exact = self.local.get(&near).into_iter().flatten();
        let mut here =
            exact.chain(self.wide.iter().filter(|port| port.allowed.iter().any(|b| b.contains(near)))).peekable();
        if here.peek().is_none() {
            // Of a port that is gone, or no longer in use here.
            let nobodys = self.inside.iter().any(|cidr| cidr.contains(near))
                && !self.known.contains(&near)
                && !self.known_blocks.iter().any(|block| block.contains(near));
            return !nobodys;
        }
        here.any(|port| self.port_allows(port, flow, direction, far))
    }

    fn port_allows(&self, port: &Port, flow: &Flow, direction: Direction, far: IpAddr) -> bool {
        let rules = port.groups.iter().filter_map(|id| self.groups.get(id)).flat_map(|group| &group.rules);
        rules.filter(|rule| rule.direction == direction).any(|rule| self.rule_matches(rule, flow, far))
    }

    fn rule_matches(&self, rule: &SecurityRule, flow: &Flow, far: IpAddr) -> bool {
        if (rule.ethertype == Ethertype::Ipv4) != far.is_ipv4() {
            return false;
        }
        let remote = match rule.remote {
            Remote::Any => true,
            Remote::Cidr(cidr) => cidr.contains(far),
            Remote::Group(id) => self.members.get(&id).is_some_and(|members| members.contains(&far)),
        };
        remote && matches_protocol(rule, flow)
    }
}

fn matches_protocol(rule: &SecurityRule, flow: &Flow) -> bool {
    let Match::Protocol { protocol, ports, icmp_type, icmp_code } = rule.matches else { return true };
    let number = match protocol {
        Protocol::Icmp if rule.ethertype == Ethertype::Ipv4 => ICMP,
        Protocol::Icmp => ICMP6,
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
        Protocol::Number(number) => number,
    };
    let icmp = icmp_type.is_none_or(|kind| {
        flow.icmp.is_some_and(|(found, code)| found == kind && icmp_code.is_none_or(|other| other == code))
    });
    let ports = ports.is_none_or(|ports| flow.to_port.is_some_and(|port| (ports.first..=ports.last).contains(&port)));
    number == flow.protocol && icmp && ports
}
