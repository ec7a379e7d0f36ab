//! What a new project finds: a network and a security group named `default`, and a way out if there is an outside.

use super::{DEFAULT, Decided, Draft};
use crate::network::plan::Words;
use domain::{
    Name, NetworkId, Problem, RouterId, SecurityGroupId, SecurityRuleId, SubnetId,
    network::{
        ChangeOutcome, Cidr, Direction, Ethertype, ExternalNetwork, Match, ObjectKind, PortRange, Protocol, Remote,
        SecurityGroupRule, SecurityRule, SubnetSpec,
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use store::ProjectNetworkDefaultInsert;

/// Of every project: ranges of two networks may overlap.
const IPV4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 20);

/// What the project's quota leaves room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fits {
    /// With its two subnets.
    pub network: bool,
    pub router: bool,
    /// With its rules.
    pub group: bool,
}

/// Instances reach everything; they are reached by one another, by ping and by SSH.
#[must_use]
pub fn rules(own: SecurityGroupId) -> Vec<SecurityRule> {
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

fn describe(rule: &SecurityRule) -> &'static str {
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

impl Draft<'_> {
    /// Whoever has one of that name already keeps it.
    pub fn defaults(&mut self, fits: Fits) -> Decided<ChangeOutcome> {
        let project_id = self.project()?;
        let invalid = |_| Problem::internal();
        let name: Name = DEFAULT.parse().map_err(invalid)?;
        self.op(ProjectNetworkDefaultInsert { project_id, made_at: self.ask.now });
        let mut touches = Vec::new();
        let has_network = self.topology.networks().any(|n| n.project_id == project_id && n.name == name);
        if fits.network && !has_network {
            let network = self.new_network(NetworkId::new(), &name, "made with the project", None)?;
            let (v4, prefix) = IPV4;
            self.new_subnet(
                SubnetId::new(),
                &network,
                &"ipv4".parse().map_err(invalid)?,
                &spec(v4.into(), prefix),
                true,
            );
            // A unique local prefix, 40 bits of it drawn (RFC 4193).
            let [a, b, c, d, e, ..] = (self.dice)().to_be_bytes();
            let v6 = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            self.new_subnet(SubnetId::new(), &network, &"ipv6".parse().map_err(invalid)?, &spec(v6.into(), 64), true);
            touches.push(super::named(ObjectKind::Network, &name, network.id));
            // The one that was there first.
            let key = |external: &&ExternalNetwork| (external.created_at, external.id);
            let outside = self.topology.external_networks().min_by_key(key).map(|external| external.id);
            let has_router = self.topology.routers().any(|r| r.project_id == project_id && r.name == name);
            if let Some(outside) = outside.filter(|_| fits.router && !has_router) {
                let router = self.new_router(RouterId::new(), &name, &network, outside, true);
                touches.push(super::named(ObjectKind::Router, &name, router.id));
            }
        }
        let has_group = self.topology.security_groups().any(|g| g.project_id == project_id && g.name == name);
        if fits.group && !has_group {
            let id = SecurityGroupId::new();
            let new = rules(id).into_iter().map(|rule| SecurityGroupRule {
                id: SecurityRuleId::new(),
                security_group_id: id,
                rule,
                description: describe(&rule).to_owned(),
            });
            let new: Vec<SecurityGroupRule> = new.collect();
            self.new_security_group(project_id, id, &name, "of ports that name no other", &new);
            touches.push(super::named(ObjectKind::SecurityGroup, &name, id));
        }
        self.plan.words.push(Words {
            event: "project.network_defaults".to_owned(),
            action: "project.network_defaults".to_owned(),
            object_kind: "project",
            object_id: project_id.to_string(),
            project_id: Some(project_id),
            message: format!("the project got its defaults: {}", touches.join(", ")),
        });
        Ok(ChangeOutcome { object: None, summary: "the project has its defaults".to_owned(), affects: touches })
    }
}
