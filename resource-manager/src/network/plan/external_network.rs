//! External networks: the operator's.

use super::{Decision, Planner, Planning, PoolChange, Verb, planner::in_use, subnet::invalid_subnet, uplink};
use crate::network::topology::NamedRow as _;
use domain::{
    ExternalNetworkId,
    network::{
        ChangeOutcome, Cidr, ExternalNetwork, ExternalNetworkPatch, ExternalSubnet, NewExternalNetwork, ObjectKind,
    },
};
use std::collections::BTreeSet;
use store::{
    ExternalBlockDelete, ExternalBlockInsert, ExternalNetworkChange, ExternalNetworkDelete, ExternalNetworkInsert,
    external_block_id,
};

fn check(subnets: &[ExternalSubnet]) -> Decision<()> {
    for (at, subnet) in subnets.iter().enumerate() {
        let siblings: Vec<Cidr> = subnets[..at].iter().map(|other| other.cidr).collect();
        subnet.spec().validate(&siblings).map_err(|violation| invalid_subnet(&violation))?;
    }
    Ok(())
}

impl Planning for ExternalNetwork {
    fn create(planner: &mut Planner<'_>, new: &NewExternalNetwork) -> Decision<ChangeOutcome> {
        let NewExternalNetwork { id, name, description, subnets } = new.clone();
        check(&subnets)?;
        planner.takes_name::<Self>(&name, id, |_| true)?;
        let created_at = planner.context.now;
        planner.plan.pools.extend(subnets.iter().map(|subnet| PoolChange::Put(id.0, None, subnet.spec())));
        let object = Self { id, name, description, subnets, generation: 1, created_at };
        planner.op(ExternalNetworkInsert {
            id,
            name: object.name.clone(),
            description: object.description.clone(),
            subnets: object.subnets.clone(),
            created_at,
        });
        planner.insert_blocks(id, &object.subnets, &[]);
        planner.put(object.clone());
        Ok(planner.finish(Verb::Create, object, vec![]))
    }

    fn update(
        planner: &mut Planner<'_>,
        id: ExternalNetworkId,
        patch: &ExternalNetworkPatch,
    ) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let ExternalNetworkPatch { description, subnets } = patch.clone();
        let mut object = Self { generation: old.generation + 1, ..old.clone() };
        object.description = description.unwrap_or(object.description);
        if let Some(subnets) = subnets {
            check(&subnets)?;
            for removed in old.subnets.iter().filter(|old| !subnets.iter().any(|new| new.cidr == old.cidr)) {
                let users = planner.users_of_block(id, removed.cidr);
                if !users.is_empty() {
                    let hint = "release the floating IPs of the block, and delete the routers that have addresses of it, first";
                    let label = format!("{} ({})", old.name, removed.cidr);
                    return Err(in_use(ObjectKind::ExternalNetwork, label, &users, hint));
                }
                planner.op(ExternalBlockDelete { id: external_block_id(id, removed.cidr) });
            }
            planner.insert_blocks(id, &subnets, &old.subnets);
            planner.plan.pools.extend(subnets.iter().map(|subnet| PoolChange::Put(id.0, None, subnet.spec())));
            let left = subnets.iter().map(ExternalSubnet::spec).collect();
            planner.plan.pools.push(PoolChange::Retain(id.0, left));
            object.subnets = subnets;
        }
        planner.op(ExternalNetworkChange {
            id,
            expected_generation: old.generation,
            description: object.description.clone(),
            subnets: object.subnets.clone(),
        });
        planner.put(object.clone());
        Ok(planner.finish(Verb::Change, object, vec![]))
    }

    fn delete(planner: &mut Planner<'_>, id: ExternalNetworkId) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let topology = planner.topology;
        let routers = topology.routers().filter(|router| router.external_network_id == id);
        let floating_ips = topology.floating_ips().filter(|floating_ip| floating_ip.external_network_id == id);
        let users: Vec<String> =
            routers.map(|router| router.describe()).chain(floating_ips.map(|ip| ip.describe())).collect();
        if !users.is_empty() {
            return Err(in_use(ObjectKind::ExternalNetwork, &old.name, &users, "delete these first"));
        }
        planner.op(ExternalNetworkDelete { id });
        planner.plan.pools.push(PoolChange::RemoveScope(id.0));
        planner.gone::<Self>(id);
        Ok(planner.finish(Verb::Delete, old, vec![]))
    }
}

impl Planner<'_> {
    /// Those of `subnets` that aren't `known`.
    fn insert_blocks(&mut self, id: ExternalNetworkId, subnets: &[ExternalSubnet], known: &[ExternalSubnet]) {
        for subnet in subnets.iter().filter(|new| !known.iter().any(|old| old.cidr == new.cidr)) {
            self.op(ExternalBlockInsert { id: external_block_id(id, subnet.cidr), external_network_id: id });
        }
    }

    /// Floating IPs, and routers with uplinks, that have an address of the block.
    fn users_of_block(&self, id: ExternalNetworkId, block: Cidr) -> Vec<String> {
        let floating_ips = self.topology.floating_ips();
        let floating_ips = floating_ips.filter(|ip| ip.external_network_id == id && block.contains(ip.address));
        let uplinks = self.topology.uplinks().filter(|uplink| uplink.external_network_id == id);
        let uplinks = uplinks.filter(|uplink| uplink::addresses(uplink).any(|address| block.contains(address)));
        let routers = uplinks.filter_map(|uplink| self.topology.router_of(uplink.network_id));
        let routers: BTreeSet<String> = routers.map(|router| router.describe()).collect();
        floating_ips.map(|ip| ip.describe()).chain(routers).collect()
    }
}
