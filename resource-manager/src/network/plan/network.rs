//! Networks.

use super::{Decision, Planner, Planning, PoolChange, Verb, planner::in_use};
use crate::network::topology::NamedRow as _;
use domain::{
    ErrorKind, NetworkId, Problem,
    network::{ChangeOutcome, Network, NetworkPatch, NewNetwork, ObjectKind, Subnet, Vni},
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{NetworkChange, NetworkDelete, NetworkInsert};

/// The first that is free at or after the one that was drawn, around the range. None: all are taken.
fn pick_vni((first, last): (u32, u32), taken: &BTreeSet<u32>, drawn: u64) -> Option<u32> {
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

impl Planner<'_> {
    fn vni(&mut self) -> Decision<Vni> {
        let taken: BTreeSet<u32> = self.topology.networks().map(|network| network.vni.get()).collect();
        let picked = pick_vni(self.context.vni, &taken, (self.rng)());
        picked.and_then(|vni| Vni::try_from(vni).ok()).ok_or_else(|| {
            Problem::new(ErrorKind::InvalidState, "vnis_exhausted", "this cloud has as many networks as it can have")
                .with_hint("ask its operator to widen resource.vni_first to resource.vni_last")
        })
    }

    pub(super) fn insert_network(&mut self, new: NewNetwork) -> Decision<Network> {
        let project_id = self.project()?;
        let NewNetwork { id, name, description, mtu } = new;
        let (vni, created_at) = (self.vni()?, self.context.now);
        let object = Network { id, project_id, name, description, vni, mtu, generation: 1, created_at };
        self.op(NetworkInsert {
            id,
            project_id,
            name: object.name.clone(),
            description: object.description.clone(),
            vni,
            mtu,
            created_at,
        });
        self.uses(project_id, QuotaAmounts { networks: 1, ..QuotaAmounts::NONE });
        self.put(object.clone());
        Ok(object)
    }
}

impl Planning for Network {
    fn create(planner: &mut Planner<'_>, new: &NewNetwork) -> Decision<ChangeOutcome> {
        let project_id = planner.project()?;
        planner.takes_name::<Self>(&new.name, new.id, |other| other.project_id == project_id)?;
        let object = planner.insert_network(new.clone())?;
        Ok(planner.finish(Verb::Create, object, vec![]))
    }

    fn update(planner: &mut Planner<'_>, id: NetworkId, patch: &NetworkPatch) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let NetworkPatch { name, description } = patch.clone();
        if let Some(name) = &name {
            planner.takes_name::<Self>(name, id, |other| other.project_id == old.project_id)?;
        }
        let object = Self {
            name: name.unwrap_or(old.name),
            description: description.unwrap_or(old.description),
            generation: old.generation + 1,
            ..old
        };
        planner.op(NetworkChange {
            id,
            expected_generation: old.generation,
            name: object.name.clone(),
            description: object.description.clone(),
        });
        planner.put(object.clone());
        Ok(planner.finish(Verb::Change, object, vec![]))
    }

    fn delete(planner: &mut Planner<'_>, id: NetworkId) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let topology = planner.topology;
        let ports = topology.ports_of(id).map(|port| port.describe());
        let router = topology.router_of(id).map(|router| router.describe());
        let peerings = topology.peerings_of(id).map(|peering| peering.describe());
        let users: Vec<String> = ports.chain(router).chain(peerings).collect();
        if !users.is_empty() {
            let hint = "delete these first, and the instances whose ports they are";
            return Err(in_use(ObjectKind::Network, &old.name, &users, hint));
        }
        planner.op(NetworkDelete { id, expected_generation: old.generation });
        let subnets: Vec<&Subnet> = topology.subnets_of(id).collect();
        let subnet_count = i64::try_from(subnets.len()).unwrap_or(i64::MAX);
        planner.uses(old.project_id, QuotaAmounts { networks: -1, subnets: -subnet_count, ..QuotaAmounts::NONE });
        planner.plan.pools.push(PoolChange::RemoveScope(id.0));
        subnets.iter().for_each(|subnet| planner.gone::<Subnet>(subnet.id));
        planner.gone::<Self>(id);
        let others = subnets.iter().map(|subnet| subnet.describe()).collect();
        Ok(planner.finish(Verb::Delete, old, others))
    }
}
