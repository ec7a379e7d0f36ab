//! External networks: the operator's.

use super::{Decided, Deed, Draft, PoolChange, check_count, check_description, in_use, named, subnet::invalid_subnet};
use crate::network::topology::{Key, Learned};
use domain::{
    ExternalNetworkId, Problem,
    network::{
        ChangeOutcome, Cidr, ExternalNetwork, ExternalNetworkPatch, ExternalSubnet, NetworkObject, NewExternalNetwork,
        ObjectKind,
    },
};
use store::{ExternalNetworkChange, ExternalNetworkDelete, ExternalNetworkInsert};

const SUBNETS_MAX: usize = 32;

fn check(subnets: &[ExternalSubnet]) -> Decided<()> {
    check_count("subnets", subnets.len(), SUBNETS_MAX)?;
    if subnets.is_empty() {
        return Err(Problem::invalid("subnets", "at least one is needed: a CIDR with its gateway"));
    }
    for (at, subnet) in subnets.iter().enumerate() {
        let siblings: Vec<Cidr> = subnets[..at].iter().map(|other| other.cidr).collect();
        subnet.spec().validate(&siblings).map_err(|wrong| invalid_subnet(&wrong))?;
    }
    Ok(())
}

impl Draft<'_> {
    pub(super) fn external_network_create(&mut self, new: &NewExternalNetwork) -> Decided<ChangeOutcome> {
        let NewExternalNetwork { id, name, description, subnets } = new;
        let id = *id;
        check_description(description)?;
        check(subnets)?;
        self.free_name(ObjectKind::ExternalNetwork, name, |t| t.external_networks().any(|n| n.name == *name))?;
        let object = ExternalNetwork {
            id,
            name: name.clone(),
            description: description.clone(),
            subnets: subnets.to_vec(),
            generation: 1,
            created_at: self.ask.now,
        };
        self.op(ExternalNetworkInsert {
            id,
            name: object.name.clone(),
            description: object.description.clone(),
            subnets: object.subnets.clone(),
            created_at: object.created_at,
        });
        self.plan.pools.extend(subnets.iter().map(|subnet| PoolChange::Put(id.0, None, subnet.spec())));
        self.learn(Learned::ExternalNetwork(object.clone()));
        Ok(self.done(Deed::Create, NetworkObject::ExternalNetwork(object), name, vec![]))
    }

    pub(super) fn external_network_update(
        &mut self,
        id: ExternalNetworkId,
        patch: &ExternalNetworkPatch,
    ) -> Decided<ChangeOutcome> {
        let ExternalNetworkPatch { description, subnets } = patch;
        let was = self.external_network(id)?;
        self.fence(ObjectKind::ExternalNetwork, &was.name, was.generation)?;
        let mut object = ExternalNetwork { generation: was.generation + 1, ..was.clone() };
        if let Some(description) = description {
            check_description(description)?;
            object.description.clone_from(description);
        }
        if let Some(subnets) = subnets {
            check(subnets)?;
            for gone in was.subnets.iter().filter(|old| !subnets.iter().any(|new| new.cidr == old.cidr)) {
                let users = self.users_of_block(id, gone.cidr);
                if !users.is_empty() {
                    let hint = "release the floating IPs of the block, and delete the routers that have addresses of it, first";
                    return Err(in_use(
                        ObjectKind::ExternalNetwork,
                        format!("{} ({})", was.name, gone.cidr),
                        &users,
                        hint,
                    ));
                }
            }
            object.subnets.clone_from(subnets);
            self.plan.pools.extend(subnets.iter().map(|subnet| PoolChange::Put(id.0, None, subnet.spec())));
            self.plan.pools.push(PoolChange::Keep(id.0, subnets.iter().map(ExternalSubnet::spec).collect()));
        }
        self.op(ExternalNetworkChange {
            id,
            expected_generation: was.generation,
            description: object.description.clone(),
            subnets: object.subnets.clone(),
        });
        self.learn(Learned::ExternalNetwork(object.clone()));
        Ok(self.done(Deed::Change, NetworkObject::ExternalNetwork(object), &was.name, vec![]))
    }

    /// Floating IPs and uplinks with an address of the block.
    fn users_of_block(&self, id: ExternalNetworkId, block: Cidr) -> Vec<String> {
        let floating =
            self.topology.floating_ips().filter(|f| f.external_network_id == id && block.contains(f.address));
        let floating = floating.map(|f| named(ObjectKind::FloatingIp, f.address, f.id));
        let inside = |text: &str| {
            text.split('/')
                .next()
                .and_then(|address| address.parse().ok())
                .is_some_and(|address| block.contains(address))
        };
        let uplinks = self.topology.uplinks().filter(|u| u.external_network_id == id);
        let uplinks = uplinks.filter(|u| u.addresses.iter().any(|text| inside(text)));
        let mut routers: Vec<String> = uplinks
            .filter_map(|u| self.topology.router_of(u.network_id))
            .map(|router| named(ObjectKind::Router, &router.name, router.id))
            .collect();
        routers.sort();
        routers.dedup();
        floating.chain(routers).collect()
    }

    pub(super) fn external_network_delete(&mut self, id: ExternalNetworkId) -> Decided<ChangeOutcome> {
        let was = self.external_network(id)?;
        self.fence(ObjectKind::ExternalNetwork, &was.name, was.generation)?;
        let routers = self.topology.routers().filter(|router| router.external_network_id == id);
        let routers = routers.map(|router| named(ObjectKind::Router, &router.name, router.id));
        let floating = self.topology.floating_ips().filter(|floating| floating.external_network_id == id);
        let floating = floating.map(|floating| named(ObjectKind::FloatingIp, floating.address, floating.id));
        let users: Vec<String> = routers.chain(floating).collect();
        if !users.is_empty() {
            return Err(in_use(ObjectKind::ExternalNetwork, &was.name, &users, "delete these first"));
        }
        self.op(ExternalNetworkDelete { id });
        self.plan.pools.push(PoolChange::RemoveScope(id.0));
        self.learn(Learned::Gone(Key::ExternalNetwork(id)));
        Ok(self.done(Deed::Delete, NetworkObject::ExternalNetwork(was.clone()), &was.name, vec![]))
    }
}
