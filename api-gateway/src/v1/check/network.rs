//! What a request about networks may say at all, before anything is looked up. Pure. The bounds are
//! `domain::validate`'s, which the resource-manager calls too; here are the names of the fields.

use super::{check_key, rule};
use crate::app::network::{
    external_network,
    floating_ip::{self, TargetRequest},
    networks, peering, port, router,
    rule::{RuleRequest, everything_out},
    security_group, subnet,
};
use api_types::{
    ExternalNetworkChange, ExternalNetworkCreate, ExternalSubnetRequest, FloatingIpChange, FloatingIpCreate,
    HostRouteRequest, NetworkChange, NetworkCreate, PeeringCreate, PortChange, PortCreate, RouterChange, RouterCreate,
    SecurityGroupChange, SecurityGroupCreate, SecurityRuleCreate, SubnetChange, SubnetCreate,
};
use domain::{
    Name, Problem, Violations, limits,
    network::{self, Cidr, ExternalSubnet, HostRoute, InvalidSubnet, IpRange, MacAddr, RateLimit, SubnetSpec},
    validate,
};
use std::net::IpAddr;

fn address(violations: &mut Violations, field: &str, text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    violations.unless(parsed.is_some(), field, || {
        let shown: String = text.chars().take(64).collect();
        format!("`{shown}` is not an IP address")
    });
    parsed
}

/// Each of a list, by its place in it.
fn each<T>(
    violations: &mut Violations,
    field: &str,
    most: usize,
    texts: &[String],
    one: impl Fn(&mut Violations, &str, &str) -> Option<T>,
) -> Vec<T> {
    if !violations.at_most(field, texts.len(), most) {
        return Vec::new();
    }
    texts.iter().enumerate().filter_map(|(at, text)| one(violations, &format!("{field}/{at}"), text)).collect()
}

fn keys(violations: &mut Violations, field: &str, most: usize, keys: &[String]) {
    violations.at_most(field, keys.len(), most);
    for (at, key) in keys.iter().enumerate().take(most) {
        check_key(violations, &format!("{field}/{at}"), key);
    }
}

fn name(violations: &mut Violations, text: &str) -> Option<Name> {
    violations.parse("/name", text)
}

fn new_name(violations: &mut Violations, text: Option<&String>) -> Option<Name> {
    text.and_then(|text| name(violations, text))
}

/// All is there when nothing is violated.
fn whole<T>(violations: Violations, value: Option<T>) -> Result<T, Problem> {
    violations.finish()?;
    value.ok_or_else(Problem::internal)
}

pub fn network(body: NetworkCreate) -> Result<networks::NetworkCreate, Problem> {
    let mut violations = Violations::default();
    let name = name(&mut violations, &body.name);
    violations.description("/description", &body.description);
    validate::network::mtu(&mut violations, "/mtu", body.mtu);
    let NetworkCreate { description, mtu, .. } = body;
    whole(violations, name.map(|name| networks::NetworkCreate { name, description, mtu }))
}

pub fn network_change(body: NetworkChange) -> Result<network::NetworkPatch, Problem> {
    let mut violations = Violations::default();
    let name = new_name(&mut violations, body.name.as_ref());
    violations.description("/description", body.description.as_deref().unwrap_or_default());
    violations.finish()?;
    Ok(network::NetworkPatch { name, description: body.description })
}

/// The address after the block's own.
fn first_address(cidr: Cidr) -> IpAddr {
    match cidr.addr() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).saturating_add(1).into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).saturating_add(1).into()),
    }
}

fn routes(violations: &mut Violations, requests: &[HostRouteRequest]) -> Vec<HostRoute> {
    if !violations.at_most("/host_routes", requests.len(), limits::HOST_ROUTES_PER_SUBNET) {
        return Vec::new();
    }
    let mut routes = Vec::with_capacity(requests.len());
    for (at, HostRouteRequest { destination, next_hop }) in requests.iter().enumerate() {
        let destination = violations.parse::<Cidr>(&format!("/host_routes/{at}/destination"), destination);
        let next_hop = address(violations, &format!("/host_routes/{at}/next_hop"), next_hop);
        routes.extend(destination.zip(next_hop).map(|(destination, next_hop)| HostRoute { destination, next_hop }));
    }
    routes
}

