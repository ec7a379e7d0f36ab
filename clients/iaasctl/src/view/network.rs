//! Networks and what belongs to them.

use super::{filled, joined, text, time, word, yes};
use crate::{output::Row, size::show_rate};
use client::model::{
    ExternalNetwork, ExternalSubnet, FloatingIp, Network, Nic, Peering, Port, PortTraffic, Router, SecurityGroup,
    SecurityRule, Subnet,
};

/// A name, or (when it is gone) the id.
fn named(name: Option<&impl ToString>, id: &impl ToString) -> String {
    name.map_or_else(|| id.to_string(), ToString::to_string)
}

fn lines(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join("\n")
}

impl Row for Network {
    const HEADER: &'static [&'static str] = &["NAME", "SUBNETS", "EXTERNAL NETWORK", "PEERS", "DESCRIPTION", "ID"];

    fn cells(&self) -> Vec<String> {
        let subnets: Vec<_> = self.subnets.iter().map(|s| s.cidr).collect();
        let peers: Vec<_> = self.peerings.iter().map(|p| named(p.network.as_ref(), &p.network_id)).collect();
        vec![
            self.name.to_string(),
            joined(&subnets, ","),
            self.router.as_ref().map_or(String::new(), |r| named(r.external_network.as_ref(), &r.external_network_id)),
            peers.join(","),
            self.description.clone(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let subnets = self.subnets.iter().map(|s| format!("{} {} (gateway {})", s.name, s.cidr, s.gateway));
        let router = self.router.as_ref().map(|r| {
            let nat = if r.source_nat { "source NAT" } else { "floating IPs only" };
            format!("{} to {} ({nat})", r.name, named(r.external_network.as_ref(), &r.external_network_id))
        });
        let peerings =
            self.peerings.iter().map(|p| format!("{} with {}", p.name, named(p.network.as_ref(), &p.network_id)));
        filled(vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("project", self.project_id.to_string()),
            ("description", self.description.clone()),
            ("subnets", lines(subnets)),
            ("router", router.unwrap_or_else(|| "none: not connected to an external network".to_owned())),
            ("peerings", lines(peerings)),
            ("mtu", text(self.mtu.as_ref())),
            ("vni", text(self.vni.as_ref())),
            ("created", time(self.created_at)),
        ])
    }
}

impl Row for Subnet {
    const HEADER: &'static [&'static str] = &["NAME", "NETWORK", "CIDR", "GATEWAY", "DHCP", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            named(self.network.as_ref(), &self.network_id),
            self.cidr.to_string(),
            self.gateway.to_string(),
            yes(self.dhcp),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        filled(vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("network", named(self.network.as_ref(), &self.network_id)),
            ("cidr", self.cidr.to_string()),
            ("gateway", self.gateway.to_string()),
            ("dns", joined(&self.dns, ", ")),
            ("ranges", lines(self.allocation.iter().map(ToString::to_string))),
            ("routes", lines(self.host_routes.iter().map(|r| format!("{} by {}", r.destination, r.next_hop)))),
            ("dhcp", yes(self.dhcp)),
            ("created", time(self.created_at)),
        ])
    }
}

impl Row for Port {
    const HEADER: &'static [&'static str] =
        &["NAME", "NETWORK", "ADDRESSES", "FLOATING", "STATUS", "INSTANCE", "MAC", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            text(self.name.as_ref()),
            named(self.network.as_ref(), &self.network_id),
            joined(&self.addresses, ","),
            joined(&self.floating_ips, ","),
            word(&self.status),
            text(self.instance.as_ref()),
            self.mac.to_string(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let groups = self.security_groups.iter().map(|g| named(g.name.as_ref(), &g.id)).collect::<Vec<_>>();
        let limit = self.rate_limit;
        let limited = limit.to_instance_bps > 0 || limit.from_instance_bps > 0;
        let rate = format!("in {}, out {}", show_rate(limit.to_instance_bps), show_rate(limit.from_instance_bps));
        let instance = self.instance_id.map(|id| named(self.instance.as_ref(), &id));
        filled(vec![
            ("name", text(self.name.as_ref())),
            ("id", self.id.to_string()),
            ("network", named(self.network.as_ref(), &self.network_id)),
            ("mac", self.mac.to_string()),
            ("addresses", joined(&self.addresses, ", ")),
            ("floating IPs", joined(&self.floating_ips, ", ")),
            ("allowed addresses", joined(&self.allowed_addresses, ", ")),
            (
                "security groups",
                if groups.is_empty() { "none: all traffic is dropped".to_owned() } else { groups.join(", ") },
            ),
            ("rate limit", if limited { rate } else { String::new() }),
            ("status", word(&self.status)),
            ("reason", self.status_reason.clone()),
            ("instance", instance.unwrap_or_else(|| "none".to_owned())),
            ("host", text(self.host_id.as_ref())),
            ("created", time(self.created_at)),
        ])
    }
}

impl Row for Nic {
    const HEADER: &'static [&'static str] = &["NETWORK", "ADDRESSES", "FLOATING", "MAC", "PORT"];

    fn cells(&self) -> Vec<String> {
        vec![
            named(self.network.as_ref(), &self.network_id),
            joined(&self.addresses, ","),
            joined(&self.floating_ips, ","),
            self.mac.to_string(),
            self.port_id.to_string(),
        ]
    }
}

