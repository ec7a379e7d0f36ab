//! Routers: how a network leaves to the outside.

use super::{Decision, Planner, Planning, Verb, planner::in_use};
use crate::network::topology::NamedRow as _;
use domain::{
    ErrorKind, Problem, RouterId,
    network::{ChangeOutcome, ExternalNetwork, Network, NewRouter, ObjectKind, Router, RouterPatch},
    quota::QuotaAmounts,
};
use store::{RouterDelete, RouterInsert, RouterUpdate, UplinkRow};

impl Planner<'_> {
    pub(super) fn insert_router(&mut self, new: NewRouter, network: &Network) -> Router {
        let NewRouter { id, name, network_id, external_network_id, source_nat } = new;
        let (project_id, created_at) = (network.project_id, self.context.now);
        let object =
            Router { id, project_id, name, network_id, external_network_id, source_nat, generation: 1, created_at };
        let name = object.name.clone();
        self.op(RouterInsert { id, project_id, name, network_id, external_network_id, source_nat, created_at });
        self.uses(project_id, QuotaAmounts { routers: 1, ..QuotaAmounts::NONE });
        self.put(object.clone());
        object
    }
}

impl Planning for Router {
    fn create(planner: &mut Planner<'_>, new: &NewRouter) -> Decision<ChangeOutcome> {
        let project_id = planner.project()?;
        let network: Network = planner.fetch(new.network_id)?;
        let external: ExternalNetwork = planner.fetch(new.external_network_id)?;
        if let Some(existing) = planner.topology.router_of(network.id) {
            return Err(Problem::new(
                ErrorKind::AlreadyExists,
                "router_exists",
                format!("the network {} has a router already: {}", network.name, existing.name),
            )
            .with_hint("a network has one way out; delete that router, or change it"));
        }
        planner.takes_name::<Self>(&new.name, new.id, |other| other.project_id == project_id)?;
        let object = planner.insert_router(new.clone(), &network);
        planner.bump(&network);
        Ok(planner.finish(Verb::Create, object, vec![network.describe(), external.describe()]))
    }

    fn update(planner: &mut Planner<'_>, id: RouterId, patch: &RouterPatch) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let network: Network = planner.fetch(old.network_id)?;
        let RouterPatch { name, source_nat } = patch.clone();
        if let Some(name) = &name {
            planner.takes_name::<Self>(name, id, |other| other.project_id == old.project_id)?;
        }
        let object = Self {
            name: name.unwrap_or(old.name),
            source_nat: source_nat.unwrap_or(old.source_nat),
            generation: old.generation + 1,
            ..old
        };
        planner.op(RouterUpdate {
            id,
            expected_generation: old.generation,
            name: object.name.clone(),
            source_nat: object.source_nat,
        });
        planner.bump(&network);
        planner.put(object.clone());
        Ok(planner.finish(Verb::Change, object, vec![network.describe()]))
    }

    fn delete(planner: &mut Planner<'_>, id: RouterId) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        let network: Network = planner.fetch(old.network_id)?;
        let topology = planner.topology;
        let floating_ips = topology.ports_of(network.id).flat_map(|port| topology.floating_ips_of(port.id));
        let users: Vec<String> = floating_ips.map(|ip| ip.describe()).collect();
        if !users.is_empty() {
            return Err(in_use(ObjectKind::Router, &old.name, &users, "dissociate these floating IPs first"));
        }
        planner.op(RouterDelete { id, expected_generation: old.generation });
        let uplinks: Vec<&UplinkRow> = topology.uplinks_of(network.id).collect();
        uplinks.into_iter().for_each(|uplink| planner.remove_uplink(uplink));
        planner.bump(&network);
        planner.uses(old.project_id, QuotaAmounts { routers: -1, ..QuotaAmounts::NONE });
        planner.gone::<Self>(id);
        Ok(planner.finish(Verb::Delete, old, vec![network.describe()]))
    }
}
