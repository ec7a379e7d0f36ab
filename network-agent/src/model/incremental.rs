//! The state of one namespace, kept up to date port by port.
//!
//! The problem: a network has a thousand ports, and one that comes must be ready within milliseconds; deriving everything anew
//! ([`state::namespace_state`]) and comparing it costs more than the change itself. Ports share keys (the way to another host, an
//! address that moved from one port to another, a group's members), so that one port's part can't simply be taken out of the whole.
//!
//! So every key remembers who contributes to it, in the order of who wins. A change replaces the contributions of the ports it
//! names, and of what isn't any port's; of the keys affected by that, the winners before and after are two small states, which the
//! same plan compares. A dataflow that tracks dependencies by itself was rejected: there are four kinds of sources.
//!
//! Invariants, tested over random histories against the reference: [`Model::whole`] equals it, and the plan from `before` to
//! `after` equals the plan from reference to reference.

use super::{
    DesiredState,
    object::{Network, Port},
    state::{self, Hop, HostFacts, Link, NsState},
};
use crate::nft::{
    Remotes,
    element::Element,
    port::{PortRules, memberships, port_rules, tunnel_sources},
    protected_elements, protected_of,
    ruleset::{Head, Limit, Ruleset, Table},
    shared_rules,
};
use domain::{
    PortId, SecurityGroupId,
    network::{Cidr, MacAddr},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// Who contributes; of several to one key the greatest wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Under,
    /// The blocks that no instance may reach.
    Protected,
    /// A port's additional blocks: the lowest id wins.
    Blocks(Reverse<PortId>),
    Port(PortId),
    /// A port's addresses as a member of groups and as what its host's frames may say, also of a peered network's port.
    Member(PortId),
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Link(String),
    Address(String, IpAddr, u8),
    Route(Cidr),
    Neighbour(String, IpAddr),
    Forwarding(MacAddr),
    Set(Table, String),
    Element(Table, String, Element),
    Chain(String),
    Limit(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Present,
    Link(Box<Link>),
    Hop(Hop),
    Mac(MacAddr),
    Underlay(IpAddr),
    Head(Head),
    Rules(Vec<String>),
    Limit(Limit),
}

/// Which ports may have changed. What isn't any port's is looked at in any case.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    All,
    Ports(&'a BTreeSet<PortId>),
}

/// What changed, as two partial states: all keys that the change affected, and the links that their routes lead to.
#[derive(Debug, Default)]
pub struct Change {
    pub before: NsState,
    pub after: NsState,
}

#[derive(Debug, Default)]
pub struct Model {
    /// The contributions to each key, the winner last.
    items: BTreeMap<Item, Vec<(Source, Value)>>,
    by_source: BTreeMap<Source, Vec<Item>>,
    /// The groups of each port that is bound here, and how many ports have the same.
    groups_of: BTreeMap<PortId, BTreeSet<SecurityGroupId>>,
    profiles: BTreeMap<BTreeSet<SecurityGroupId>, usize>,
    remotes: Remotes,
    protected: Arc<BTreeSet<Cidr>>,
}

impl Model {
    #[must_use]
    pub fn new(desired_state: &DesiredState, network: &Network, host: &HostFacts) -> Self {
        let mut model = Self::default();
        model.update(desired_state, network, host, Scope::All);
        model
    }

    /// Everything, as it was after the last update.
    #[must_use]
    pub fn whole(&self) -> NsState {
        let mut state = NsState::default();
        for (item, contributions) in &self.items {
            if let Some((_, value)) = contributions.last() {
                put(&mut state, item, value);
            }
        }
        state
    }

    /// What a link should be, as of the last update.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        if let Some(Value::Link(link)) = self.winner(&Item::Link(name.to_owned())) { Some(link) } else { None }
    }

    /// Follows a change of the desired state. A change of the network itself or of its peers needs [`Scope::All`].
    pub fn update(
        &mut self,
        desired_state: &DesiredState,
        network: &Network,
        host: &HostFacts,
        scope: Scope<'_>,
    ) -> Change {
        let mut before = BTreeMap::new();
        let all = match scope {
            Scope::All => Some(self.everyone(desired_state, network)),
            Scope::Ports(_) => None,
        };
        let ports = match (&all, scope) {
            (Some(all), _) => all,
            (None, Scope::Ports(ports)) => ports,
            (None, Scope::All) => return Change::default(),
        };
        for id in ports {
            self.follow_port(desired_state, network, host, *id, &mut before);
        }
        let (rules, remotes) = shared_rules(desired_state, network, host, self.profiles.keys());
        let mut under = items_of(state::under(desired_state, network, host));
        under.extend(items_of(NsState { rules, ..NsState::default() }));
        self.replace(Source::Under, under, &mut before);
        self.follow_protected(protected_of(network, host), &mut before);
        self.replace(Source::Over, items_of(state::over(desired_state, network, host)), &mut before);
        let members = if remotes == self.remotes { ports.clone() } else { self.everyone(desired_state, network) };
        self.remotes = remotes;
        for id in members {
            let relevant = desired_state.ports.get(&id).filter(|port| is_relevant(desired_state, network, port));
            let items = relevant.map(|port| {
                let element = |(set, element)| (Item::Element(Table::Inet, set, element), Value::Present);
                let sources = tunnel_sources(port).map(|(set, element)| (set.to_owned(), element));
                memberships(port, &self.remotes).chain(sources).map(element).collect()
            });
            self.replace(Source::Member(id), items.unwrap_or_default(), &mut before);
        }
        self.change(before)
    }

    /// All ports that contribute, or would.
    fn everyone(&self, desired_state: &DesiredState, network: &Network) -> BTreeSet<PortId> {
        let networks = desired_state.peers_of(network).map(|peer| peer.id).chain([network.id]);
        let tracked = networks.flat_map(|id| desired_state.ports_of(id)).map(|port| port.id);
        let known = self.by_source.keys().filter_map(|source| match source {
            Source::Blocks(Reverse(id)) | Source::Port(id) | Source::Member(id) => Some(*id),
            Source::Under | Source::Protected | Source::Over => None,
        });
        tracked.chain(known).collect()
    }

    fn follow_port(
        &mut self,
        desired_state: &DesiredState,
        network: &Network,
        host: &HostFacts,
        id: PortId,
        before: &mut BTreeMap<Item, Option<Value>>,
    ) {
        let port = desired_state.ports.get(&id).filter(|port| port.network_id == network.id);
        self.follow_profile(id, port.filter(|port| port.instance().is_some()).map(|port| &port.groups));
        let (mut own, mut blocks) = (Vec::new(), Vec::new());
        if let Some(port) = port {
            let part = state::port_part(desired_state, network, host, port);
            blocks.extend(part.blocks.into_iter().map(|(block, hop)| (Item::Route(block), Value::Hop(hop))));
            own.extend(part.link.into_iter().map(|(name, link)| (Item::Link(name), Value::Link(Box::new(link)))));
            let neighbours = part.neighbours.into_iter();
            own.extend(neighbours.map(|((link, addr), mac)| (Item::Neighbour(link, addr), Value::Mac(mac))));
            own.extend(part.fdb.into_iter().map(|(mac, addr)| (Item::Forwarding(mac), Value::Underlay(addr))));
            own.extend(part.routes.into_iter().map(|(to, hop)| (Item::Route(to), Value::Hop(hop))));
            if port.instance().is_some() {
                let PortRules { elements, limits } = port_rules(port);
                let element = |(table, set, element): (_, &str, _)| Item::Element(table, set.to_owned(), element);
                own.extend(elements.into_iter().map(|e| (element(e), Value::Present)));
                own.extend(limits.into_iter().map(|(name, limit)| (Item::Limit(name), Value::Limit(limit))));
            }
        }
        self.replace(Source::Port(id), own, before);
        self.replace(Source::Blocks(Reverse(id)), blocks, before);
    }

    /// There may be thousands, and most changes are of something else: they are looked at only when they are others than before.
    fn follow_protected(&mut self, protected: Arc<BTreeSet<Cidr>>, before: &mut BTreeMap<Item, Option<Value>>) {
        if Arc::ptr_eq(&protected, &self.protected) {
            return;
        }
        if protected != self.protected {
            let element = |(set, element): (&str, _)| Item::Element(Table::Inet, set.to_owned(), element);
            let items = protected_elements(&protected).map(|blocked| (element(blocked), Value::Present));
            self.replace(Source::Protected, items.collect(), before);
        }
        self.protected = protected;
    }

    fn follow_profile(&mut self, id: PortId, groups: Option<&BTreeSet<SecurityGroupId>>) {
        if self.groups_of.get(&id) == groups {
            return;
        }
        if let Some(groups) = groups {
            *self.profiles.entry(groups.clone()).or_default() += 1;
        }
        let old = match groups {
            Some(groups) => self.groups_of.insert(id, groups.clone()),
            None => self.groups_of.remove(&id),
        };
        if let Some(old) = old
            && let Some(count) = self.profiles.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.profiles.remove(&old);
            }
        }
    }

    /// Puts a source's contributions in the place of its last ones; `before` keeps the first winner seen of each key.
    fn replace(&mut self, source: Source, new: Vec<(Item, Value)>, before: &mut BTreeMap<Item, Option<Value>>) {
        for item in self.by_source.remove(&source).unwrap_or_default() {
            if let Some(contributions) = self.items.get_mut(&item) {
                let winner = contributions.last().map(|(_, value)| value.clone());
                before.entry(item.clone()).or_insert(winner);
                contributions.retain(|(by, _)| *by != source);
                if contributions.is_empty() {
                    self.items.remove(&item);
                }
            }
        }
        if new.is_empty() {
            return;
        }
        let mut names = Vec::with_capacity(new.len());
        for (item, value) in new {
            let contributions = self.items.entry(item.clone()).or_default();
            let winner = contributions.last().map(|(_, value)| value.clone());
            before.entry(item.clone()).or_insert(winner);
            match contributions.binary_search_by_key(&source, |(by, _)| *by) {
                Ok(at) => contributions[at].1 = value,
                Err(at) => contributions.insert(at, (source, value)),
            }
            names.push(item);
        }
        self.by_source.insert(source, names);
    }

    fn winner(&self, item: &Item) -> Option<&Value> {
        self.items.get(item)?.last().map(|(_, value)| value)
    }

    fn change(&self, affected: BTreeMap<Item, Option<Value>>) -> Change {
        let mut change = Change::default();
        for (item, value) in &affected {
            if let Some(value) = value {
                put(&mut change.before, item, value);
            }
            if let Some(value) = self.winner(item) {
                put(&mut change.after, item, value);
            }
        }
        // The link that a step is on says whose it is.
        let mut named: BTreeSet<String> = BTreeSet::new();
        for part in [&change.before, &change.after] {
            named.extend(part.routes.values().filter_map(Hop::link).map(ToOwned::to_owned));
            named.extend(part.neighbours.keys().map(|(link, _)| link.clone()));
        }
        for item in named.into_iter().map(Item::Link).filter(|item| !affected.contains_key(item)) {
            if let Some(value) = self.winner(&item) {
                put(&mut change.before, &item, value);
                put(&mut change.after, &item, value);
            }
        }
        change
    }
}

