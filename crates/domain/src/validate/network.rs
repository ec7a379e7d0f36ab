//! Networks: bounds that several kinds of objects share. Those of one kind stand in its file (`network/object/`).

use super::Violations;
use crate::{
    ErrorKind, Problem, limits,
    network::{Cidr, ExternalSubnet, MTU_MAX, MTU_MIN, MacAddr, RateLimit},
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

/// What a new port is requested to have, whether a person or an instance asks.
pub fn new_port(violations: &mut Violations, fixed_ips: usize, security_groups: usize, mac: Option<MacAddr>) {
    violations.at_most("fixed_ips", fixed_ips, limits::FIXED_IPS_PER_PORT);
    violations.at_most("security_groups", security_groups, limits::SECURITY_GROUPS_PER_PORT);
    self::mac(violations, "mac", mac);
}

/// A port that may send from any address poses as others; so everybody may allow blocks of the port's own network only, and a system
/// administrator any. What the port has (`granted`) it may keep.
pub fn allowed_addresses(field: &str, blocks: &[Cidr], granted: &[Cidr], subnets: &[Cidr]) -> Result<(), Problem> {
    let inside = |block: Cidr| granted.contains(&block) || subnets.iter().any(|subnet| subnet.covers(block));
    let Some((at, block)) = blocks.iter().enumerate().find(|(_, block)| !inside(**block)) else { return Ok(()) };
    let detail = format!("{block} is not inside a subnet of the port's network");
    let problem = Problem::new(ErrorKind::PermissionDenied, "permission_denied", detail);
    Err(problem
        .with_field(format!("{field}/{at}"), "not inside a subnet of the network")
        .with_hint("a system administrator can allow a port addresses from elsewhere"))
}

/// The numbers of resolvers, allocation ranges and host routes.
pub(crate) fn subnet_lists(violations: &mut Violations, [dns, allocation, host_routes]: [usize; 3]) {
    violations.at_most("dns", dns, limits::DNS_SERVERS_PER_SUBNET);
    violations.at_most("allocation", allocation, limits::ALLOCATION_RANGES_PER_SUBNET);
    violations.at_most("host_routes", host_routes, limits::HOST_ROUTES_PER_SUBNET);
}

/// An external network has at least one block of addresses: without any nothing could leave by it.
pub fn external_subnets(violations: &mut Violations, field: &str, count: usize) {
    violations.within(field, count, &(1..=limits::SUBNETS_PER_EXTERNAL_NETWORK));
}

pub(crate) fn external_ranges(violations: &mut Violations, subnets: &[ExternalSubnet]) {
    for (at, subnet) in subnets.iter().enumerate().take(limits::SUBNETS_PER_EXTERNAL_NETWORK) {
        let (field, count) = (format!("subnets/{at}/allocation"), subnet.allocation.len());
        violations.at_most(&field, count, limits::ALLOCATION_RANGES_PER_SUBNET);
    }
}
