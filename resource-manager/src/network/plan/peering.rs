//! Peerings: two networks of a project whose instances reach each other.

use super::{Decided, Deed, Draft, named, subnet::touched};
use crate::network::topology::{Key, Learned};
use domain::{
    ErrorKind, NetworkId, PeeringId, Problem,
    network::{ChangeOutcome, Network, NetworkObject, NewPeering, ObjectKind, Peering},
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{PeeringDelete, PeeringInsert};

impl Draft<'_> {
    pub(super) fn peering_create(&mut self, new: &NewPeering) -> Decided<ChangeOutcome> {
        let NewPeering { id, name, network_id, peer_network_id } = new;
        let (id, network_id, peer_network_id) = (*id, *network_id, *peer_network_id);
        let project_id = self.project()?;
        let (one, two) =
            (self.network(network_id.min(peer_network_id))?, self.network(network_id.max(peer_network_id))?);
        if let Some(there) =
            self.topology.peerings_of(one.id).find(|p| p.network_id == two.id || p.peer_network_id == two.id)
        {
            return Err(Problem::new(
                ErrorKind::AlreadyExists,
                "peering_exists",
                format!("the networks {} and {} are peered already, by {}", one.name, two.name, there.name),
            ));
        }
        let peerings = self.topology.peerings_of(one.id).chain(self.topology.peerings_of(two.id));
        let taken = peerings.into_iter().any(|peering| peering.name == *name);
        self.free_name(ObjectKind::Peering, name, |_| taken)?;
        // Each will see the other, and each one's peers will too.
        let around = |network: &Network| -> BTreeSet<NetworkId> {
            self.topology.peers_of(network.id).chain([network.id]).collect()
        };
        let (of_one, of_two) = (around(&one), around(&two));
        for (network, others) in [(&one, &of_two), (&two, &of_one)] {
            for subnet in self.topology.subnets_of(network.id) {
                if let Some((other, taken)) = self.overlap(subnet.spec.cidr, others) {
                    return Err(Problem::new(
                        ErrorKind::InvalidState,
                        "subnet_overlaps",
                        format!(
                            "{} of network {} overlaps {taken} of network {}: an address could mean either",
                            subnet.spec.cidr, network.name, other.name
                        ),
                    )
                    .with_hint(
                        "networks that reach each other need ranges of their own: use another subnet in one of them",
                    ));
                }
            }
        }
        let object = Peering {
            id,
            project_id,
            name: name.clone(),
            network_id: one.id,
            peer_network_id: two.id,
            generation: 1,
            created_at: self.ask.now,
        };
        self.op(PeeringInsert {
            id,
            project_id,
            name: name.clone(),
            network_id: one.id,
            peer_network_id: two.id,
            created_at: object.created_at,
        });
        // A subnet that is added meanwhile to any of them must be looked at again.
        let concerned: BTreeSet<NetworkId> = of_one.union(&of_two).copied().collect();
        let concerned: Vec<Network> = concerned.iter().filter_map(|id| self.topology.network(*id).cloned()).collect();
        concerned.iter().for_each(|network| self.touch(network));
        self.uses(project_id, QuotaAmounts { peerings: 1, ..QuotaAmounts::NONE });
        self.learn(Learned::Peering(object.clone()));
        Ok(self.done(Deed::Create, NetworkObject::Peering(object), name, vec![touched(&one), touched(&two)]))
    }

    pub(super) fn peering_delete(&mut self, id: PeeringId) -> Decided<ChangeOutcome> {
        self.plan.seen.push(Key::Peering(id));
        let mine = |peering: &&Peering| Some(peering.project_id) == self.ask.project_id;
        let was = self.topology.peering(id).filter(mine).cloned().ok_or_else(|| Problem::not_found("peering", id))?;
        self.fence(ObjectKind::Peering, &was.name, was.generation)?;
        let (one, two) = (self.network(was.network_id)?, self.network(was.peer_network_id)?);
        self.op(PeeringDelete { id, expected_generation: was.generation });
        self.touch(&one);
        self.touch(&two);
        self.uses(was.project_id, QuotaAmounts { peerings: -1, ..QuotaAmounts::NONE });
        self.learn(Learned::Gone(Key::Peering(id)));
        let touches =
            vec![named(ObjectKind::Network, &one.name, one.id), named(ObjectKind::Network, &two.name, two.id)];
        Ok(self.done(Deed::Delete, NetworkObject::Peering(was.clone()), &was.name, touches))
    }
}
