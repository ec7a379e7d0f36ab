//! The addresses that no instance of the fleet may reach by an external network: every host's own, the managers', and what the operator
//! configured. Each host has all of them, in parts ([`ProtectedPart`]): a host that joins, moves or goes changes one.

use super::{Affected, ObjectKey, Rendered, Topology};
use domain::{
    HostId,
    network::{Cidr, ProtectedPart, can_be_protected},
};
use proto::{network::v1 as pb, sync::v1::desired_object::Object};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use store::NetworkHostRow;

#[derive(Debug, Default)]
pub(super) struct Protected {
    managers: BTreeSet<Cidr>,
    hosts: BTreeMap<ProtectedPart, BTreeSet<HostId>>,
}

/// What of a host is protected.
pub(super) fn addresses_of(host: &NetworkHostRow) -> impl Iterator<Item = IpAddr> + '_ {
    host.addresses.iter().copied().chain([host.underlay_address]).filter(|address| can_be_protected(*address))
}

impl Topology {
    /// The managers' addresses and the configured blocks, in the place of those before.
    pub fn protect(&mut self, blocks: BTreeSet<Cidr>) -> Vec<Affected> {
        if self.protected.managers == blocks {
            return Vec::new();
        }
        self.protected.managers = blocks;
        self.affected_by_part(ProtectedPart::Managers)
    }

    /// The parts that have something in them.
    pub(super) fn protected_parts(&self) -> impl Iterator<Item = ProtectedPart> + '_ {
        let managers = (!self.protected.managers.is_empty()).then_some(ProtectedPart::Managers);
        managers.into_iter().chain(self.protected.hosts.keys().copied())
    }

    pub(super) fn affected_by_part(&self, part: ProtectedPart) -> Vec<Affected> {
        self.hosts().map(|host| (host.host_id, ObjectKey::Protected(part))).collect()
    }

    pub(super) fn index_protected(&mut self, host: &NetworkHostRow) {
        self.protected.hosts.entry(ProtectedPart::of_host(host.host_id)).or_default().insert(host.host_id);
    }

    pub(super) fn unindex_protected(&mut self, host_id: HostId) {
        let part = ProtectedPart::of_host(host_id);
        if let Some(hosts) = self.protected.hosts.get_mut(&part) {
            hosts.remove(&host_id);
            if hosts.is_empty() {
                self.protected.hosts.remove(&part);
            }
        }
    }

    /// The same for every host of the fleet: its own addresses are protected from its instances, too.
    pub(super) fn render_protected(&self, host_id: HostId, part: ProtectedPart) -> Option<Rendered> {
        self.host(host_id)?;
        let blocks: BTreeSet<Cidr> = match part {
            ProtectedPart::Managers => self.protected.managers.clone(),
            ProtectedPart::Hosts(_) => {
                let hosts = self.protected.hosts.get(&part)?.iter().filter_map(|id| self.host(*id));
                hosts.flat_map(addresses_of).map(Cidr::host).collect()
            }
        };
        if blocks.is_empty() {
            return None;
        }
        let blocks = blocks.iter().map(ToString::to_string).collect();
        Some(Rendered { epoch: 0, object: Object::Protected(pb::Protected { blocks }), instance_id: None })
    }
}
