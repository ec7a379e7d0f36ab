//! Claiming addresses, and what is said to those who can't have one.

use super::{Decided, Draft, named, scoped, words::port_named};
use crate::network::ipam::{Refusal, Scope};
use domain::{
    ErrorKind, Problem,
    network::{FixedIp, FixedIpRequest, Network, ObjectKind},
};
use std::net::IpAddr;

impl Draft<'_> {
    /// The addresses that a port of the network gets. None asked for: one of an IPv4 subnet and one of an IPv6 subnet, as far as there are.
    pub(super) fn fixed_ips(&mut self, network: &Network, asked: &[FixedIpRequest]) -> Decided<Vec<FixedIp>> {
        if !asked.is_empty() {
            return asked.iter().map(|one| self.fixed_ip(network, *one)).collect();
        }
        let mut given = Vec::new();
        for v4 in [true, false] {
            if self.topology.subnets_of(network.id).any(|subnet| subnet.spec.cidr.v4() == v4) {
                let claimed = self.ipam.claim_any(network.id.0, |pool| pool.cidr().v4() == v4, self.ask.now);
                let family = if v4 { "IPv4" } else { "IPv6" };
                let what = format!("the {family} subnets of network {}", network.name);
                given.push(self.given(network, claimed.map_err(|refusal| exhausted(&what, refusal))?)?);
            }
        }
        if given.is_empty() {
            return Err(Problem::new(
                ErrorKind::InvalidState,
                "network_without_subnet",
                format!("the network {} has no subnet to take an address from", network.name),
            )
            .with_hint("make one first: iaasctl subnet create"));
        }
        Ok(given)
    }

    fn given(&mut self, network: &Network, claimed: (Option<domain::SubnetId>, IpAddr)) -> Decided<FixedIp> {
        let (subnet_id, address) = claimed;
        self.plan.claimed.push(scoped(network.id.0, address));
        let subnet_id = subnet_id.ok_or_else(|| Problem::not_found("subnet", address))?;
        Ok(FixedIp { subnet_id, address })
    }

    fn fixed_ip(&mut self, network: &Network, asked: FixedIpRequest) -> Decided<FixedIp> {
        match asked {
            FixedIpRequest::Address(address) => {
                let claimed = self.claim(network.id.0, address, || format!("network {}", network.name));
                let subnet_id = claimed.map_err(|problem| problem.with_field("fixed_ips", address.to_string()))?;
                let subnet_id = subnet_id.ok_or_else(|| Problem::not_found("subnet", address))?;
                Ok(FixedIp { subnet_id, address })
            }
            FixedIpRequest::AnyOf(subnet_id) => {
                let subnet = self.subnet(subnet_id)?;
                if subnet.network_id != network.id {
                    return Err(Problem::invalid(
                        "fixed_ips",
                        format!("the subnet {} isn't one of network {}", subnet.name, network.name),
                    ));
                }
                let claimed =
                    self.ipam.claim_any(network.id.0, |pool| pool.subnet_id() == Some(subnet_id), self.ask.now);
                let what = format!("the subnet {}", named(ObjectKind::Subnet, &subnet.name, subnet.id));
                let claimed = claimed.map_err(|refusal| exhausted(&what, refusal))?;
                self.given(network, claimed)
            }
        }
    }

    /// Claims a given address of a network or an external network, which `of` names.
    pub(super) fn claim(
        &mut self,
        scope: Scope,
        address: IpAddr,
        of: impl Fn() -> String,
    ) -> Decided<Option<domain::SubnetId>> {
        match self.ipam.claim(scoped(scope, address), self.ask.now) {
            Ok(subnet_id) => {
                self.plan.claimed.push(scoped(scope, address));
                Ok(subnet_id)
            }
            Err(refusal) => Err(self.refused(scope, address, &of(), refusal)),
        }
    }

    fn refused(&self, scope: Scope, address: IpAddr, of: &str, refusal: Refusal) -> Problem {
        const ANY: &str = "leave the address out to get one that is free";
        match refusal {
            Refusal::Outside => {
                let blocks: Vec<String> = self.ipam.pools(scope).iter().map(|pool| pool.cidr().to_string()).collect();
                let blocks =
                    if blocks.is_empty() { "has no subnets".to_owned() } else { format!("has {}", blocks.join(", ")) };
                Problem::new(
                    ErrorKind::InvalidArgument,
                    "address_outside_subnet",
                    format!("the address {address} is in no subnet of {of}, which {blocks}"),
                )
                .with_hint("give an address of one of its subnets, or none")
            }
            Refusal::Gateway => Problem::new(
                ErrorKind::InvalidArgument,
                "address_is_gateway",
                format!("the address {address} of {of} is the gateway's"),
            )
            .with_hint(ANY),
            Refusal::NotForHosts => Problem::new(
                ErrorKind::InvalidArgument,
                "address_not_usable",
                format!("the address {address} of {of} names the subnet itself, or all of it: no host can have it"),
            )
            .with_hint(ANY),
            Refusal::Taken => Problem::new(
                ErrorKind::AlreadyExists,
                "address_taken",
                format!("the address {address} of {of} is taken{}", self.holder(scope, address)),
            )
            .with_hint("choose another, or give none to get any that is free"),
            Refusal::Resting { until } => Problem::new(
                ErrorKind::AlreadyExists,
                "address_resting",
                format!("the address {address} of {of} was given back a moment ago and rests until {until}"),
            )
            .with_hint("packets for its last owner are still on their way: try again then, or leave the address out"),
            Refusal::Full { .. } => exhausted(of, refusal),
        }
    }

    /// Who has it, where that is the asker's to know.
    fn holder(&self, scope: Scope, address: IpAddr) -> String {
        let has = |port: &&domain::network::Port| port.fixed_ips.iter().any(|ip| ip.address == address);
        let port = self.topology.ports_of(domain::NetworkId(scope)).find(has);
        port.map(|port| format!(" by {}", port_named(port))).unwrap_or_default()
    }
}

/// `what` has no free address left.
pub(super) fn exhausted(what: &str, refusal: Refusal) -> Problem {
    let problem = Problem::new(ErrorKind::InvalidState, "no_free_address", format!("no address of {what} is free"));
    match refusal {
        Refusal::Full { next: Some(next) } => {
            problem.with_hint(format!("the next that rests is free at {next}; or widen the allocation ranges"))
        }
        Refusal::Full { next: None }
        | Refusal::Outside
        | Refusal::Gateway
        | Refusal::NotForHosts
        | Refusal::Taken
        | Refusal::Resting { .. } => {
            problem.with_hint("give back what you don't need, widen the allocation ranges, or add a subnet")
        }
    }
}
