//! Networks.

use super::{Decided, Deed, Draft, PoolChange, check_description, in_use, named, words::port_named};
use crate::network::topology::{Key, Learned};
use domain::{
    ErrorKind, Name, NetworkId, Problem,
    network::{ChangeOutcome, MTU_MAX, MTU_MIN, Network, NetworkObject, NetworkPatch, NewNetwork, ObjectKind, Vni},
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{NetworkChange, NetworkDelete, NetworkInsert};

/// The first that is free at or after the one that was drawn, around the range. None: all are taken.
pub(super) fn pick_vni((first, last): (u32, u32), taken: &BTreeSet<u32>, drawn: u64) -> Option<u32> {
    let size = u64::from(last - first) + 1;
    let start = first + u32::try_from(drawn % size).unwrap_or(0);
    // In each half, taken ones are walked over only while they are without a gap.
    let gap = |from: u32, to: u32| {
        let mut next = from;
        for vni in taken.range(from..=to) {
            if *vni != next {
                break;
            }
            next += 1;
        }
        (next <= to).then_some(next)
    };
    gap(start, last).or_else(|| if start > first { gap(first, start - 1) } else { None })
}

impl Draft<'_> {
    pub(super) fn vni(&mut self) -> Decided<Vni> {
        let taken: BTreeSet<u32> = self.topology.networks().map(|network| network.vni.get()).collect();
        let picked = pick_vni(self.ask.vni, &taken, (self.dice)());
        picked.and_then(|vni| Vni::try_from(vni).ok()).ok_or_else(|| {
            Problem::new(ErrorKind::InvalidState, "vnis_exhausted", "this cloud has as many networks as it can have")
                .with_hint("ask its operator to widen resource.vni_first to resource.vni_last")
        })
    }

    pub(super) fn network_create(&mut self, new: &NewNetwork) -> Decided<ChangeOutcome> {
        let NewNetwork { id, name, description, mtu } = new;
        let (id, mtu) = (*id, *mtu);
        let project_id = self.project()?;
        check_description(description)?;
        if let Some(mtu) = mtu
            && !(MTU_MIN..=MTU_MAX).contains(&mtu)
        {
            return Err(Problem::invalid("mtu", format!("must be {MTU_MIN} to {MTU_MAX}, not {mtu}")));
        }
        let taken = |n: &Network| n.project_id == project_id && n.name == *name;
        self.free_name(ObjectKind::Network, name, |t| t.networks().any(taken))?;
        let object = self.new_network(id, name, description, mtu)?;
        Ok(self.done(Deed::Create, NetworkObject::Network(object), name, vec![]))
    }

    pub(super) fn new_network(
        &mut self,
        id: NetworkId,
        name: &Name,
        description: &str,
        mtu: Option<u32>,
    ) -> Decided<Network> {
        let project_id = self.project()?;
        let object = Network {
            id,
            project_id,
            name: name.clone(),
            description: description.to_owned(),
            vni: self.vni()?,
            mtu,
            generation: 1,
            created_at: self.ask.now,
        };
        self.op(NetworkInsert {
            id,
            project_id,
            name: object.name.clone(),
            description: object.description.clone(),
            vni: object.vni,
            mtu,
            created_at: object.created_at,
        });
        self.uses(project_id, QuotaAmounts { networks: 1, ..QuotaAmounts::NONE });
        self.learn(Learned::Network(object.clone()));
        Ok(object)
    }

    pub(super) fn network_update(&mut self, id: NetworkId, patch: &NetworkPatch) -> Decided<ChangeOutcome> {
        let NetworkPatch { name, description } = patch;
        let was = self.network(id)?;
        self.fence(ObjectKind::Network, &was.name, was.generation)?;
        let mut object = Network { generation: was.generation + 1, ..was.clone() };
        if let Some(name) = name {
            let taken = |n: &Network| n.project_id == was.project_id && n.name == *name && n.id != id;
            self.free_name(ObjectKind::Network, name, |t| t.networks().any(taken))?;
            object.name = name.clone();
        }
        if let Some(description) = description {
            check_description(description)?;
            object.description.clone_from(description);
        }
        self.op(NetworkChange {
            id,
            expected_generation: was.generation,
            name: object.name.clone(),
            description: object.description.clone(),
        });
        self.learn(Learned::Network(object.clone()));
        let name = object.name.clone();
        Ok(self.done(Deed::Change, NetworkObject::Network(object), name, vec![]))
    }

    pub(super) fn network_delete(&mut self, id: NetworkId) -> Decided<ChangeOutcome> {
        let was = self.network(id)?;
        self.fence(ObjectKind::Network, &was.name, was.generation)?;
        let ports = self.topology.ports_of(id).map(port_named);
        let router = self.topology.router_of(id).map(|router| named(ObjectKind::Router, &router.name, router.id));
        let peerings =
            self.topology.peerings_of(id).map(|peering| named(ObjectKind::Peering, &peering.name, peering.id));
        let users: Vec<String> = ports.chain(router).chain(peerings).collect();
        if !users.is_empty() {
            return Err(in_use(
                ObjectKind::Network,
                &was.name,
                &users,
                "delete these first, and the instances whose ports they are",
            ));
        }
        let subnets: Vec<_> = self.topology.subnets_of(id).cloned().collect();
        self.op(NetworkDelete { id, expected_generation: was.generation });
        let subnet_count = i64::try_from(subnets.len()).unwrap_or(i64::MAX);
        self.uses(was.project_id, QuotaAmounts { networks: -1, subnets: -subnet_count, ..QuotaAmounts::NONE });
        self.plan.pools.push(PoolChange::RemoveScope(id.0));
        for subnet in &subnets {
            self.learn(Learned::Gone(Key::Subnet(subnet.id)));
        }
        self.learn(Learned::Gone(Key::Network(id)));
        let touches = subnets.iter().map(|subnet| named(ObjectKind::Subnet, &subnet.name, subnet.id)).collect();
        Ok(self.done(Deed::Delete, NetworkObject::Network(was.clone()), &was.name, touches))
    }
}
