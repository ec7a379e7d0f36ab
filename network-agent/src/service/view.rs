//! What a namespace's services answer from: an immutable picture, replaced after each round.

use crate::model::{
    Wishes, names,
    object::{Network, Port},
};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

#[derive(Debug)]
pub struct View {
    pub network: Arc<Network>,
    /// Ports in use here, by their links' names.
    pub by_link: HashMap<String, Arc<Port>>,
    /// Ports in use here, by each address of theirs.
    pub by_address: HashMap<IpAddr, Arc<Port>>,
    /// Host names, lower case, without domain: of this network's ports and its peers', wherever they are.
    pub names: HashMap<String, BTreeSet<IpAddr>>,
    /// Floating addresses by fixed ones.
    pub floating: HashMap<IpAddr, IpAddr>,
}

impl View {
    #[must_use]
    pub fn new(wishes: &Wishes, network: &Arc<Network>) -> Self {
        let (mut by_link, mut by_address) = (HashMap::new(), HashMap::new());
        for port in wishes.active(network.id) {
            by_link.insert(names::port_link(port.id), Arc::clone(port));
            for addr in &port.fixed_ips {
                by_address.insert(*addr, Arc::clone(port));
            }
        }
        let mut names: HashMap<String, BTreeSet<IpAddr>> = HashMap::new();
        // A network's own names win over its peers'.
        let mut peers: HashMap<String, BTreeSet<IpAddr>> = HashMap::new();
        let take = |into: &mut HashMap<String, BTreeSet<IpAddr>>, port: &Port| {
            if !port.hostname.is_empty() {
                into.entry(port.hostname.clone()).or_default().extend(port.fixed_ips.iter().copied());
            }
        };
        wishes.ports_of(network.id).for_each(|port| take(&mut names, port));
        for peer in wishes.peers_of(network) {
            wishes.ports_of(peer.id).for_each(|port| take(&mut peers, port));
        }
        for (name, addrs) in peers {
            names.entry(name).or_insert(addrs);
        }
        let floating = wishes
            .floating_ips_of(network.id)
            .filter(|floating| wishes.floating_target(floating).is_some())
            .map(|floating| (IpAddr::V4(floating.fixed_ip), IpAddr::V4(floating.address)))
            .collect();
        Self { network: Arc::clone(network), by_link, by_address, names, floating }
    }
}