impl Row for PortTraffic {
    const HEADER: &'static [&'static str] = &["RECEIVED", "SENT", "DROPPED"];

    fn cells(&self) -> Vec<String> {
        let dropped: u64 = self.drops.values().sum();
        vec![self.rx_packets.to_string(), self.tx_packets.to_string(), dropped.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let drops = self.drops.iter().map(|(reason, packets)| format!("{packets} packets: {reason}"));
        let drops = lines(drops);
        vec![
            ("received", format!("{} packets, {} bytes", self.rx_packets, self.rx_bytes)),
            ("sent", format!("{} packets, {} bytes", self.tx_packets, self.tx_bytes)),
            ("dropped", if drops.is_empty() { "none".to_owned() } else { drops }),
            ("counted", format!("{} s ago", self.age_ms / 1000)),
        ]
    }
}

impl Row for Router {
    const HEADER: &'static [&'static str] = &["NAME", "NETWORK", "EXTERNAL NETWORK", "SOURCE NAT", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            named(self.network.as_ref(), &self.network_id),
            named(self.external_network.as_ref(), &self.external_network_id),
            yes(self.source_nat),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("network", named(self.network.as_ref(), &self.network_id)),
            ("external network", named(self.external_network.as_ref(), &self.external_network_id)),
            ("source NAT", yes(self.source_nat)),
            ("created", time(self.created_at)),
        ]
    }
}

/// Whom a floating IP stands for.
fn holder(floating_ip: &FloatingIp) -> String {
    match (floating_ip.instance_id, floating_ip.port_id) {
        (Some(id), _) => named(floating_ip.instance.as_ref(), &id),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => String::new(),
    }
}

impl Row for FloatingIp {
    const HEADER: &'static [&'static str] =
        &["ADDRESS", "INSTANCE", "FIXED IP", "EXTERNAL NETWORK", "DESCRIPTION", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.address.to_string(),
            holder(self),
            text(self.fixed_ip.as_ref()),
            named(self.external_network.as_ref(), &self.external_network_id),
            self.description.clone(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let holder = holder(self);
        filled(vec![
            ("address", self.address.to_string()),
            ("id", self.id.to_string()),
            ("mapped to", if holder.is_empty() { "nothing".to_owned() } else { holder }),
            ("fixed IP", text(self.fixed_ip.as_ref())),
            ("port", text(self.port_id.as_ref())),
            ("port status", self.port_status.map_or(String::new(), |status| word(&status))),
            ("external network", named(self.external_network.as_ref(), &self.external_network_id)),
            ("description", self.description.clone()),
            ("created", time(self.created_at)),
        ])
    }
}

/// "in tcp 22 from 10.0.0.0/8".
fn rule_line(rule: &SecurityRule) -> String {
    let (direction, toward) = match rule.direction {
        domain::network::Direction::Ingress => ("in ", "from"),
        domain::network::Direction::Egress => ("out", "to"),
    };
    format!("{direction} {} {toward} {}", what(rule), other_end(rule))
}

fn what(rule: &SecurityRule) -> String {
    let mut what = rule.protocol.clone().unwrap_or_else(|| "everything".to_owned());
    for part in [
        rule.port_range.clone(),
        rule.icmp_type.map(|t| format!("type {t}")),
        rule.icmp_code.map(|c| format!("code {c}")),
    ] {
        what.extend(part.map(|part| format!(" {part}")));
    }
    what
}

fn other_end(rule: &SecurityRule) -> String {
    match (&rule.remote_cidr, rule.remote_group_id) {
        (Some(cidr), _) => cidr.to_string(),
        (None, Some(id)) => format!("group {}", named(rule.remote_group.as_ref(), &id)),
        (None, None) => format!("any {}", word(&rule.ethertype)),
    }
}

impl Row for SecurityRule {
    const HEADER: &'static [&'static str] = &["DIRECTION", "TRAFFIC", "REMOTE", "DESCRIPTION", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![word(&self.direction), what(self), other_end(self), self.description.clone(), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        filled(vec![
            ("id", self.id.to_string()),
            ("direction", word(&self.direction)),
            ("traffic", what(self)),
            ("remote", other_end(self)),
            ("description", self.description.clone()),
        ])
    }
}

impl Row for SecurityGroup {
    const HEADER: &'static [&'static str] = &["NAME", "RULES", "DESCRIPTION", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_string(), self.rules.len().to_string(), self.description.clone(), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let rules = self.rules.iter().map(|rule| format!("{}  {}", rule.id, rule_line(rule)));
        filled(vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("description", self.description.clone()),
            ("rules", if self.rules.is_empty() { "none: all traffic is dropped".to_owned() } else { lines(rules) }),
            ("created", time(self.created_at)),
        ])
    }
}

impl Row for Peering {
    const HEADER: &'static [&'static str] = &["NAME", "NETWORK", "PEER", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            named(self.network.as_ref(), &self.network_id),
            named(self.peer_network.as_ref(), &self.peer_network_id),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("network", named(self.network.as_ref(), &self.network_id)),
            ("peer", named(self.peer_network.as_ref(), &self.peer_network_id)),
            ("created", time(self.created_at)),
        ]
    }
}

impl Row for ExternalNetwork {
    const HEADER: &'static [&'static str] = &["NAME", "SUBNETS", "DESCRIPTION", "ID"];

    fn cells(&self) -> Vec<String> {
        let subnets: Vec<_> = self.subnets.iter().map(|s| s.cidr).collect();
        vec![self.name.to_string(), joined(&subnets, ","), self.description.clone(), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let subnet = |s: &ExternalSubnet| {
            let ranges = if s.allocation.is_empty() { "all".to_owned() } else { joined(&s.allocation, ", ") };
            format!("{} (gateway {}; used: {ranges})", s.cidr, s.gateway)
        };
        filled(vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("description", self.description.clone()),
            ("subnets", lines(self.subnets.iter().map(subnet))),
            ("created", time(self.created_at)),
        ])
    }
}
