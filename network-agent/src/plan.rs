//! What to do so that a namespace becomes what it should be: a pure comparison of desired and found, as ordered steps.
//!
//! The order makes every moment in between safe: links first (no packet is routed to them yet), then the rules in one transaction,
//! then neighbours and routes, which open the way; what goes loses its routes and its neighbours before its link. So a crash after
//! any step leaves something closed, never something open.

use crate::{
    model::{
        names,
        object::Key,
        state::{Hop, Link, LinkKind, NsState},
    },
    nft::{
        difference::{Change, difference},
        render::render_full,
        ruleset::Ruleset,
    },
};
use domain::network::{Cidr, MacAddr};
use std::{collections::BTreeMap, net::IpAddr};

/// The rules' part of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rules {
    /// The whole tables, as text.
    Whole(String),
    Delta(Vec<Change>),
}

/// One change of the kernel's state; repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    AddLink {
        name: String,
        kind: LinkKind,
        mac: MacAddr,
        mtu: u32,
    },
    /// MAC, MTU, up, and answers without delay.
    SetLink {
        name: String,
        mac: MacAddr,
        mtu: u32,
    },
    DeleteLink {
        name: String,
    },
    AddAddress {
        link: String,
        addr: IpAddr,
        prefix: u8,
    },
    DeleteAddress {
        link: String,
        addr: IpAddr,
        prefix: u8,
    },
    /// One nftables transaction.
    Rules(Rules),
    SetNeighbour {
        link: String,
        addr: IpAddr,
        mac: MacAddr,
    },
    DeleteNeighbour {
        link: String,
        addr: IpAddr,
    },
    SetForwarding {
        mac: MacAddr,
        underlay: IpAddr,
    },
    DeleteForwarding {
        mac: MacAddr,
        underlay: IpAddr,
    },
    SetRoute {
        destination: Cidr,
        hop: Hop,
    },
    DeleteRoute {
        destination: Cidr,
        hop: Hop,
    },
}

impl Step {
    /// What takes the step back when a later one of the same owner fails; none for what removes.
    #[must_use]
    pub fn inverse(&self, before: &NsState) -> Option<Self> {
        match self {
            Self::AddLink { name, .. } => Some(Self::DeleteLink { name: name.clone() }),
            Self::AddAddress { link, addr, prefix } => {
                Some(Self::DeleteAddress { link: link.clone(), addr: *addr, prefix: *prefix })
            }
            Self::SetNeighbour { link, addr, .. } => Some(match before.neighbours.get(&(link.clone(), *addr)) {
                Some(mac) => Self::SetNeighbour { link: link.clone(), addr: *addr, mac: *mac },
                None => Self::DeleteNeighbour { link: link.clone(), addr: *addr },
            }),
            Self::SetForwarding { mac, underlay } => Some(match before.fdb.get(mac) {
                Some(underlay) => Self::SetForwarding { mac: *mac, underlay: *underlay },
                None => Self::DeleteForwarding { mac: *mac, underlay: *underlay },
            }),
            Self::SetRoute { destination, hop } => Some(match before.routes.get(destination) {
                Some(hop) => Self::SetRoute { destination: *destination, hop: hop.clone() },
                None => Self::DeleteRoute { destination: *destination, hop: hop.clone() },
            }),
            Self::SetLink { .. }
            | Self::DeleteLink { .. }
            | Self::DeleteAddress { .. }
            | Self::Rules(_)
            | Self::DeleteNeighbour { .. }
            | Self::DeleteForwarding { .. }
            | Self::DeleteRoute { .. } => None,
        }
    }

    /// Whether packets may be refused after it that passed before.
    #[must_use]
    pub fn refuses_more(&self) -> bool {
        match self {
            Self::Rules(Rules::Whole(_)) => true,
            Self::Rules(Rules::Delta(changes)) => changes.iter().any(|change| match change {
                Change::DeleteElements { .. }
                | Change::FlushChain { .. }
                | Change::DeleteChain { .. }
                | Change::DeleteSet { .. } => true,
                Change::AddElements { set, .. } => set == "protected4" || set == "protected6",
                Change::Declare { .. }
                | Change::AddChain { .. }
                | Change::DeleteLimit { .. }
                | Change::AddLimit { .. }
                | Change::AddRules { .. } => false,
            }),
            // A port that is handed back keeps its elements and loses its routes.
            Self::DeleteRoute { .. } | Self::DeleteLink { .. } => true,
            Self::AddLink { .. }
            | Self::SetLink { .. }
            | Self::AddAddress { .. }
            | Self::DeleteAddress { .. }
            | Self::SetNeighbour { .. }
            | Self::DeleteNeighbour { .. }
            | Self::SetForwarding { .. }
            | Self::DeleteForwarding { .. }
            | Self::SetRoute { .. } => false,
        }
    }

