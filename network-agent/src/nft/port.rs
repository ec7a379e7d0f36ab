//! What one port brings to a namespace's rules: what it may send from, its limits, its way to its groups' chains.

use super::{
    Remotes,
    element::{Element, Field, Value},
    profile_name,
    ruleset::{Limit, Table},
    widest,
};
use crate::model::{names, object::Port, state::vtep_mac};

#[derive(Debug, Default)]
pub struct PortRules {
    pub elements: Vec<(Table, &'static str, Element)>,
    pub limits: Vec<(String, Limit)>,
}

/// Of a port that is bound here.
#[must_use]
pub fn port_rules(port: &Port) -> PortRules {
    let mut rules = PortRules::default();
    let link = names::port_link(port.id);
    add_guard(&mut rules, port, &link);
    add_limits(&mut rules, port, &link);
    let profile = profile_name(&port.groups);
    for (set, end) in [("port_in", "in"), ("port_out", "out")] {
        let jump = Element::entry(Field::Link(link.clone()), Value::Jump(format!("{profile}_{end}")));
        rules.elements.push((Table::Inet, set, jump));
    }
    rules
}

/// What the port may send from.
fn add_guard(rules: &mut PortRules, port: &Port, link: &str) {
    let sender = [Field::Link(link.to_owned()), Field::Mac(port.mac)];
    let with = |field: Field| Element::key([&sender[..], &[field]].concat());
    for table in [Table::Inet, Table::Arp] {
        rules.elements.push((table, "macs", Element::key(sender.clone())));
    }
    for addr in &port.fixed_ips {
        let element = with(Field::Addr(*addr));
        if addr.is_ipv4() {
            rules.elements.push((Table::Arp, "guard4", element.clone()));
            rules.elements.push((Table::Inet, "guard4", element));
        } else {
            rules.elements.push((Table::Inet, "guard6", element));
        }
    }
    for block in widest(&port.allowed) {
        let element = with(Field::Block(block));
        if block.v4() {
            rules.elements.push((Table::Arp, "guard4x", element.clone()));
            rules.elements.push((Table::Inet, "guard4x", element));
        } else {
            rules.elements.push((Table::Inet, "guard6x", element));
        }
    }
}

fn add_limits(rules: &mut PortRules, port: &Port, link: &str) {
    for (set, end, bps) in [("limit_in", "in", port.to_instance_bps), ("limit_out", "out", port.from_instance_bps)] {
        if bps == 0 {
            continue;
        }
        let bytes_per_sec = (bps / 8).max(1);
        // A tenth of a second's worth, and never less than a few large segments: TCP needs room to keep going.
        let burst = (bytes_per_sec / 10).clamp(256 * 1024, u64::from(u32::MAX) / 2);
        let name = format!("{link}_{end}");
        let burst_bytes = u32::try_from(burst).unwrap_or(u32::MAX / 2);
        rules.limits.push((name.clone(), Limit { bytes_per_sec, burst_bytes }));
        let element = Element::entry(Field::Link(link.to_owned()), Value::Limit(name));
        rules.elements.push((Table::Inet, set, element));
    }
}

/// What frames from the host that the port is bound to may say: the MAC of that host's end of the tunnel, together with the port's
/// addresses. Nothing for a port that is bound here or nowhere.
pub fn tunnel_sources(port: &Port) -> impl Iterator<Item = (&'static str, Element)> {
    port.underlay().map(vtep_mac).into_iter().flat_map(|mac| {
        let addresses = port.fixed_ips.iter().map(move |addr| {
            let set = if addr.is_ipv4() { "remote4" } else { "remote6" };
            (set, Element::key([Field::Mac(mac), Field::Addr(*addr)]))
        });
        addresses.chain([("hosts", Element::key([Field::Mac(mac)]))])
    })
}

/// The port's addresses in the sets of those of its groups that rules name. Ports count wherever they are bound.
pub fn memberships<'a>(port: &'a Port, remotes: &'a Remotes) -> impl Iterator<Item = (String, Element)> + 'a {
    port.fixed_ips.iter().flat_map(move |addr| {
        let v4 = addr.is_ipv4();
        let named = port.groups.iter().filter(move |id| remotes.contains(&(**id, v4)));
        named.map(move |id| (names::member_set(*id, v4), Element::key([Field::Addr(*addr)])))
    })
}
