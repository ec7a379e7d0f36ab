//! Routers: how a network leaves to the outside.

use super::{Decided, Deed, Draft, in_use, named, subnet::touched, uplink};
use crate::network::topology::{Key, Learned};
use domain::{
    ErrorKind, ExternalNetworkId, Name, Problem, RouterId,
    network::{ChangeOutcome, Network, NetworkObject, NewRouter, ObjectKind, Router, RouterPatch},
    quota::QuotaAmounts,
};
use store::{RouterDelete, RouterInsert, RouterUpdate, UplinkRow};

impl Draft<'_> {
    pub(super) fn router_create(&mut self, new: &NewRouter) -> Decided<ChangeOutcome> {
        let NewRouter { id, name, network_id, external_network_id, source_nat } = new;
        let (id, network_id, external_network_id, source_nat) = (*id, *network_id, *external_network_id, *source_nat);
        let project_id = self.project()?;
        let network = self.network(network_id)?;
        let external = self.external_network(external_network_id)?;
        if let Some(there) = self.topology.router_of(network_id) {
            return Err(Problem::new(
                ErrorKind::AlreadyExists,
                "router_exists",
                format!("the network {} has a router already: {}", network.name, there.name),
            )
            .with_hint("a network has one way out; delete that router, or change it"));
        }
        let taken = |r: &Router| r.project_id == project_id && r.name == *name;
        self.free_name(ObjectKind::Router, name, |t| t.routers().any(taken))?;
        let object = self.new_router(id, name, &network, external_network_id, source_nat);
        self.touch(&network);
        let touches = vec![touched(&network), named(ObjectKind::ExternalNetwork, &external.name, external.id)];
        Ok(self.done(Deed::Create, NetworkObject::Router(object), name, touches))
    }

    pub(super) fn new_router(
        &mut self,
        id: RouterId,
        name: &Name,
        network: &Network,
        external_network_id: ExternalNetworkId,
        source_nat: bool,
    ) -> Router {
        let object = Router {
            id,
            project_id: network.project_id,
            name: name.clone(),
            network_id: network.id,
            external_network_id,
            source_nat,
            generation: 1,
            created_at: self.ask.now,
        };
        self.op(RouterInsert {
            id,
            project_id: object.project_id,
            name: object.name.clone(),
            network_id: network.id,
            external_network_id,
            source_nat,
            created_at: object.created_at,
        });
        self.uses(network.project_id, QuotaAmounts { routers: 1, ..QuotaAmounts::NONE });
        self.learn(Learned::Router(object.clone()));
        object
    }

    pub(super) fn router_update(&mut self, id: RouterId, patch: &RouterPatch) -> Decided<ChangeOutcome> {
        let RouterPatch { name, source_nat } = patch;
        let was = self.router(id)?;
        self.fence(ObjectKind::Router, &was.name, was.generation)?;
        let network = self.network(was.network_id)?;
        let mut object = Router { generation: was.generation + 1, ..was.clone() };
        if let Some(name) = name {
            let taken = |r: &Router| r.project_id == was.project_id && r.name == *name && r.id != id;
            self.free_name(ObjectKind::Router, name, |t| t.routers().any(taken))?;
            object.name = name.clone();
        }
        object.source_nat = source_nat.unwrap_or(was.source_nat);
        self.op(RouterUpdate {
            id,
            expected_generation: was.generation,
            name: object.name.clone(),
            source_nat: object.source_nat,
        });
        self.touch(&network);
        self.learn(Learned::Router(object.clone()));
        let name = object.name.clone();
        Ok(self.done(Deed::Change, NetworkObject::Router(object), name, vec![touched(&network)]))
    }

    pub(super) fn router_delete(&mut self, id: RouterId) -> Decided<ChangeOutcome> {
        let was = self.router(id)?;
        self.fence(ObjectKind::Router, &was.name, was.generation)?;
        let network = self.network(was.network_id)?;
        let ports = self.topology.ports_of(network.id);
        let floating = ports.flat_map(|port| self.topology.floating_ips_of(port.id));
        let users: Vec<String> = floating.map(|f| named(ObjectKind::FloatingIp, f.address, f.id)).collect();
        if !users.is_empty() {
            return Err(in_use(ObjectKind::Router, &was.name, &users, "dissociate these floating IPs first"));
        }
        self.op(RouterDelete { id, expected_generation: was.generation });
        let hosts: Vec<UplinkRow> =
            self.topology.uplinks().filter(|uplink| uplink.network_id == network.id).cloned().collect();
        for gone in &hosts {
            self.uplink_delete(gone);
        }
        self.touch(&network);
        self.uses(was.project_id, QuotaAmounts { routers: -1, ..QuotaAmounts::NONE });
        self.learn(Learned::Gone(Key::Router(id)));
        Ok(self.done(Deed::Delete, NetworkObject::Router(was.clone()), &was.name, vec![touched(&network)]))
    }

    /// The network leaves this host no longer; its addresses there rest.
    pub(crate) fn uplink_delete(&mut self, gone: &UplinkRow) {
        let (network_id, host_id) = (gone.network_id, gone.host_id);
        self.op(store::UplinkDelete { network_id, host_id });
        for address in uplink::addresses(gone) {
            let at = super::scoped(gone.external_network_id.0, address);
            self.release(at, uplink::owner(network_id, host_id), self.ask.quarantine_secs);
        }
        self.learn(Learned::Gone(Key::Uplink(network_id, host_id)));
    }
}
