//! Subnets. Ranges of a network don't overlap with each other, nor with those of any network that an instance of it, or of its peers, can
//! reach.

use super::{Decided, Deed, Draft, PoolChange, in_use, words::port_named};
use crate::network::topology::{Key, Learned};
use domain::{
    ErrorKind, Name, NetworkId, Problem, SubnetId,
    network::{
        ChangeOutcome, Cidr, InvalidSubnet, Network, NetworkObject, NewSubnet, ObjectKind, Subnet, SubnetPatch,
        SubnetSpec,
    },
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{SubnetDelete, SubnetInsert, SubnetUpdate};

pub(super) fn invalid_subnet(wrong: &InvalidSubnet) -> Problem {
    let (field, code) = match wrong {
        InvalidSubnet::Reserved { .. } | InvalidSubnet::TooSmall { .. } | InvalidSubnet::TooLarge { .. } => {
            ("cidr", "invalid_cidr")
        }
        InvalidSubnet::Gateway { .. } => ("gateway", "invalid_gateway"),
        InvalidSubnet::RangeOutside { .. } | InvalidSubnet::RangesOverlap { .. } => {
            ("allocation", "invalid_allocation")
        }
        InvalidSubnet::NextHop { .. } => ("host_routes", "invalid_host_route"),
        InvalidSubnet::Overlaps { .. } => {
            return Problem::new(ErrorKind::AlreadyExists, "subnet_overlaps", wrong.to_string())
                .with_field("cidr", wrong.to_string())
                .with_hint("choose a range that is free, or another network: ranges of two networks may overlap");
        }
    };
    Problem::new(ErrorKind::InvalidArgument, code, wrong.to_string()).with_field(field, wrong.to_string())
}

fn check(spec: &SubnetSpec, siblings: &[Cidr]) -> Decided<()> {
    spec.validate(siblings).map_err(|wrong| invalid_subnet(&wrong))
}

impl Draft<'_> {
    /// The networks that share a router's view with this one: its peers, and their peers.
    pub(super) fn reach(&self, id: NetworkId) -> BTreeSet<NetworkId> {
        let peers: BTreeSet<NetworkId> = self.topology.peers_of(id).collect();
        let further = peers.iter().flat_map(|peer| self.topology.peers_of(*peer));
        peers.iter().copied().chain(further).filter(|other| *other != id).collect()
    }

    /// Those of these networks that have a range that overlaps.
    pub(super) fn overlap(&self, cidr: Cidr, networks: &BTreeSet<NetworkId>) -> Option<(Network, Cidr)> {
        networks.iter().find_map(|id| {
            let other = self.topology.subnets_of(*id).find(|subnet| subnet.spec.cidr.overlaps(cidr))?;
            Some((self.topology.network(*id)?.clone(), other.spec.cidr))
        })
    }

    pub(super) fn subnet_create(&mut self, new: &NewSubnet) -> Decided<ChangeOutcome> {
        let NewSubnet { id, network_id, name, spec, dhcp } = new;
        let (id, network_id, dhcp) = (*id, *network_id, *dhcp);
        let network = self.network(network_id)?;
        let siblings: Vec<Cidr> = self.topology.subnets_of(network_id).map(|subnet| subnet.spec.cidr).collect();
        check(spec, &siblings)?;
        let reach = self.reach(network_id);
        if let Some((other, taken)) = self.overlap(spec.cidr, &reach) {
            let cidr = spec.cidr;
            let detail = format!(
                "{cidr} overlaps {taken} of network {}, which network {} is peered with (or shares a peer with)",
                other.name, network.name
            );
            return Err(Problem::new(ErrorKind::AlreadyExists, "subnet_overlaps", detail.clone())
                .with_field("cidr", detail)
                .with_hint("choose another range, or end the peering"));
        }
        self.free_name(ObjectKind::Subnet, name, |t| t.subnets_of(network_id).any(|subnet| subnet.name == *name))?;
        let object = self.new_subnet(id, &network, name, spec, dhcp);
        // Two that would overlap must not both stand, whichever networks they are of.
        self.touch(&network);
        let others: Vec<Network> = reach.iter().filter_map(|id| self.topology.network(*id).cloned()).collect();
        others.iter().for_each(|other| self.touch(other));
        Ok(self.done(Deed::Create, NetworkObject::Subnet(object), name, vec![touched(&network)]))
    }

    pub(super) fn new_subnet(
        &mut self,
        id: SubnetId,
        network: &Network,
        name: &Name,
        spec: &SubnetSpec,
        dhcp: bool,
    ) -> Subnet {
        let object = Subnet {
            id,
            project_id: network.project_id,
            network_id: network.id,
            name: name.clone(),
            spec: spec.clone(),
            dhcp,
            generation: 1,
            created_at: self.ask.now,
        };
        self.op(SubnetInsert {
            id,
            project_id: object.project_id,
            network_id: object.network_id,
            name: object.name.clone(),
            spec: object.spec.clone(),
            dhcp,
            created_at: object.created_at,
        });
        self.uses(object.project_id, QuotaAmounts { subnets: 1, ..QuotaAmounts::NONE });
        self.plan.pools.push(PoolChange::Put(network.id.0, Some(id), spec.clone()));
        self.learn(Learned::Subnet(object.clone()));
        object
    }

    pub(super) fn subnet_update(&mut self, id: SubnetId, patch: &SubnetPatch) -> Decided<ChangeOutcome> {
        let was = self.subnet(id)?;
        self.fence(ObjectKind::Subnet, &was.name, was.generation)?;
        let network = self.network(was.network_id)?;
        let mut object = Subnet { generation: was.generation + 1, ..was.clone() };
        let SubnetPatch { name, dns, allocation, host_routes, dhcp } = patch;
        if let Some(name) = name {
            let taken = |s: &Subnet| s.name == *name && s.id != id;
            self.free_name(ObjectKind::Subnet, name, |t| t.subnets_of(was.network_id).any(taken))?;
            object.name = name.clone();
        }
        let spec = &mut object.spec;
        spec.dns = dns.clone().unwrap_or_else(|| spec.dns.clone());
        spec.allocation = allocation.clone().unwrap_or_else(|| spec.allocation.clone());
        spec.host_routes = host_routes.clone().unwrap_or_else(|| spec.host_routes.clone());
        object.dhcp = dhcp.unwrap_or(object.dhcp);
        check(&object.spec, &[])?;
        self.op(SubnetUpdate {
            id,
            expected_generation: was.generation,
            name: object.name.clone(),
            spec: object.spec.clone(),
            dhcp: object.dhcp,
        });
        self.touch(&network);
        self.plan.pools.push(PoolChange::Put(network.id.0, Some(id), object.spec.clone()));
        self.learn(Learned::Subnet(object.clone()));
        let name = object.name.clone();
        Ok(self.done(Deed::Change, NetworkObject::Subnet(object), name, vec![touched(&network)]))
    }

    pub(super) fn subnet_delete(&mut self, id: SubnetId) -> Decided<ChangeOutcome> {
        let was = self.subnet(id)?;
        self.fence(ObjectKind::Subnet, &was.name, was.generation)?;
        let network = self.network(was.network_id)?;
        let ports = self.topology.ports_of(network.id);
        let users: Vec<String> =
            ports.filter(|port| port.fixed_ips.iter().any(|ip| ip.subnet_id == id)).map(port_named).collect();
        if !users.is_empty() {
            let hint = "delete these ports (or their instances) first";
            return Err(in_use(ObjectKind::Subnet, &was.name, &users, hint));
        }
        self.op(SubnetDelete { id, expected_generation: was.generation });
        self.touch(&network);
        self.uses(was.project_id, QuotaAmounts { subnets: -1, ..QuotaAmounts::NONE });
        self.plan.pools.push(PoolChange::RemoveSubnet(network.id.0, id));
        self.learn(Learned::Gone(Key::Subnet(id)));
        Ok(self.done(Deed::Delete, NetworkObject::Subnet(was.clone()), &was.name, vec![touched(&network)]))
    }
}

pub(super) fn touched(network: &Network) -> String {
    super::named(ObjectKind::Network, &network.name, network.id)
}