    /// What it does, for somebody who doesn't know how.
    #[must_use]
    pub fn purpose(&self) -> &'static str {
        match self {
            Self::AddLink { .. } => "make a network interface",
            Self::SetLink { .. } => "set up a network interface",
            Self::DeleteLink { .. } => "remove a network interface",
            Self::AddAddress { .. } | Self::DeleteAddress { .. } => "change the router's addresses",
            Self::Rules(_) => "write the packet rules",
            Self::SetNeighbour { .. }
            | Self::DeleteNeighbour { .. }
            | Self::SetForwarding { .. }
            | Self::DeleteForwarding { .. }
            | Self::SetRoute { .. }
            | Self::DeleteRoute { .. } => "change the routes",
        }
    }

    /// The link that must be there for the step, by its name.
    #[must_use]
    pub fn link(&self) -> Option<&str> {
        match self {
            Self::AddAddress { link, .. }
            | Self::DeleteAddress { link, .. }
            | Self::SetNeighbour { link, .. }
            | Self::DeleteNeighbour { link, .. } => Some(link),
            Self::SetRoute { hop, .. } | Self::DeleteRoute { hop, .. } => hop.link(),
            Self::SetForwarding { .. } | Self::DeleteForwarding { .. } => Some(names::VXLAN),
            Self::AddLink { .. } | Self::SetLink { .. } | Self::DeleteLink { .. } | Self::Rules(_) => None,
        }
    }
}

/// A step and whom it is for: when one of a port's fails, that port's are undone and the others' go on. Without an owner it is
/// the whole network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub owner: Option<Key>,
    pub step: Step,
}

/// `rules`: what the kernel's tables hold by our last transaction; None when that isn't known (the start, or drift).
#[must_use]
pub fn plan(desired: &NsState, found: &NsState, rules: Option<&Ruleset>) -> Vec<Planned> {
    let mut steps = Vec::new();
    let owners: BTreeMap<&str, Key> =
        desired.links.iter().filter_map(|(name, link)| Some((name.as_str(), Key::Port(link.port_id?)))).collect();
    let owner = |link: &str| owners.get(link).copied();
    let mut push = |owner: Option<Key>, step: Step| steps.push(Planned { owner, step });

    for (name, link) in &desired.links {
        let Link { kind, mac, mtu, .. } = link;
        if !found.links.contains_key(name) {
            push(owner(name), Step::AddLink { name: name.clone(), kind: kind.clone(), mac: *mac, mtu: *mtu });
        }
    }
    for (name, link) in &desired.links {
        let known = found.links.get(name);
        let Link { mac, mtu, .. } = link;
        if known.is_none_or(|k| (k.mac, k.mtu, k.up) != (*mac, *mtu, true)) {
            push(owner(name), Step::SetLink { name: name.clone(), mac: *mac, mtu: *mtu });
        }
    }
    for entry in desired.addresses.difference(&found.addresses) {
        let (link, addr, prefix) = entry.clone();
        push(owner(&link), Step::AddAddress { link, addr, prefix });
    }
    match rules.map(|known| difference(known, &desired.rules)) {
        None => push(None, Step::Rules(Rules::Whole(render_full(&desired.rules)))),
        Some(changes) if changes.is_empty() => {}
        Some(changes) => push(None, Step::Rules(Rules::Delta(changes))),
    }
    for ((link, addr), mac) in &desired.neighbours {
        if found.neighbours.get(&(link.clone(), *addr)) != Some(mac) {
            push(owner(link), Step::SetNeighbour { link: link.clone(), addr: *addr, mac: *mac });
        }
    }
    for (mac, underlay) in &desired.fdb {
        if found.fdb.get(mac) != Some(underlay) {
            push(None, Step::SetForwarding { mac: *mac, underlay: *underlay });
        }
    }
    // A next hop must be reachable by a route of its link.
    let (via, direct): (Vec<_>, Vec<_>) = desired.routes.iter().partition(|(_, hop)| matches!(hop, Hop::Via(..)));
    for (destination, hop) in direct.into_iter().chain(via) {
        if found.routes.get(destination) != Some(hop) {
            let owner = hop.link().and_then(&owner);
            push(owner, Step::SetRoute { destination: *destination, hop: hop.clone() });
        }
    }

    // What goes. With its link, a link's routes, neighbours and addresses go by themselves.
    let removed = |link: &str| found.links.contains_key(link) && !desired.links.contains_key(link);
    for (destination, hop) in &found.routes {
        if !desired.routes.contains_key(destination) && !hop.link().is_some_and(removed) {
            push(None, Step::DeleteRoute { destination: *destination, hop: hop.clone() });
        }
    }
    for (link, addr) in found.neighbours.keys() {
        if !desired.neighbours.contains_key(&(link.clone(), *addr)) && !removed(link) {
            push(None, Step::DeleteNeighbour { link: link.clone(), addr: *addr });
        }
    }
    for (mac, underlay) in &found.fdb {
        if !desired.fdb.contains_key(mac) {
            push(None, Step::DeleteForwarding { mac: *mac, underlay: *underlay });
        }
    }
    for (link, addr, prefix) in found.addresses.difference(&desired.addresses) {
        if !removed(link) {
            push(None, Step::DeleteAddress { link: link.clone(), addr: *addr, prefix: *prefix });
        }
    }
    for name in found.links.keys().filter(|name| removed(name)) {
        push(None, Step::DeleteLink { name: name.clone() });
    }
    steps
}