/// Names the field that makes a subnet impossible.
fn impossible(violations: &mut Violations, at: &str, error: &InvalidSubnet) {
    let field = match error {
        InvalidSubnet::Reserved { .. }
        | InvalidSubnet::TooSmall { .. }
        | InvalidSubnet::TooLarge { .. }
        | InvalidSubnet::Overlaps { .. } => "cidr",
        InvalidSubnet::Gateway { .. } => "gateway",
        InvalidSubnet::RangeOutside { .. } | InvalidSubnet::RangesOverlap { .. } => "allocation",
        InvalidSubnet::NextHop { .. } => "host_routes",
    };
    violations.add(format!("{at}/{field}"), error.to_string());
}

pub fn subnet(body: SubnetCreate) -> Result<subnet::SubnetCreate, Problem> {
    let mut violations = Violations::default();
    let name = name(&mut violations, &body.name);
    check_key(&mut violations, "/network", &body.network);
    let cidr = violations.parse::<Cidr>("/cidr", &body.cidr);
    let gateway = match &body.gateway {
        Some(text) => address(&mut violations, "/gateway", text),
        None => cidr.map(first_address),
    };
    let dns = each(&mut violations, "/dns", limits::DNS_SERVERS_PER_SUBNET, &body.dns, address);
    let allocation = each(
        &mut violations,
        "/allocation",
        limits::ALLOCATION_RANGES_PER_SUBNET,
        &body.allocation,
        Violations::parse::<IpRange>,
    );
    let host_routes = routes(&mut violations, &body.host_routes);
    let spec = cidr.zip(gateway).map(|(cidr, gateway)| SubnetSpec { cidr, gateway, dns, allocation, host_routes });
    if let Some(Err(error)) = spec.as_ref().map(|spec| spec.validate(&[])) {
        impossible(&mut violations, "", &error);
    }
    let (network, dhcp) = (body.network, body.dhcp.unwrap_or(true));
    whole(violations, name.zip(spec).map(|(name, spec)| subnet::SubnetCreate { network, name, spec, dhcp }))
}

pub fn subnet_change(body: SubnetChange) -> Result<network::SubnetPatch, Problem> {
    let mut violations = Violations::default();
    let change = network::SubnetPatch {
        name: new_name(&mut violations, body.name.as_ref()),
        dns: body.dns.as_ref().map(|dns| each(&mut violations, "/dns", limits::DNS_SERVERS_PER_SUBNET, dns, address)),
        allocation: body.allocation.as_ref().map(|ranges| {
            each(
                &mut violations,
                "/allocation",
                limits::ALLOCATION_RANGES_PER_SUBNET,
                ranges,
                Violations::parse::<IpRange>,
            )
        }),
        host_routes: body.host_routes.as_ref().map(|requests| routes(&mut violations, requests)),
        dhcp: body.dhcp,
    };
    violations.finish()?;
    Ok(change)
}

/// Addresses or subnets: which they are is decided when the network's subnets are known.
pub fn fixed_ips(violations: &mut Violations, field: &str, requested: &[String]) {
    keys(violations, field, limits::FIXED_IPS_PER_PORT, requested);
}

pub fn security_groups(violations: &mut Violations, field: &str, requested: Option<&Vec<String>>) {
    keys(violations, field, limits::SECURITY_GROUPS_PER_PORT, requested.map_or(&[], Vec::as_slice));
}

pub fn port(body: PortCreate) -> Result<port::PortCreate, Problem> {
    let mut violations = Violations::default();
    let name = name(&mut violations, &body.name);
    check_key(&mut violations, "/network", &body.network);
    let mac = body.mac.as_ref().and_then(|text| violations.parse::<MacAddr>("/mac", text));
    validate::network::mac(&mut violations, "/mac", mac);
    fixed_ips(&mut violations, "/fixed_ips", &body.fixed_ips);
    let allowed_addresses = each(
        &mut violations,
        "/allowed_addresses",
        limits::ALLOWED_ADDRESSES_PER_PORT,
        &body.allowed_addresses,
        Violations::parse::<Cidr>,
    );
    security_groups(&mut violations, "/security_groups", body.security_groups.as_ref());
    let rate_limit = body.rate_limit.unwrap_or_default().into();
    validate::network::rate_limit(&mut violations, "/rate_limit/", rate_limit);
    let PortCreate { network, fixed_ips, security_groups, .. } = body;
    let request = |name| port::PortCreate {
        network,
        name,
        mac,
        fixed_ips,
        allowed_addresses,
        any_address: false,
        security_groups,
        rate_limit,
    };
    whole(violations, name.map(request))
}