/// Whether the port's addresses count among the members of groups here.
fn is_relevant(desired_state: &DesiredState, network: &Network, port: &Port) -> bool {
    port.network_id == network.id || desired_state.peers_of(network).any(|peer| peer.id == port.network_id)
}

fn items_of(state: NsState) -> Vec<(Item, Value)> {
    let NsState { links, addresses, routes, neighbours, fdb, rules: Ruleset { sets, chains, limits } } = state;
    let mut items = Vec::new();
    items.extend(links.into_iter().map(|(name, link)| (Item::Link(name), Value::Link(Box::new(link)))));
    items.extend(addresses.into_iter().map(|(link, addr, prefix)| (Item::Address(link, addr, prefix), Value::Present)));
    items.extend(routes.into_iter().map(|(to, hop)| (Item::Route(to), Value::Hop(hop))));
    items.extend(neighbours.into_iter().map(|((link, addr), mac)| (Item::Neighbour(link, addr), Value::Mac(mac))));
    items.extend(fdb.into_iter().map(|(mac, addr)| (Item::Forwarding(mac), Value::Underlay(addr))));
    for ((table, name), set) in sets {
        let element = |element| (Item::Element(table, name.clone(), element), Value::Present);
        items.extend(set.elements.into_iter().map(element));
        items.push((Item::Set(table, name), Value::Head(set.head)));
    }
    items.extend(chains.into_iter().map(|(name, rules)| (Item::Chain(name), Value::Rules(rules))));
    items.extend(limits.into_iter().map(|(name, limit)| (Item::Limit(name), Value::Limit(limit))));
    items
}

