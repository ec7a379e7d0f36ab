//! Floating IPs: an IPv4 address of an external network that stands for one of a port's.

use super::{Decided, Deed, Draft, address::exhausted, check_description, named, scoped, words::port_named};
use crate::network::topology::{Key, Learned};
use domain::{
    ErrorKind, ExternalNetworkId, FloatingIpId, PortId, Problem,
    network::{
        ChangeOutcome, FloatingIp, FloatingIpPatch, FloatingTarget, NetworkObject, NewFloatingIp, ObjectKind, Port,
        PortState,
    },
    quota::QuotaAmounts,
};
use std::net::IpAddr;
use store::{AddressOwner, FloatingIpChange, FloatingIpDelete, FloatingIpInsert};

impl Draft<'_> {
    /// The port and its address that it shall stand for. `own` None: a new one.
    fn target(
        &mut self,
        own: Option<FloatingIpId>,
        external_network_id: ExternalNetworkId,
        target: &FloatingTarget,
    ) -> Decided<Option<(Port, IpAddr)>> {
        let FloatingTarget::Port { port_id, fixed_ip } = target else { return Ok(None) };
        let port = self.port(*port_id)?;
        if port.state == PortState::Releasing {
            return Err(Problem::invalid_state(format!("the {} goes with its instance", port_named(&port))));
        }
        let fixed_ip = self.stands_for(&port, *fixed_ip)?;
        self.routed(&port, external_network_id)?;
        let other = self.topology.floating_ips_of(port.id).find(|f| f.fixed_ip == Some(fixed_ip) && Some(f.id) != own);
        if let Some(other) = other {
            return Err(Problem::new(
                ErrorKind::AlreadyExists,
                "floating_ip_exists",
                format!("the floating IP {} stands for {fixed_ip} of the {} already", other.address, port_named(&port)),
            )
            .with_hint("dissociate that one first, or choose another address of the port"));
        }
        Ok(Some((port, fixed_ip)))
    }

    fn stands_for(&self, port: &Port, asked: Option<IpAddr>) -> Decided<IpAddr> {
        match asked {
            Some(address) if !port.fixed_ips.iter().any(|ip| ip.address == address) => {
                Err(Problem::invalid("fixed_ip", format!("{address} isn't an address of the {}", port_named(port))))
            }
            Some(address) if address.is_ipv6() => Err(Problem::invalid(
                "fixed_ip",
                format!("{address} is IPv6: a floating IP stands for an IPv4 address"),
            )),
            Some(address) => Ok(address),
            None => port.fixed_ips.iter().map(|ip| ip.address).find(IpAddr::is_ipv4).ok_or_else(|| {
                Problem::new(
                    ErrorKind::InvalidState,
                    "target_without_ipv4",
                    format!("the {} has no IPv4 address that a floating IP could stand for", port_named(port)),
                )
                .with_hint("give its network an IPv4 subnet, and the instance a card with an address of it")
            }),
        }
    }

    /// The port's network has a router to where the floating IP is of.
    fn routed(&mut self, port: &Port, external_network_id: ExternalNetworkId) -> Decided<()> {
        let router = self.topology.router_of(port.network_id);
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

    pub(super) fn floating_ip_create(&mut self, new: &NewFloatingIp) -> Decided<ChangeOutcome> {
        let NewFloatingIp { id, external_network_id, address, description, target } = new;
        let (id, external_network_id, address) = (*id, *external_network_id, *address);
        let project_id = self.project()?;
        check_description(description)?;
        let external = self.external_network(external_network_id)?;
        let target = self.target(None, external_network_id, target)?;
        let scope = external_network_id.0;
        let address = match address {
            Some(address) if address.is_ipv6() => {
                return Err(Problem::invalid("address", format!("{address} is IPv6: floating IPs are IPv4 addresses")));
            }
            Some(address) => {
                let claimed = self.claim(scope, address, || format!("external network {}", external.name));
                claimed.map_err(|problem| problem.with_field("address", address.to_string()))?;
                address
            }
            None => {
                let claimed = self.ipam.claim_any(scope, |pool| pool.cidr().v4(), self.ask.now);
                let what = format!("the IPv4 subnets of external network {}", external.name);
                let (_, address) = claimed.map_err(|refusal| exhausted(&what, refusal))?;
                self.plan.claimed.push(scoped(scope, address));
                address
            }
        };
        let touches = target.iter().map(|(port, _)| port_named(port)).collect();
        let object = FloatingIp {
            id,
            project_id,
            external_network_id,
            address,
            description: description.clone(),
            port_id: target.as_ref().map(|(port, _)| port.id),
            fixed_ip: target.as_ref().map(|(_, fixed_ip)| *fixed_ip),
            generation: 1,
            created_at: self.ask.now,
        };
        self.take(scoped(scope, address), None, AddressOwner::FloatingIp, id.to_string());
        self.op(FloatingIpInsert {
            id,
            project_id,
            external_network_id,
            address,
            description: object.description.clone(),
            port_id: object.port_id,
            fixed_ip: object.fixed_ip,
            created_at: object.created_at,
        });
        self.uses(project_id, QuotaAmounts { floating_ips: 1, ..QuotaAmounts::NONE });
        self.learn(Learned::FloatingIp(object.clone()));
        Ok(self.done(Deed::Create, NetworkObject::FloatingIp(object), address, touches))
    }

    fn floating_ip(&mut self, id: FloatingIpId) -> Decided<FloatingIp> {
        self.plan.seen.push(Key::FloatingIp(id));
        let mine = |floating: &&FloatingIp| Some(floating.project_id) == self.ask.project_id;
        self.topology.floating_ip(id).filter(mine).cloned().ok_or_else(|| Problem::not_found("floating IP", id))
    }

    pub(super) fn floating_ip_update(&mut self, id: FloatingIpId, patch: &FloatingIpPatch) -> Decided<ChangeOutcome> {
        let FloatingIpPatch { description, target } = patch;
        let was = self.floating_ip(id)?;
        self.fence(ObjectKind::FloatingIp, was.address, was.generation)?;
        let mut object = FloatingIp { generation: was.generation + 1, ..was.clone() };
        if let Some(description) = description {
            check_description(description)?;
            object.description.clone_from(description);
        }
        if let Some(target) = target {
            let target = self.target(Some(id), was.external_network_id, target)?;
            object.port_id = target.as_ref().map(|(port, _)| port.id);
            object.fixed_ip = target.as_ref().map(|(_, fixed_ip)| *fixed_ip);
        }
        let of = |id: Option<PortId>| id.and_then(|id| self.topology.port(id)).map(port_named);
        let mut touches: Vec<String> = of(was.port_id).into_iter().chain(of(object.port_id)).collect();
        touches.dedup();
        self.op(FloatingIpChange {
            id,
            expected_generation: was.generation,
            description: object.description.clone(),
            port_id: object.port_id,
            fixed_ip: object.fixed_ip,
        });
        self.learn(Learned::FloatingIp(object.clone()));
        Ok(self.done(Deed::Change, NetworkObject::FloatingIp(object), was.address, touches))
    }

    pub(super) fn floating_ip_delete(&mut self, id: FloatingIpId) -> Decided<ChangeOutcome> {
        let was = self.floating_ip(id)?;
        self.fence(ObjectKind::FloatingIp, was.address, was.generation)?;
        self.op(FloatingIpDelete { id, expected_generation: was.generation });
        self.release(scoped(was.external_network_id.0, was.address), id.to_string(), self.ask.quarantine_secs);
        self.uses(was.project_id, QuotaAmounts { floating_ips: -1, ..QuotaAmounts::NONE });
        self.learn(Learned::Gone(Key::FloatingIp(id)));
        let port = was
            .port_id
            .and_then(|id| self.topology.port(id))
            .map(|port| named(ObjectKind::Port, port_named(port), port.id));
        let touches = port.into_iter().collect();
        let address = was.address;
        Ok(self.done(Deed::Delete, NetworkObject::FloatingIp(was), address, touches))
    }
}
