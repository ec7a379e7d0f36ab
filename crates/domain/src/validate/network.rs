//! Networks: everything about a [`Change`] that can be judged without knowing what exists.

use super::Violations;
use crate::{
    Problem, limits,
    network::{Change, ExternalSubnet, MTU_MAX, MTU_MIN, MacAddr, PortChange, RateLimit, SubnetChange, SubnetSpec},
};

pub fn mtu(violations: &mut Violations, field: &str, mtu: Option<u32>) {
    mtu.into_iter().for_each(|mtu| violations.within(field, mtu, &(MTU_MIN..=MTU_MAX)));
}

pub fn mac(violations: &mut Violations, field: &str, mac: Option<MacAddr>) {
    if let Some(Err(error)) = mac.map(MacAddr::unicast) {
        violations.add(field, error.to_string());
    }
}

/// The limits' fields stand behind `at`, a prefix that ends with `/`.
pub fn rate_limit(violations: &mut Violations, at: &str, limit: RateLimit) {
    let (RateLimit { to_instance_bps, from_instance_bps }, most) = (limit, limits::PORT_RATE_BPS_MAX);
    for (field, bps) in [("to_instance_bps", to_instance_bps), ("from_instance_bps", from_instance_bps)] {
        violations.unless(bps <= most, &format!("{at}{field}"), || format!("at most {most}"));
    }
}

pub fn peers(violations: &mut Violations, field: &str, different: bool) {
    violations.unless(different, field, || "another network is expected".to_owned());
}

/// What a new port is asked to have, whether a person or an instance asks.
pub fn new_port(violations: &mut Violations, fixed_ips: usize, security_groups: usize, mac: Option<MacAddr>) {
    violations.at_most("fixed_ips", fixed_ips, limits::FIXED_IPS_PER_PORT);
    violations.at_most("security_groups", security_groups, limits::SECURITY_GROUPS_PER_PORT);
    self::mac(violations, "mac", mac);
}

pub fn change(change: &Change) -> Result<(), Problem> {
    let mut violations = Violations::default();
    let v = &mut violations;
    match change {
        Change::ExternalNetworkCreate { description, subnets, .. } => {
            v.description("description", description);
            external_subnets(v, "subnets", subnets.len());
            external_ranges(v, subnets);
        }
        Change::ExternalNetworkUpdate { description, subnets, .. } => {
            v.description("description", description.as_deref().unwrap_or_default());
            if let Some(subnets) = subnets {
                external_subnets(v, "subnets", subnets.len());
                external_ranges(v, subnets);
            }
        }
        Change::NetworkCreate { description, mtu, .. } => {
            v.description("description", description);
            self::mtu(v, "mtu", *mtu);
        }
        Change::SubnetCreate { spec, .. } => {
            let SubnetSpec { cidr: _, gateway: _, dns, allocation, host_routes } = spec;
            subnet_lists(v, [dns.len(), allocation.len(), host_routes.len()]);
        }
        Change::SubnetUpdate { change, .. } => {
            let SubnetChange { name: _, dns, allocation, host_routes, dhcp: _ } = change;
            let len = |list: Option<usize>| list.unwrap_or_default();
            subnet_lists(
                v,
                [
                    len(dns.as_ref().map(Vec::len)),
                    len(allocation.as_ref().map(Vec::len)),
                    len(host_routes.as_ref().map(Vec::len)),
                ],
            );
        }
        Change::PortCreate { mac, fixed_ips, allowed_addresses, security_group_ids, rate_limit, .. } => {
            new_port(v, fixed_ips.len(), security_group_ids.as_ref().map_or(0, Vec::len), *mac);
            v.at_most("allowed_addresses", allowed_addresses.len(), limits::ALLOWED_ADDRESSES_PER_PORT);
            self::rate_limit(v, "rate_limit/", *rate_limit);
        }
        Change::PortUpdate { change, .. } => {
            let PortChange { name: _, security_group_ids, allowed_addresses, rate_limit } = change;
            let groups = security_group_ids.as_ref().map_or(0, Vec::len);
            v.at_most("security_groups", groups, limits::SECURITY_GROUPS_PER_PORT);
            let allowed = allowed_addresses.as_ref().map_or(0, Vec::len);
            v.at_most("allowed_addresses", allowed, limits::ALLOWED_ADDRESSES_PER_PORT);
            self::rate_limit(v, "rate_limit/", rate_limit.unwrap_or_default());
        }
        Change::FloatingIpCreate { description, .. } | Change::SecurityRuleCreate { description, .. } => {
            v.description("description", description);
        }
        Change::NetworkUpdate { description, .. }
        | Change::FloatingIpUpdate { description, .. }
        | Change::SecurityGroupUpdate { description, .. } => {
            v.description("description", description.as_deref().unwrap_or_default());
        }
        Change::SecurityGroupCreate { description, rules, .. } => {
            v.description("description", description);
            if v.at_most("rules", rules.len(), limits::SECURITY_RULES_PER_REQUEST) {
                for (at, (_, _, description)) in rules.iter().enumerate() {
                    v.description(&format!("rules/{at}/description"), description);
                }
            }
        }
        Change::PeeringCreate { network_id, peer_network_id, .. } => {
            peers(v, "peer_network", network_id != peer_network_id);
        }
        Change::ProjectDefaults
        | Change::ExternalNetworkDelete { .. }
        | Change::NetworkDelete { .. }
        | Change::SubnetDelete { .. }
        | Change::PortDelete { .. }
        | Change::RouterCreate { .. }
        | Change::RouterUpdate { .. }
        | Change::RouterDelete { .. }
        | Change::FloatingIpDelete { .. }
        | Change::SecurityGroupDelete { .. }
        | Change::SecurityRuleDelete { .. }
        | Change::PeeringDelete { .. } => {}
    }
    violations.finish()
}

/// The numbers of resolvers, allocation ranges and host routes.
fn subnet_lists(violations: &mut Violations, [dns, allocation, host_routes]: [usize; 3]) {
    violations.at_most("dns", dns, limits::DNS_SERVERS_PER_SUBNET);
    violations.at_most("allocation", allocation, limits::ALLOCATION_RANGES_PER_SUBNET);
    violations.at_most("host_routes", host_routes, limits::HOST_ROUTES_PER_SUBNET);
}

/// An external network has at least one block of addresses: without any nothing could leave by it.
pub fn external_subnets(violations: &mut Violations, field: &str, count: usize) {
    violations.within(field, count, &(1..=limits::SUBNETS_PER_EXTERNAL_NETWORK));
}

fn external_ranges(violations: &mut Violations, subnets: &[ExternalSubnet]) {
    for (at, subnet) in subnets.iter().enumerate().take(limits::SUBNETS_PER_EXTERNAL_NETWORK) {
        let (field, count) = (format!("subnets/{at}/allocation"), subnet.allocation.len());
        violations.at_most(&field, count, limits::ALLOCATION_RANGES_PER_SUBNET);
    }
}
