//! What a request about networks may say at all, before anything is looked up. Pure. Every wrong field is named at once.

use super::{
    floating_ip::TargetAsked,
    rule::{self, RuleAsked},
};
use crate::{
    app::instance_check::{Wrong, check_key},
    v1::view::{
        external_network::{ExternalNetworkChange, ExternalNetworkCreate, ExternalSubnetRequest},
        floating_ip::{FloatingIpChange, FloatingIpCreate},
        network::{NetworkChange, NetworkCreate},
        peering::PeeringCreate,
        port::{PortChange, PortCreate},
        router::{RouterChange, RouterCreate},
        security_group::{SecurityGroupChange, SecurityGroupCreate, SecurityRuleCreate},
        subnet::{HostRouteRequest, SubnetChange, SubnetCreate},
    },
};
use domain::{
    Name, Problem, limits,
    network::{
        self, Cidr, ExternalSubnet, HostRoute, InvalidSubnet, IpRange, MTU_MAX, MTU_MIN, MacAddr, RateLimit, SubnetSpec,
    },
};
use std::{fmt::Display, net::IpAddr, str::FromStr};

const DNS_MAX: usize = 8;
const RANGES_MAX: usize = 64;
const ROUTES_MAX: usize = 64;
const FIXED_IPS_MAX: usize = 16;
const ALLOWED_MAX: usize = 64;
const GROUPS_MAX: usize = 16;
const RULES_MAX: usize = 200;
const EXTERNAL_SUBNETS_MAX: usize = 64;
const RATE_MAX: u64 = 1 << 50;

fn parsed<T: FromStr<Err: Display>>(wrong: &mut Wrong, field: &str, text: &str) -> Option<T> {
    text.parse().map_err(|error: T::Err| wrong.add(field, error.to_string())).ok()
}

fn address(wrong: &mut Wrong, field: &str, text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    wrong.unless(parsed.is_some(), field, || {
        let shown: String = text.chars().take(64).collect();
        format!("`{shown}` is not an IP address")
    });
    parsed
}

/// Each of a list, by its place in it.
fn each<T>(
    wrong: &mut Wrong,
    field: &str,
    most: usize,
    texts: &[String],
    one: impl Fn(&mut Wrong, &str, &str) -> Option<T>,
) -> Vec<T> {
    if texts.len() > most {
        wrong.add(field, format!("at most {most}"));
        return Vec::new();
    }
    texts.iter().enumerate().filter_map(|(at, text)| one(wrong, &format!("{field}/{at}"), text)).collect()
}

fn keys(wrong: &mut Wrong, field: &str, most: usize, keys: &[String]) {
    wrong.unless(keys.len() <= most, field, || format!("at most {most}"));
    for (at, key) in keys.iter().enumerate().take(most) {
        check_key(wrong, &format!("{field}/{at}"), key);
    }
}

fn name(wrong: &mut Wrong, text: &str) -> Option<Name> {
    parsed(wrong, "/name", text)
}

fn new_name(wrong: &mut Wrong, text: Option<&String>) -> Option<Name> {
    text.and_then(|text| name(wrong, text))
}

fn description(wrong: &mut Wrong, field: &str, text: &str) {
    let most = limits::DESCRIPTION_BYTES;
    wrong.unless(text.len() <= most, field, || format!("at most {most} bytes"));
}

/// All is there when nothing was wrong.
fn whole<T>(wrong: Wrong, value: Option<T>) -> Result<T, Problem> {
    wrong.finish()?;
    value.ok_or_else(Problem::internal)
}

pub fn network(body: &NetworkCreate) -> Result<Name, Problem> {
    let mut wrong = Wrong::default();
    let name = name(&mut wrong, &body.name);
    description(&mut wrong, "/description", &body.description);
    let mtu_ok = body.mtu.is_none_or(|mtu| (MTU_MIN..=MTU_MAX).contains(&mtu));
    wrong.unless(mtu_ok, "/mtu", || format!("{MTU_MIN} to {MTU_MAX}"));
    whole(wrong, name)
}

pub fn network_change(body: &NetworkChange) -> Result<Option<Name>, Problem> {
    let mut wrong = Wrong::default();
    let name = new_name(&mut wrong, body.name.as_ref());
    description(&mut wrong, "/description", body.description.as_deref().unwrap_or_default());
    wrong.finish()?;
    Ok(name)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetAsked {
    pub name: Name,
    pub spec: SubnetSpec,
}

/// The address after the block's own.
fn first_address(cidr: Cidr) -> IpAddr {
    match cidr.addr() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).saturating_add(1).into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).saturating_add(1).into()),
    }
}

