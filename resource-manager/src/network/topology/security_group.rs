//! Security groups: the hosts have them that have a port in them.

use super::{Affected, DEFAULT, HostObject, ObjectKey, Rendered, Row, Topology, bound_to, row::named_in_project};
use domain::{
    HostId, ProjectId, SecurityGroupId,
    network::{Port, SecurityGroup},
};
use proto::{convert::network::rule_to_pb, network::v1 as pb, sync::v1::desired_object::Object};
use std::collections::BTreeSet;

impl Topology {
    /// All rows, by their ids.
    pub fn ports_in(&self, group_id: SecurityGroupId) -> impl Iterator<Item = &Port> {
        self.ports_in.get(&group_id).into_iter().flatten().filter_map(|id| self.port(*id))
    }

    /// The project's group named `default`.
    #[must_use]
    pub fn default_group(&self, project_id: ProjectId) -> Option<SecurityGroupId> {
        self.default_groups.get(&project_id).copied()
    }
}

named_in_project!(SecurityGroup);

impl Row for SecurityGroup {
    fn index(&self, topology: &mut Topology) {
        if self.name.as_str() == DEFAULT {
            topology.default_groups.insert(self.project_id, self.id);
        }
    }

    fn unindex(&self, topology: &mut Topology) {
        if topology.default_groups.get(&self.project_id) == Some(&self.id) {
            topology.default_groups.remove(&self.project_id);
        }
    }

    fn affected(&self, topology: &Topology) -> Vec<Affected> {
        let hosts: BTreeSet<HostId> = topology.ports_in(self.id).filter_map(bound_to).collect();
        hosts.into_iter().map(|host_id| (host_id, ObjectKey::SecurityGroup(self.id))).collect()
    }
}

impl HostObject for SecurityGroup {
    fn render(&self, topology: &Topology, host_id: HostId) -> Option<Rendered> {
        topology.ports_in(self.id).any(|port| bound_to(port) == Some(host_id)).then(|| {
            let object = Object::SecurityGroup(pb::SecurityGroup {
                project_id: self.project_id.to_string(),
                name: self.name.to_string(),
                rules: self.rules.iter().map(|rule| rule_to_pb(&rule.id.to_string(), &rule.rule)).collect(),
            });
            Rendered { epoch: 0, object, instance_id: None }
        })
    }

    fn for_host(topology: &Topology, host_id: HostId) -> Vec<SecurityGroupId> {
        topology.ports_on(host_id).flat_map(|port| port.security_group_ids.iter().copied()).collect()
    }
}
