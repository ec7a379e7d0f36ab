//! What a new project finds: a network and a security group named `default`, and a way out if there is an outside.

use super::{Decision, Planner};
use crate::network::topology::{DEFAULT, NamedRow as _};
use domain::{
    Name, NetworkId, Problem, RouterId, SecurityGroupId, SecurityRuleId, SubnetId,
    network::{
        ChangeOutcome, Cidr, Direction, Ethertype, ExternalNetwork, Match, NewNetwork, NewRouter, NewSecurityGroup,
        NewSubnet, PortRange, Protocol, Remote, SecurityGroupRule, SecurityRule, SubnetSpec,
    },
};
use operation::Activity;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use store::ProjectNetworkDefaultInsert;

/// The IPv4 subnet of every default network: ranges of two networks may overlap.
const IPV4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 20);

/// Which of the defaults the project's quota allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuotaFit {
    /// The network with its two subnets.
    pub network: bool,
    pub router: bool,
    /// The security group with its rules.
    pub group: bool,
}

/// Instances reach everything; they are reached by one another, by ping and by SSH.
fn rules(own: SecurityGroupId) -> Vec<SecurityRule> {
    let ssh = Match::Protocol {
        protocol: Protocol::Tcp,
        ports: Some(PortRange { first: 22, last: 22 }),
        icmp_type: None,
        icmp_code: None,
    };
    let icmp = Match::Protocol { protocol: Protocol::Icmp, ports: None, icmp_type: None, icmp_code: None };
    let kinds = [
        (Direction::Egress, Match::Any, Remote::Any),
        (Direction::Ingress, Match::Any, Remote::Group(own)),
        (Direction::Ingress, icmp, Remote::Any),
        (Direction::Ingress, ssh, Remote::Any),
    ];
    let both = kinds.into_iter().flat_map(|kind| Ethertype::ALL.map(|ethertype| (kind, ethertype)));
    both.map(|((direction, matches, remote), ethertype)| SecurityRule { direction, ethertype, matches, remote })
        .collect()
}

fn description(rule: &SecurityRule) -> &'static str {
    match (rule.direction, rule.matches, rule.remote) {
        (Direction::Egress, _, _) => "to anywhere",
        (Direction::Ingress, _, Remote::Group(_)) => "among members of the group",
        (Direction::Ingress, Match::Protocol { protocol: Protocol::Tcp, .. }, _) => "SSH from anywhere",
        (Direction::Ingress, _, _) => "ICMP from anywhere",
    }
}

/// What the gateway and DHCP serve of a block.
fn spec(addr: IpAddr, prefix: u8) -> SubnetSpec {
    let cidr = Cidr::around(addr, prefix);
    let gateway = match cidr.addr() {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from(u32::from(first) + 1)),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from(u128::from(first) + 1)),
    };
    SubnetSpec { cidr, gateway, dns: vec![], allocation: vec![], host_routes: vec![] }
}

impl Planner<'_> {
    /// A project that has an object of that name already keeps it.
    pub(super) fn defaults(&mut self, fit: QuotaFit) -> Decision<ChangeOutcome> {
        let project_id = self.project()?;
        let name = default_name(DEFAULT)?;
        self.op(ProjectNetworkDefaultInsert { project_id, made_at: self.context.now });
        let mut affects = Vec::new();
        let has_network = self.topology.networks().any(|n| n.project_id == project_id && n.name == name);
        if fit.network && !has_network {
            affects.extend(self.default_network(&name, fit.router)?);
        }
        let has_group = self.topology.security_groups().any(|g| g.project_id == project_id && g.name == name);
        if fit.group && !has_group {
            let id = SecurityGroupId::new();
            let rules = rules(id).into_iter().map(|rule| SecurityGroupRule {
                id: SecurityRuleId::new(),
                security_group_id: id,
                rule,
                description: description(&rule).to_owned(),
            });
            let (rules, description) = (rules.collect(), "of ports that name no other".to_owned());
            let group = self.insert_security_group(project_id, NewSecurityGroup { id, name, description, rules });
            affects.push(group.describe());
        }
        let kind = "project.network_defaults";
        let message = format!("the project got its defaults: {}", affects.join(", "));
        let activity = Activity::new("project", project_id, kind, kind, message).in_project(project_id);
        self.plan.activities.push(activity.with_data(serde_json::json!({ "affects": affects })));
        Ok(ChangeOutcome { object: None, summary: "the project has its defaults".to_owned(), affects })
    }

    fn default_network(&mut self, name: &Name, with_router: bool) -> Decision<Vec<String>> {
        let (id, description) = (NetworkId::new(), "made with the project".to_owned());
        let network = self.insert_network(NewNetwork { id, name: name.clone(), description, mtu: None })?;
        // A unique local prefix, 40 bits of which are random (RFC 4193).
        let [a, b, c, d, e, ..] = (self.rng)().to_be_bytes();
        let v6 = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let (v4, v4_prefix) = IPV4;
        for (name, spec) in [("ipv4", spec(v4.into(), v4_prefix)), ("ipv6", spec(v6.into(), 64))] {
            let (id, name) = (SubnetId::new(), default_name(name)?);
            self.insert_subnet(NewSubnet { id, network_id: network.id, name, spec, dhcp: true }, &network);
        }
        let mut affects = vec![network.describe()];
        // The way out leads to the external network that was there first.
        let age = |external: &&ExternalNetwork| (external.created_at, external.id);
        let external = self.topology.external_networks().min_by_key(age).map(|external| external.id);
        let has_router = self.topology.routers().any(|r| r.project_id == network.project_id && r.name == *name);
        if let Some(external_network_id) = external.filter(|_| with_router && !has_router) {
            let (id, name, network_id) = (RouterId::new(), name.clone(), network.id);
            let router =
                self.insert_router(NewRouter { id, name, network_id, external_network_id, source_nat: true }, &network);
            affects.push(router.describe());
        }
        Ok(affects)
    }
}

fn default_name(name: &str) -> Decision<Name> {
    name.parse().map_err(|_| Problem::internal())
}
