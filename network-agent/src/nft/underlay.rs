//! The rules in the host's own namespace: whose tunnelled frames this host takes.
//!
//! The problem: the kernel's VXLAN socket listens on every address of the host and takes frames from anybody, and a network's number
//! and MACs are no secrets. In the network's namespace only the inner MAC says which host a frame is from. So before the socket, a
//! frame must come from a host that the desired state names, by the device that leads to it, and with the MAC of that host's end of
//! the tunnel: outer address and inner MAC are one element of one set. Without other hosts nothing is taken.
//!
//! A rule in `prerouting` was rejected: there a fragment has no UDP header yet. An address filter alone was rejected too: one
//! host of the fleet could speak with another's MAC.
//!
//! What remains: the outer address is as good as the underlay. Whoever can send from a host's underlay address on the device that
//! leads to it is that host, and what is sent between hosts can be read on the way.

use crate::model::state::vtep_mac;
use std::{collections::BTreeSet, fmt::Write, net::IpAddr};

/// The whole table, replacing what is there.
#[must_use]
pub fn render_table(table: &str, vxlan_port: u16, hosts: &BTreeSet<IpAddr>) -> String {
    let head = format!(
        "add table inet {table}
delete table inet {table}
table inet {table} {{
\tset hosts4 {{ typeof ip saddr . {INNER_SOURCE}; }}
\tset hosts6 {{ typeof ip6 saddr . {INNER_SOURCE}; }}
\tchain tunnel {{
\t\tfib saddr . iif oif missing counter drop
\t\tip saddr . {INNER_SOURCE} @hosts4 accept
\t\tip6 saddr . {INNER_SOURCE} @hosts6 accept
\t\tcounter drop
\t}}
\tchain input {{
\t\ttype filter hook input priority -10; policy accept;
\t\tudp dport {vxlan_port} jump tunnel
\t}}
}}
"
    );
    head + &elements("add", table, hosts.iter())
}

/// What leads from the hosts `old` to the hosts `new`.
#[must_use]
pub fn render_difference(table: &str, old: &BTreeSet<IpAddr>, new: &BTreeSet<IpAddr>) -> String {
    elements("delete", table, old.difference(new)) + &elements("add", table, new.difference(old))
}

/// The source MAC of the frame in VXLAN: the UDP header, VXLAN's own and the destination MAC come before it.
const INNER_SOURCE: &str = "@th,176,48";

fn elements<'a>(verb: &str, table: &str, hosts: impl Iterator<Item = &'a IpAddr>) -> String {
    let mut out = String::new();
    for host in hosts {
        let set = if host.is_ipv4() { "hosts4" } else { "hosts6" };
        let mac = hex::encode(vtep_mac(*host).0);
        writeln!(out, "{verb} element inet {table} {set} {{ {host} . 0x{mac} }}")
            .expect("writing to a string never fails");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_underlay() {
        let hosts = ["10.255.0.2", "fd00:ff::2"].map(|addr| addr.parse().expect("ip"));
        insta::assert_snapshot!(render_table("iaas_underlay", 4789, &BTreeSet::from(hosts)));
    }

    #[test]
    fn a_host_more_and_one_less_are_elements_alone() {
        let host = |n: u8| IpAddr::from([10, 255, 0, n]);
        let (old, new) = (BTreeSet::from([host(2), host(3)]), BTreeSet::from([host(3), host(4)]));
        let text = render_difference("iaas_underlay", &old, &new);
        assert_eq!(
            text,
            "delete element inet iaas_underlay hosts4 { 10.255.0.2 . 0x02760aff0002 }\n\
             add element inet iaas_underlay hosts4 { 10.255.0.4 . 0x02760aff0004 }\n"
        );
        assert_eq!(render_difference("iaas_underlay", &new, &new), "");
    }
}