/// The security groups are still to be looked up.
pub fn port_change(body: PortChange) -> Result<port::PortChangeRequest, Problem> {
    let mut violations = Violations::default();
    security_groups(&mut violations, "/security_groups", body.security_groups.as_ref());
    let change = network::PortPatch {
        name: new_name(&mut violations, body.name.as_ref()),
        security_group_ids: None,
        allowed_addresses: body.allowed_addresses.as_ref().map(|blocks| {
            each(
                &mut violations,
                "/allowed_addresses",
                limits::ALLOWED_ADDRESSES_PER_PORT,
                blocks,
                Violations::parse::<Cidr>,
            )
        }),
        any_address: false,
        rate_limit: body.rate_limit.map(RateLimit::from),
    };
    validate::network::rate_limit(&mut violations, "/rate_limit/", change.rate_limit.unwrap_or_default());
    violations.finish()?;
    Ok(port::PortChangeRequest { change, security_groups: body.security_groups })
}

pub fn router(body: RouterCreate) -> Result<router::RouterCreate, Problem> {
    let mut violations = Violations::default();
    let name = name(&mut violations, &body.name);
    check_key(&mut violations, "/network", &body.network);
    if let Some(key) = &body.external_network {
        check_key(&mut violations, "/external_network", key);
    }
    let RouterCreate { name: _, network, external_network, source_nat } = body;
    let source_nat = source_nat.unwrap_or(true);
    whole(violations, name.map(|name| router::RouterCreate { name, network, external_network, source_nat }))
}

pub fn router_change(body: RouterChange) -> Result<network::RouterPatch, Problem> {
    let mut violations = Violations::default();
    let name = new_name(&mut violations, body.name.as_ref());
    violations.finish()?;
    Ok(network::RouterPatch { name, source_nat: body.source_nat })
}

fn fixed_ip(violations: &mut Violations, text: Option<&String>, targeted: bool) -> Option<IpAddr> {
    violations.unless(text.is_none() || targeted, "/fixed_ip", || "give it with a port or an instance".to_owned());
    text.and_then(|text| address(violations, "/fixed_ip", text))
}

fn one_target(violations: &mut Violations, port: Option<&String>, instance: Option<&String>) {
    for (field, key) in [("/port", port), ("/instance", instance)] {
        if let Some(key) = key {
            check_key(violations, field, key);
        }
    }
    let both = port.is_some() && instance.is_some();
    violations.unless(!both, "/instance", || "give a port or an instance, not both".to_owned());
}

pub fn floating_ip(body: FloatingIpCreate) -> Result<floating_ip::FloatingIpCreate, Problem> {
    let mut violations = Violations::default();
    if let Some(key) = &body.external_network {
        check_key(&mut violations, "/external_network", key);
    }
    let requested_address = body.address.as_ref().and_then(|text| address(&mut violations, "/address", text));
    violations.description("/description", &body.description);
    one_target(&mut violations, body.port.as_ref(), body.instance.as_ref());
    let targeted = body.port.is_some() || body.instance.is_some();
    let fixed_ip = fixed_ip(&mut violations, body.fixed_ip.as_ref(), targeted);
    violations.finish()?;
    let FloatingIpCreate { external_network, description, port, instance, .. } = body;
    let target = match (port, instance) {
        (Some(key), _) => TargetRequest::Port { key, fixed_ip },
        (None, Some(key)) => TargetRequest::Instance { key, fixed_ip },
        (None, None) => TargetRequest::Nothing,
    };
    Ok(floating_ip::FloatingIpCreate { external_network, address: requested_address, description, target })
}

pub fn floating_ip_change(body: FloatingIpChange) -> Result<floating_ip::FloatingIpChange, Problem> {
    let mut violations = Violations::default();
    violations.description("/description", body.description.as_deref().unwrap_or_default());
    let port = body.port.as_ref().and_then(Option::as_ref);
    one_target(&mut violations, port, body.instance.as_ref());
    if body.port == Some(None) {
        violations.unless(body.instance.is_none(), "/instance", || "give a port or an instance, not both".to_owned());
    }
    let fixed_ip = fixed_ip(&mut violations, body.fixed_ip.as_ref(), port.is_some() || body.instance.is_some());
    violations.finish()?;
    let target = match (body.port, body.instance) {
        (Some(Some(key)), _) => Some(TargetRequest::Port { key, fixed_ip }),
        (_, Some(key)) => Some(TargetRequest::Instance { key, fixed_ip }),
        (Some(None), None) => Some(TargetRequest::Nothing),
        (None, None) => None,
    };
    Ok(floating_ip::FloatingIpChange { description: body.description, target })
}