fn routes(wrong: &mut Wrong, requests: &[HostRouteRequest]) -> Vec<HostRoute> {
    if requests.len() > ROUTES_MAX {
        wrong.add("/host_routes", format!("at most {ROUTES_MAX}"));
        return Vec::new();
    }
    let mut routes = Vec::with_capacity(requests.len());
    for (at, HostRouteRequest { destination, next_hop }) in requests.iter().enumerate() {
        let destination = parsed::<Cidr>(wrong, &format!("/host_routes/{at}/destination"), destination);
        let next_hop = address(wrong, &format!("/host_routes/{at}/next_hop"), next_hop);
        routes.extend(destination.zip(next_hop).map(|(destination, next_hop)| HostRoute { destination, next_hop }));
    }
    routes
}

/// Names the field that makes a subnet impossible.
fn impossible(wrong: &mut Wrong, at: &str, error: &InvalidSubnet) {
    let field = match error {
        InvalidSubnet::Reserved { .. }
        | InvalidSubnet::TooSmall { .. }
        | InvalidSubnet::TooLarge { .. }
        | InvalidSubnet::Overlaps { .. } => "cidr",
        InvalidSubnet::Gateway { .. } => "gateway",
        InvalidSubnet::RangeOutside { .. } | InvalidSubnet::RangesOverlap { .. } => "allocation",
        InvalidSubnet::NextHop { .. } => "host_routes",
    };
    wrong.add(format!("{at}/{field}"), error.to_string());
}

pub fn subnet(body: &SubnetCreate) -> Result<SubnetAsked, Problem> {
    let mut wrong = Wrong::default();
    let name = name(&mut wrong, &body.name);
    check_key(&mut wrong, "/network", &body.network);
    let cidr = parsed::<Cidr>(&mut wrong, "/cidr", &body.cidr);
    let gateway = match &body.gateway {
        Some(text) => address(&mut wrong, "/gateway", text),
        None => cidr.map(first_address),
    };
    let dns = each(&mut wrong, "/dns", DNS_MAX, &body.dns, address);
    let allocation = each(&mut wrong, "/allocation", RANGES_MAX, &body.allocation, parsed::<IpRange>);
    let host_routes = routes(&mut wrong, &body.host_routes);
    let spec = cidr.zip(gateway).map(|(cidr, gateway)| SubnetSpec { cidr, gateway, dns, allocation, host_routes });
    if let Some(Err(error)) = spec.as_ref().map(|spec| spec.validate(&[])) {
        impossible(&mut wrong, "", &error);
    }
    whole(wrong, name.zip(spec).map(|(name, spec)| SubnetAsked { name, spec }))
}

