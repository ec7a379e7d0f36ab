//! Peerings: two networks of a project whose instances reach each other.

use super::{Decision, Planner, Planning, Verb};
use crate::network::topology::NamedRow as _;
use domain::{
    ErrorKind, NetworkId, PeeringId, Problem,
    network::{ChangeOutcome, Network, NewPeering, NoPatch, Peering},
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{PeeringDelete, PeeringInsert};

fn peering_exists(one: &Network, two: &Network, existing: &Peering) -> Problem {
    Problem::new(
        ErrorKind::AlreadyExists,
        "peering_exists",
        format!("the networks {} and {} are peered already, by {}", one.name, two.name, existing.name),
    )
}

impl Planner<'_> {
    /// The network and its peers: what a new peer of it will reach.
    fn with_peers(&self, network: &Network) -> BTreeSet<NetworkId> {
        self.topology.peers_of(network.id).chain([network.id]).collect()
    }

    /// No range of the network overlaps with one of the others.
    fn check_no_overlap(&self, network: &Network, others: &BTreeSet<NetworkId>) -> Decision<()> {
        for subnet in self.topology.subnets_of(network.id) {
            if let Some((other, taken)) = self.overlap(subnet.spec.cidr, others) {
                let (cidr, name) = (subnet.spec.cidr, &network.name);
                return Err(Problem::new(
                    ErrorKind::InvalidState,
                    "subnet_overlaps",
                    format!(
                        "{cidr} of network {name} overlaps {taken} of network {}: an address could mean either",
                        other.name
                    ),
                )
                .with_hint(
                    "networks that reach each other need ranges of their own: use another subnet in one of them",
                ));
            }
        }
        Ok(())
    }
}

impl Planning for Peering {
    fn create(planner: &mut Planner<'_>, new: &NewPeering) -> Decision<ChangeOutcome> {
        let project_id = planner.project()?;
        let NewPeering { id, name, network_id, peer_network_id } = new.clone();
        let one: Network = planner.fetch(network_id.min(peer_network_id))?;
        let two: Network = planner.fetch(network_id.max(peer_network_id))?;
        let joins = |p: &&Peering| p.network_id == two.id || p.peer_network_id == two.id;
        if let Some(existing) = planner.topology.peerings_of(one.id).find(joins) {
            return Err(peering_exists(&one, &two, existing));
        }
        planner.takes_name::<Self>(&name, id, |other| other.project_id == project_id)?;
        let (of_one, of_two) = (planner.with_peers(&one), planner.with_peers(&two));
        planner.check_no_overlap(&one, &of_two)?;
        planner.check_no_overlap(&two, &of_one)?;
        let (network_id, peer_network_id, created_at) = (one.id, two.id, planner.context.now);
        let object = Self { id, project_id, name, network_id, peer_network_id, generation: 1, created_at };
        let name = object.name.clone();
        planner.op(PeeringInsert { id, project_id, name, network_id, peer_network_id, created_at });
        // A subnet that is added meanwhile to any of them must be checked again.
        for id in of_one.union(&of_two) {
            if let Some(network) = planner.topology.network(*id) {
                planner.bump(network);
            }
        }
        planner.uses(project_id, QuotaAmounts { peerings: 1, ..QuotaAmounts::NONE });
        planner.put(object.clone());
        Ok(planner.finish(Verb::Create, object, vec![one.describe(), two.describe()]))
    }

    fn update(_: &mut Planner<'_>, _: PeeringId, patch: &NoPatch) -> Decision<ChangeOutcome> {
        match *patch {}
    }

    fn delete(planner: &mut Planner<'_>, id: PeeringId) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let one: Network = planner.fetch(old.network_id)?;
        let two: Network = planner.fetch(old.peer_network_id)?;
        planner.op(PeeringDelete { id, expected_generation: old.generation });
        planner.bump(&one);
        planner.bump(&two);
        planner.uses(old.project_id, QuotaAmounts { peerings: -1, ..QuotaAmounts::NONE });
        planner.gone::<Self>(id);
        Ok(planner.finish(Verb::Delete, old, vec![one.describe(), two.describe()]))
    }
}
