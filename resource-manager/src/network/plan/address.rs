//! Claiming addresses, and the problems of those who can't have one.

use super::{Decision, Planner, planner::scoped};
use crate::network::{
    ipam::{Pool, Refusal, Scope},
    topology::NamedRow as _,
};
use domain::{
    ErrorKind, NetworkId, Problem, SubnetId,
    network::{FixedIp, FixedIpRequest, Network, Port, Subnet},
};
use std::net::IpAddr;

impl Planner<'_> {
    /// The addresses that a port of the network gets. If none is requested: one of an IPv4 subnet and one of an IPv6 subnet, as far as the
    /// network has them.
    pub(super) fn fixed_ips(&mut self, network: &Network, requested: &[FixedIpRequest]) -> Decision<Vec<FixedIp>> {
        if !requested.is_empty() {
            return requested.iter().map(|request| self.fixed_ip(network, *request)).collect();
        }
        let mut given = Vec::new();
        for v4 in [true, false] {
            if self.topology.subnets_of(network.id).any(|subnet| subnet.spec.cidr.v4() == v4) {
                let family = if v4 { "IPv4" } else { "IPv6" };
                let what = format!("the {family} subnets of network {}", network.name);
                given.push(self.any_fixed_ip(network, |pool| pool.cidr().v4() == v4, &what)?);
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

    fn any_fixed_ip(&mut self, network: &Network, of: impl Fn(&Pool) -> bool, what: &str) -> Decision<FixedIp> {
        let claimed = self.ipam.claim_any(network.id.0, of, self.context.now);
        let (subnet_id, address) = claimed.map_err(|refusal| exhausted(what, refusal))?;
        self.plan.claimed.push(scoped(network.id.0, address));
        let subnet_id = subnet_id.ok_or_else(|| Problem::not_found("subnet", address))?;
        Ok(FixedIp { subnet_id, address })
    }

    fn fixed_ip(&mut self, network: &Network, request: FixedIpRequest) -> Decision<FixedIp> {
        match request {
            FixedIpRequest::Address(address) => {
                let claimed = self.claim(network.id.0, address, || format!("network {}", network.name));
                let subnet_id = claimed.map_err(|problem| problem.with_field("fixed_ips", address.to_string()))?;
                let subnet_id = subnet_id.ok_or_else(|| Problem::not_found("subnet", address))?;
                Ok(FixedIp { subnet_id, address })
            }
            FixedIpRequest::AnyOf(subnet_id) => {
                let subnet: Subnet = self.fetch(subnet_id)?;
                if subnet.network_id != network.id {
                    return Err(Problem::invalid(
                        "fixed_ips",
                        format!("the subnet {} isn't one of network {}", subnet.name, network.name),
                    ));
                }
                let what = format!("the {}", subnet.describe());
                self.any_fixed_ip(network, |pool| pool.subnet_id() == Some(subnet_id), &what)
            }
        }
    }

    /// Claims a given address of a network or an external network, which `of` names.
    pub(super) fn claim(
        &mut self,
        scope: Scope,
        address: IpAddr,
        of: impl Fn() -> String,
    ) -> Decision<Option<SubnetId>> {
        match self.ipam.claim(scoped(scope, address), self.context.now) {
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
            Refusal::Quarantined { until } => Problem::new(
                ErrorKind::AlreadyExists,
                "address_quarantined",
                format!("the address {address} of {of} was released a moment ago and is quarantined until {until}"),
            )
            .with_hint("packets for its last owner are still on their way: try again then, or leave the address out"),
            Refusal::Full { .. } => exhausted(of, refusal),
        }
    }

    /// The port that has the address, where the caller may know it.
    fn holder(&self, scope: Scope, address: IpAddr) -> String {
        let has = |port: &&Port| port.fixed_ips.iter().any(|ip| ip.address == address);
        let port = self.topology.ports_of(NetworkId(scope)).find(has);
        port.map(|port| format!(" by {}", port.describe())).unwrap_or_default()
    }
}

/// `what` has no free address left.
pub(super) fn exhausted(what: &str, refusal: Refusal) -> Problem {
    let problem = Problem::new(ErrorKind::InvalidState, "no_free_address", format!("no address of {what} is free"));
    match refusal {
        Refusal::Full { next: Some(next) } => problem
            .with_hint(format!("the next one that is quarantined is free at {next}; or widen the allocation ranges")),
        Refusal::Full { next: None }
        | Refusal::Outside
        | Refusal::Gateway
        | Refusal::NotForHosts
        | Refusal::Taken
        | Refusal::Quarantined { .. } => {
            problem.with_hint("release what you don't need, widen the allocation ranges, or add a subnet")
        }
    }
}
