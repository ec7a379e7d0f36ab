//! Floating IPs: an IPv4 address of an external network that stands for one of a port's.

use super::{Decision, Planner, Planning, Verb, address::exhausted, planner::scoped};
use crate::network::topology::NamedRow as _;
use domain::{
    ErrorKind, ExternalNetworkId, FloatingIpId, PortId, Problem,
    network::{
        ChangeOutcome, ExternalNetwork, FloatingIp, FloatingIpPatch, FloatingTarget, NewFloatingIp, Port, PortState,
        Router,
    },
    quota::QuotaAmounts,
};
use std::net::IpAddr;
use store::{AddressOwner, FloatingIpChange, FloatingIpDelete, FloatingIpInsert};

/// The address of the port that a floating IP stands for.
fn fixed_ip_of(port: &Port, requested: Option<IpAddr>) -> Decision<IpAddr> {
    match requested {
        Some(address) if !port.fixed_ips.iter().any(|ip| ip.address == address) => {
            Err(Problem::invalid("fixed_ip", format!("{address} isn't an address of the {}", port.describe())))
        }
        Some(address) if address.is_ipv6() => {
            Err(Problem::invalid("fixed_ip", format!("{address} is IPv6: a floating IP stands for an IPv4 address")))
        }
        Some(address) => Ok(address),
        None => port.fixed_ips.iter().map(|ip| ip.address).find(IpAddr::is_ipv4).ok_or_else(|| {
            Problem::new(
                ErrorKind::InvalidState,
                "target_without_ipv4",
                format!("the {} has no IPv4 address that a floating IP could stand for", port.describe()),
            )
            .with_hint("give its network an IPv4 subnet, and the instance a NIC with an address of it")
        }),
    }
}

impl Planner<'_> {
    /// The port and its address that a floating IP shall stand for. `own` is None for a new one.
    fn floating_target(
        &mut self,
        own: Option<FloatingIpId>,
        external_network_id: ExternalNetworkId,
        target: &FloatingTarget,
    ) -> Decision<Option<(Port, IpAddr)>> {
        let FloatingTarget::Port { port_id, fixed_ip } = target else { return Ok(None) };
        let port: Port = self.fetch(*port_id)?;
        if port.state == PortState::Releasing {
            return Err(Problem::invalid_state(format!("the {} goes with its instance", port.describe())));
        }
        let fixed_ip = fixed_ip_of(&port, *fixed_ip)?;
        self.check_routed(&port, external_network_id)?;
        let other = self.topology.floating_ips_of(port.id).find(|f| f.fixed_ip == Some(fixed_ip) && Some(f.id) != own);
        if let Some(other) = other {
            return Err(Problem::new(
                ErrorKind::AlreadyExists,
                "floating_ip_exists",
                format!("the floating IP {} stands for {fixed_ip} of the {} already", other.address, port.describe()),
            )
            .with_hint("dissociate that one first, or choose another address of the port"));
        }
        Ok(Some((port, fixed_ip)))
    }

    /// The port's network has a router to the floating IP's external network.
    fn check_routed(&mut self, port: &Port, external_network_id: ExternalNetworkId) -> Decision<()> {
        let router = self.topology.router_of(port.network_id);
        if let Some(router) = router {
            self.reads::<Router>(router.id);
        }
        if router.is_some_and(|router| router.external_network_id == external_network_id) {
            return Ok(());
        }
        let name = |id| self.topology.external_network(id).map_or_else(String::new, |n| n.name.to_string());
        let network = self.topology.network(port.network_id).map_or_else(String::new, |n| n.name.to_string());
        let leads = match router {
            Some(router) => format!("its router leads to {}", name(router.external_network_id)),
            None => "it has no router".to_owned(),
        };
        Err(Problem::new(
            ErrorKind::InvalidState,
            "network_not_routed",
            format!(
                "the network {network} doesn't lead to the external network {}: {leads}",
                name(external_network_id)
            ),
        )
        .with_hint("make a router from the network to that external network first: iaasctl router create"))
    }

    fn describe_port(&self, id: Option<PortId>) -> Option<String> {
        self.topology.port(id?).map(|port| port.describe())
    }
}

