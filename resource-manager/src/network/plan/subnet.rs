//! Subnets. Ranges of a network don't overlap with each other, nor with those of any network that an instance of it, or of its peers, can
//! reach.

use super::{Decision, Planner, Planning, PoolChange, Verb, planner::in_use};
use crate::network::topology::NamedRow as _;
use domain::{
    ErrorKind, NetworkId, Problem, SubnetId,
    network::{ChangeOutcome, Cidr, InvalidSubnet, Network, NewSubnet, ObjectKind, Subnet, SubnetPatch, SubnetSpec},
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{SubnetDelete, SubnetInsert, SubnetUpdate};

pub(super) fn invalid_subnet(violation: &InvalidSubnet) -> Problem {
    let (field, code) = match violation {
        InvalidSubnet::Reserved { .. } | InvalidSubnet::TooSmall { .. } | InvalidSubnet::TooLarge { .. } => {
            ("cidr", "invalid_cidr")
        }
        InvalidSubnet::Gateway { .. } => ("gateway", "invalid_gateway"),
        InvalidSubnet::RangeOutside { .. } | InvalidSubnet::RangesOverlap { .. } => {
            ("allocation", "invalid_allocation")
        }
        InvalidSubnet::NextHop { .. } => ("host_routes", "invalid_host_route"),
        InvalidSubnet::Overlaps { .. } => {
            return Problem::new(ErrorKind::AlreadyExists, "subnet_overlaps", violation.to_string())
                .with_field("cidr", violation.to_string())
                .with_hint("choose a range that is free, or another network: ranges of two networks may overlap");
        }
    };
    Problem::new(ErrorKind::InvalidArgument, code, violation.to_string()).with_field(field, violation.to_string())
}

fn check(spec: &SubnetSpec, siblings: &[Cidr]) -> Decision<()> {
    spec.validate(siblings).map_err(|violation| invalid_subnet(&violation))
}

impl Planner<'_> {
    /// The networks that share a router's view with this one: its peers, and their peers.
    fn reach(&self, id: NetworkId) -> BTreeSet<NetworkId> {
        let peers: BTreeSet<NetworkId> = self.topology.peers_of(id).collect();
        let further = peers.iter().flat_map(|peer| self.topology.peers_of(*peer));
        peers.iter().copied().chain(further).filter(|other| *other != id).collect()
    }

    /// One of these networks that has a range that overlaps, and that range.
    pub(super) fn overlap(&self, cidr: Cidr, networks: &BTreeSet<NetworkId>) -> Option<(&Network, Cidr)> {
        networks.iter().find_map(|id| {
            let other = self.topology.subnets_of(*id).find(|subnet| subnet.spec.cidr.overlaps(cidr))?;
            Some((self.topology.network(*id)?, other.spec.cidr))
        })
    }

    pub(super) fn insert_subnet(&mut self, new: NewSubnet, network: &Network) -> Subnet {
        let NewSubnet { id, network_id, name, spec, dhcp } = new;
        let (project_id, created_at) = (network.project_id, self.context.now);
        let object = Subnet { id, project_id, network_id, name, spec, dhcp, generation: 1, created_at };
        let (name, spec) = (object.name.clone(), object.spec.clone());
        self.op(SubnetInsert { id, project_id, network_id, name, spec, dhcp, created_at });
        self.uses(project_id, QuotaAmounts { subnets: 1, ..QuotaAmounts::NONE });
        self.plan.pools.push(PoolChange::Put(network_id.0, Some(id), object.spec.clone()));
        self.put(object.clone());
        object
    }
}

impl Planning for Subnet {
    fn create(planner: &mut Planner<'_>, new: &NewSubnet) -> Decision<ChangeOutcome> {
        let network: Network = planner.fetch(new.network_id)?;
        let siblings: Vec<Cidr> = planner.topology.subnets_of(network.id).map(|subnet| subnet.spec.cidr).collect();
        check(&new.spec, &siblings)?;
        let reach = planner.reach(network.id);
        if let Some((other, taken)) = planner.overlap(new.spec.cidr, &reach) {
            let detail = format!(
                "{} overlaps {taken} of network {}, which network {} is peered with (or shares a peer with)",
                new.spec.cidr, other.name, network.name
            );
            return Err(Problem::new(ErrorKind::AlreadyExists, "subnet_overlaps", detail.clone())
                .with_field("cidr", detail)
                .with_hint("choose another range, or end the peering"));
        }
        planner.takes_name::<Self>(&new.name, new.id, |other| other.network_id == network.id)?;
        let object = planner.insert_subnet(new.clone(), &network);
        // Two subnets that overlap must not both stand, whichever networks they are of.
        planner.bump(&network);
        for id in reach {
            if let Some(other) = planner.topology.network(id) {
                planner.bump(other);
            }
        }
        Ok(planner.finish(Verb::Create, object, vec![network.describe()]))
    }

    fn update(planner: &mut Planner<'_>, id: SubnetId, patch: &SubnetPatch) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let network: Network = planner.fetch(old.network_id)?;
        let SubnetPatch { name, dns, allocation, host_routes, dhcp } = patch.clone();
        if let Some(name) = &name {
            planner.takes_name::<Self>(name, id, |other| other.network_id == old.network_id)?;
        }
        let spec = SubnetSpec {
            dns: dns.unwrap_or(old.spec.dns),
            allocation: allocation.unwrap_or(old.spec.allocation),
            host_routes: host_routes.unwrap_or(old.spec.host_routes),
            ..old.spec
        };
        check(&spec, &[])?;
        let (name, dhcp) = (name.unwrap_or(old.name), dhcp.unwrap_or(old.dhcp));
        let object = Self { name, spec, dhcp, generation: old.generation + 1, ..old };
        planner.op(SubnetUpdate {
            id,
            expected_generation: old.generation,
            name: object.name.clone(),
            spec: object.spec.clone(),
            dhcp,
        });
        planner.bump(&network);
        planner.plan.pools.push(PoolChange::Put(network.id.0, Some(id), object.spec.clone()));
        planner.put(object.clone());
        Ok(planner.finish(Verb::Change, object, vec![network.describe()]))
    }

    fn delete(planner: &mut Planner<'_>, id: SubnetId) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let network: Network = planner.fetch(old.network_id)?;
        let ports = planner.topology.ports_of(network.id);
        let ports = ports.filter(|port| port.fixed_ips.iter().any(|ip| ip.subnet_id == id));
        let users: Vec<String> = ports.map(|port| port.describe()).collect();
        if !users.is_empty() {
            let hint = "delete these ports (or their instances) first";
            return Err(in_use(ObjectKind::Subnet, &old.name, &users, hint));
        }
        planner.op(SubnetDelete { id, expected_generation: old.generation });
        planner.bump(&network);
        planner.uses(old.project_id, QuotaAmounts { subnets: -1, ..QuotaAmounts::NONE });
        planner.plan.pools.push(PoolChange::RemoveSubnet(network.id.0, id));
        planner.gone::<Self>(id);
        Ok(planner.finish(Verb::Delete, old, vec![network.describe()]))
    }
}