pub fn security_group(body: SecurityGroupCreate) -> Result<security_group::SecurityGroupCreate, Problem> {
    let mut violations = Violations::default();
    let name = name(&mut violations, &body.name);
    violations.description("/description", &body.description);
    let description = body.description;
    let request = |rules| move |name| security_group::SecurityGroupCreate { name, description, rules };
    let Some(given) = &body.rules else { return whole(violations, name.map(request(everything_out()))) };
    violations.at_most("/rules", given.len(), limits::SECURITY_RULES_PER_REQUEST);
    let mut rules = Vec::with_capacity(given.len());
    for (at, rule) in given.iter().enumerate().take(limits::SECURITY_RULES_PER_REQUEST) {
        rules.extend(one_rule(&mut violations, &format!("/rules/{at}"), rule));
    }
    whole(violations, name.map(request(rules)))
}

pub fn security_group_change(body: SecurityGroupChange) -> Result<network::SecurityGroupPatch, Problem> {
    let mut violations = Violations::default();
    let name = new_name(&mut violations, body.name.as_ref());
    violations.description("/description", body.description.as_deref().unwrap_or_default());
    violations.finish()?;
    Ok(network::SecurityGroupPatch { name, description: body.description })
}

fn one_rule(violations: &mut Violations, at: &str, body: &SecurityRuleCreate) -> Option<RuleRequest> {
    violations.description(&format!("{at}/description"), &body.description);
    rule::rule(violations, at, body)
}

pub fn security_rule(body: &SecurityRuleCreate) -> Result<RuleRequest, Problem> {
    let mut violations = Violations::default();
    let rule = one_rule(&mut violations, "", body);
    whole(violations, rule)
}

pub fn peering(body: PeeringCreate) -> Result<peering::PeeringCreate, Problem> {
    let mut violations = Violations::default();
    let name = name(&mut violations, &body.name);
    check_key(&mut violations, "/network", &body.network);
    check_key(&mut violations, "/peer_network", &body.peer_network);
    validate::network::peers(&mut violations, "/peer_network", body.network != body.peer_network);
    let PeeringCreate { name: _, network, peer_network } = body;
    whole(violations, name.map(|name| peering::PeeringCreate { name, network, peer_network }))
}

fn external_subnets(violations: &mut Violations, requests: &[ExternalSubnetRequest]) -> Vec<ExternalSubnet> {
    validate::network::external_subnets(violations, "/subnets", requests.len());
    let mut subnets: Vec<ExternalSubnet> = Vec::with_capacity(requests.len());
    for (at, request) in requests.iter().enumerate().take(limits::SUBNETS_PER_EXTERNAL_NETWORK) {
        let at = format!("/subnets/{at}");
        let cidr = violations.parse::<Cidr>(&format!("{at}/cidr"), &request.cidr);
        let gateway = match &request.gateway {
            Some(text) => address(violations, &format!("{at}/gateway"), text),
            None => cidr.map(first_address),
        };
        let ranges = format!("{at}/allocation");
        let allocation = each(
            violations,
            &ranges,
            limits::ALLOCATION_RANGES_PER_SUBNET,
            &request.allocation,
            Violations::parse::<IpRange>,
        );
        let Some((cidr, gateway)) = cidr.zip(gateway) else { continue };
        let subnet = ExternalSubnet { cidr, gateway, allocation };
        let siblings: Vec<Cidr> = subnets.iter().map(|s| s.cidr).collect();
        if let Err(error) = subnet.spec().validate(&siblings) {
            impossible(violations, &at, &error);
        }
        subnets.push(subnet);
    }
    subnets
}

pub fn external_network(body: ExternalNetworkCreate) -> Result<external_network::ExternalNetworkCreate, Problem> {
    let mut violations = Violations::default();
    let name = name(&mut violations, &body.name);
    violations.description("/description", &body.description);
    let subnets = external_subnets(&mut violations, &body.subnets);
    let description = body.description;
    whole(violations, name.map(|name| external_network::ExternalNetworkCreate { name, description, subnets }))
}

pub fn external_network_change(body: ExternalNetworkChange) -> Result<network::ExternalNetworkPatch, Problem> {
    let mut violations = Violations::default();
    violations.description("/description", body.description.as_deref().unwrap_or_default());
    let subnets = body.subnets.as_ref().map(|subnets| external_subnets(&mut violations, subnets));
    violations.finish()?;
    Ok(network::ExternalNetworkPatch { description: body.description, subnets })
}