impl Planning for FloatingIp {
    fn create(planner: &mut Planner<'_>, new: &NewFloatingIp) -> Decision<ChangeOutcome> {
        let project_id = planner.project()?;
        let NewFloatingIp { id, external_network_id, address, description, target } = new.clone();
        let external: ExternalNetwork = planner.fetch(external_network_id)?;
        let target = planner.floating_target(None, external_network_id, &target)?;
        let scope = external_network_id.0;
        let address = match address {
            Some(address) if address.is_ipv6() => {
                return Err(Problem::invalid("address", format!("{address} is IPv6: floating IPs are IPv4 addresses")));
            }
            Some(address) => {
                let claimed = planner.claim(scope, address, || format!("external network {}", external.name));
                claimed.map_err(|problem| problem.with_field("address", address.to_string()))?;
                address
            }
            None => {
                let claimed = planner.ipam.claim_any(scope, |pool| pool.cidr().v4(), planner.context.now);
                let what = format!("the IPv4 subnets of external network {}", external.name);
                let (_, address) = claimed.map_err(|refusal| exhausted(&what, refusal))?;
                planner.plan.claimed.push(scoped(scope, address));
                address
            }
        };
        let others = target.iter().map(|(port, _)| port.describe()).collect();
        let (port_id, fixed_ip) = target.map(|(port, fixed_ip)| (port.id, fixed_ip)).unzip();
        let created_at = planner.context.now;
        planner.take_external(&external, address, AddressOwner::FloatingIp, id.to_string())?;
        planner.op(FloatingIpInsert {
            id,
            project_id,
            external_network_id,
            address,
            description: description.clone(),
            port_id,
            fixed_ip,
            created_at,
        });
        planner.uses(project_id, QuotaAmounts { floating_ips: 1, ..QuotaAmounts::NONE });
        let object = Self {
            id,
            project_id,
            external_network_id,
            address,
            description,
            port_id,
            fixed_ip,
            generation: 1,
            created_at,
        };
        planner.put(object.clone());
        Ok(planner.finish(Verb::Create, object, others))
    }

    fn update(planner: &mut Planner<'_>, id: FloatingIpId, patch: &FloatingIpPatch) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let FloatingIpPatch { description, target } = patch.clone();
        let mut object = Self { generation: old.generation + 1, ..old.clone() };
        object.description = description.unwrap_or(object.description);
        if let Some(target) = target {
            let target = planner.floating_target(Some(id), old.external_network_id, &target)?;
            (object.port_id, object.fixed_ip) = target.map(|(port, fixed_ip)| (port.id, fixed_ip)).unzip();
        }
        let ports = [old.port_id, object.port_id].into_iter().filter_map(|id| planner.describe_port(id));
        let mut others: Vec<String> = ports.collect();
        others.dedup();
        planner.op(FloatingIpChange {
            id,
            expected_generation: old.generation,
            description: object.description.clone(),
            port_id: object.port_id,
            fixed_ip: object.fixed_ip,
        });
        planner.put(object.clone());
        Ok(planner.finish(Verb::Change, object, others))
    }

    fn delete(planner: &mut Planner<'_>, id: FloatingIpId) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        planner.op(FloatingIpDelete { id, expected_generation: old.generation });
        let quarantine_secs = planner.context.quarantine_secs;
        planner.release(scoped(old.external_network_id.0, old.address), id.to_string(), quarantine_secs);
        planner.uses(old.project_id, QuotaAmounts { floating_ips: -1, ..QuotaAmounts::NONE });
        planner.gone::<Self>(id);
        let others = planner.describe_port(old.port_id).into_iter().collect();
        Ok(planner.finish(Verb::Delete, old, others))
    }
}