/// Items come in order, so that a set is declared before its elements.
fn put(state: &mut NsState, item: &Item, value: &Value) {
    match (item, value) {
        (Item::Link(name), Value::Link(link)) => {
            state.links.insert(name.clone(), Link::clone(link));
        }
        (Item::Address(link, addr, prefix), Value::Present) => {
            state.addresses.insert((link.clone(), *addr, *prefix));
        }
        (Item::Route(to), Value::Hop(hop)) => {
            state.routes.insert(*to, hop.clone());
        }
        (Item::Neighbour(link, addr), Value::Mac(mac)) => {
            state.neighbours.insert((link.clone(), *addr), *mac);
        }
        (Item::Forwarding(mac), Value::Underlay(addr)) => {
            state.fdb.insert(*mac, *addr);
        }
        (Item::Set(table, name), Value::Head(head)) => state.rules.declare(*table, name, *head),
        (Item::Element(table, name, element), Value::Present) => {
            state.rules.insert(*table, name, element.clone());
        }
        (Item::Chain(name), Value::Rules(rules)) => {
            state.rules.chains.insert(name.clone(), rules.clone());
        }
        (Item::Limit(name), Value::Limit(limit)) => {
            state.rules.limits.insert(name.clone(), *limit);
        }
        _ => debug_assert!(false, "{item:?} has {value:?}"),
    }
}