pub fn subnet_change(body: &SubnetChange) -> Result<network::SubnetChange, Problem> {
    let mut wrong = Wrong::default();
    let change = network::SubnetChange {
        name: new_name(&mut wrong, body.name.as_ref()),
        dns: body.dns.as_ref().map(|dns| each(&mut wrong, "/dns", DNS_MAX, dns, address)),
        allocation: body
            .allocation
            .as_ref()
            .map(|ranges| each(&mut wrong, "/allocation", RANGES_MAX, ranges, parsed::<IpRange>)),
        host_routes: body.host_routes.as_ref().map(|requests| routes(&mut wrong, requests)),
        dhcp: body.dhcp,
    };
    wrong.finish()?;
    Ok(change)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortAsked {
    pub name: Name,
    pub mac: Option<MacAddr>,
    pub allowed_addresses: Vec<Cidr>,
    pub rate_limit: RateLimit,
}

fn rate(wrong: &mut Wrong, limit: RateLimit) {
    for (field, bps) in [("to_instance_bps", limit.to_instance_bps), ("from_instance_bps", limit.from_instance_bps)] {
        wrong.unless(bps <= RATE_MAX, &format!("/rate_limit/{field}"), || format!("at most {RATE_MAX}"));
    }
}

/// Addresses or subnets: what they are is seen when the network's subnets are known.
pub fn fixed_ips(wrong: &mut Wrong, field: &str, asked: &[String]) {
    keys(wrong, field, FIXED_IPS_MAX, asked);
}

pub fn security_groups(wrong: &mut Wrong, field: &str, asked: Option<&Vec<String>>) {
    keys(wrong, field, GROUPS_MAX, asked.map_or(&[], Vec::as_slice));
}

pub fn port(body: &PortCreate) -> Result<PortAsked, Problem> {
    let mut wrong = Wrong::default();
    let name = name(&mut wrong, &body.name);
    check_key(&mut wrong, "/network", &body.network);
    let mac = body.mac.as_ref().and_then(|text| parsed::<MacAddr>(&mut wrong, "/mac", text));
    if let Some(Err(error)) = mac.map(MacAddr::unicast) {
        wrong.add("/mac", error.to_string());
    }
    fixed_ips(&mut wrong, "/fixed_ips", &body.fixed_ips);
    let allowed_addresses =
        each(&mut wrong, "/allowed_addresses", ALLOWED_MAX, &body.allowed_addresses, parsed::<Cidr>);
    security_groups(&mut wrong, "/security_groups", body.security_groups.as_ref());
    let rate_limit = body.rate_limit.unwrap_or_default().into();
    rate(&mut wrong, rate_limit);
    whole(wrong, name.map(|name| PortAsked { name, mac, allowed_addresses, rate_limit }))
}

/// But the security groups, which are looked up.
pub fn port_change(body: &PortChange) -> Result<network::PortChange, Problem> {
    let mut wrong = Wrong::default();
    security_groups(&mut wrong, "/security_groups", body.security_groups.as_ref());
    let change = network::PortChange {
        name: new_name(&mut wrong, body.name.as_ref()),
        security_group_ids: None,
        allowed_addresses: body
            .allowed_addresses
            .as_ref()
            .map(|blocks| each(&mut wrong, "/allowed_addresses", ALLOWED_MAX, blocks, parsed::<Cidr>)),
        rate_limit: body.rate_limit.map(RateLimit::from),
    };
    rate(&mut wrong, change.rate_limit.unwrap_or_default());
    wrong.finish()?;
    Ok(change)
}

pub fn router(body: &RouterCreate) -> Result<Name, Problem> {
    let mut wrong = Wrong::default();
    let name = name(&mut wrong, &body.name);
    check_key(&mut wrong, "/network", &body.network);
    if let Some(key) = &body.external_network {
        check_key(&mut wrong, "/external_network", key);
    }
    whole(wrong, name)
}

pub fn router_change(body: &RouterChange) -> Result<Option<Name>, Problem> {
    let mut wrong = Wrong::default();
    let name = new_name(&mut wrong, body.name.as_ref());
    wrong.finish()?;
    Ok(name)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloatingIpAsked {
    pub address: Option<IpAddr>,
    pub target: TargetAsked,
}

fn fixed_ip(wrong: &mut Wrong, text: Option<&String>, targeted: bool) -> Option<IpAddr> {
    wrong.unless(text.is_none() || targeted, "/fixed_ip", || "give it with a port or an instance".to_owned());
    text.and_then(|text| address(wrong, "/fixed_ip", text))
}

fn one_target(wrong: &mut Wrong, port: Option<&String>, instance: Option<&String>) {
    for (field, key) in [("/port", port), ("/instance", instance)] {
        if let Some(key) = key {
            check_key(wrong, field, key);
        }
    }
    let both = port.is_some() && instance.is_some();
    wrong.unless(!both, "/instance", || "give a port or an instance, not both".to_owned());
}

pub fn floating_ip(body: &FloatingIpCreate) -> Result<FloatingIpAsked, Problem> {
    let mut wrong = Wrong::default();
    if let Some(key) = &body.external_network {
        check_key(&mut wrong, "/external_network", key);
    }
    let wanted = body.address.as_ref().and_then(|text| address(&mut wrong, "/address", text));
    description(&mut wrong, "/description", &body.description);
    one_target(&mut wrong, body.port.as_ref(), body.instance.as_ref());
    let targeted = body.port.is_some() || body.instance.is_some();
    let fixed_ip = fixed_ip(&mut wrong, body.fixed_ip.as_ref(), targeted);
    wrong.finish()?;
    Ok(FloatingIpAsked { address: wanted, target: TargetAsked::of_create(body, fixed_ip) })
}

pub fn floating_ip_change(body: &FloatingIpChange) -> Result<Option<TargetAsked>, Problem> {
    let mut wrong = Wrong::default();
    description(&mut wrong, "/description", body.description.as_deref().unwrap_or_default());
    let port = body.port.as_ref().and_then(Option::as_ref);
    one_target(&mut wrong, port, body.instance.as_ref());
    if body.port == Some(None) {
        wrong.unless(body.instance.is_none(), "/instance", || "give a port or an instance, not both".to_owned());
    }
    let fixed_ip = fixed_ip(&mut wrong, body.fixed_ip.as_ref(), port.is_some() || body.instance.is_some());
    wrong.finish()?;
    Ok(TargetAsked::of_change(body, fixed_ip))
}

pub fn security_group(body: &SecurityGroupCreate) -> Result<(Name, Vec<RuleAsked>), Problem> {
    let mut wrong = Wrong::default();
    let name = name(&mut wrong, &body.name);
    description(&mut wrong, "/description", &body.description);
    let Some(given) = &body.rules else { return whole(wrong, name.map(|name| (name, rule::everything_out()))) };
    wrong.unless(given.len() <= RULES_MAX, "/rules", || format!("at most {RULES_MAX} at once"));
    let mut rules = Vec::with_capacity(given.len());
    for (at, rule) in given.iter().enumerate().take(RULES_MAX) {
        rules.extend(one_rule(&mut wrong, &format!("/rules/{at}"), rule));
    }
    whole(wrong, name.map(|name| (name, rules)))
}

pub fn security_group_change(body: &SecurityGroupChange) -> Result<Option<Name>, Problem> {
    let mut wrong = Wrong::default();
    let name = new_name(&mut wrong, body.name.as_ref());
    description(&mut wrong, "/description", body.description.as_deref().unwrap_or_default());
    wrong.finish()?;
    Ok(name)
}

fn one_rule(wrong: &mut Wrong, at: &str, body: &SecurityRuleCreate) -> Option<RuleAsked> {
    description(wrong, &format!("{at}/description"), &body.description);
    rule::rule(wrong, at, body)
}

pub fn security_rule(body: &SecurityRuleCreate) -> Result<RuleAsked, Problem> {
    let mut wrong = Wrong::default();
    let rule = one_rule(&mut wrong, "", body);
    whole(wrong, rule)
}

pub fn peering(body: &PeeringCreate) -> Result<Name, Problem> {
    let mut wrong = Wrong::default();
    let name = name(&mut wrong, &body.name);
    check_key(&mut wrong, "/network", &body.network);
    check_key(&mut wrong, "/peer_network", &body.peer_network);
    wrong.unless(body.network != body.peer_network, "/peer_network", || "another network is expected".to_owned());
    whole(wrong, name)
}

fn external_subnets(wrong: &mut Wrong, requests: &[ExternalSubnetRequest]) -> Vec<ExternalSubnet> {
    let counted = (1..=EXTERNAL_SUBNETS_MAX).contains(&requests.len());
    wrong.unless(counted, "/subnets", || format!("1 to {EXTERNAL_SUBNETS_MAX}"));
    let mut subnets: Vec<ExternalSubnet> = Vec::with_capacity(requests.len());
    for (at, request) in requests.iter().enumerate().take(EXTERNAL_SUBNETS_MAX) {
        let at = format!("/subnets/{at}");
        let cidr = parsed::<Cidr>(wrong, &format!("{at}/cidr"), &request.cidr);
        let gateway = match &request.gateway {
            Some(text) => address(wrong, &format!("{at}/gateway"), text),
            None => cidr.map(first_address),
        };
        let ranges = format!("{at}/allocation");
        let allocation = each(wrong, &ranges, RANGES_MAX, &request.allocation, parsed::<IpRange>);
        let Some((cidr, gateway)) = cidr.zip(gateway) else { continue };
        let subnet = ExternalSubnet { cidr, gateway, allocation };
        let siblings: Vec<Cidr> = subnets.iter().map(|s| s.cidr).collect();
        if let Err(error) = subnet.spec().validate(&siblings) {
            impossible(wrong, &at, &error);
        }
        subnets.push(subnet);
    }
    subnets
}

pub fn external_network(body: &ExternalNetworkCreate) -> Result<(Name, Vec<ExternalSubnet>), Problem> {
    let mut wrong = Wrong::default();
    let name = name(&mut wrong, &body.name);
    description(&mut wrong, "/description", &body.description);
    let subnets = external_subnets(&mut wrong, &body.subnets);
    whole(wrong, name.map(|name| (name, subnets)))
}

pub fn external_network_change(body: &ExternalNetworkChange) -> Result<Option<Vec<ExternalSubnet>>, Problem> {
    let mut wrong = Wrong::default();
    description(&mut wrong, "/description", body.description.as_deref().unwrap_or_default());
    let subnets = body.subnets.as_ref().map(|subnets| external_subnets(&mut wrong, subnets));
    wrong.finish()?;
    Ok(subnets)
}
