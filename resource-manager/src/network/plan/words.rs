//! How objects are named to people.

use domain::{
    ProjectId,
    network::{NetworkObject, ObjectKind, Port},
};
use std::fmt::Display;

/// "network blue (0198…)"
#[must_use]
pub fn named(kind: ObjectKind, key: impl Display, id: impl Display) -> String {
    let (key, id) = (key.to_string(), id.to_string());
    if key == id { format!("{} {id}", kind.label()) } else { format!("{} {key} ({id})", kind.label()) }
}

/// A port by its name, or by its instance's, or by its id.
pub(super) fn port_key(port: &Port) -> String {
    match &port.name {
        Some(name) => name.to_string(),
        None => port.id.to_string(),
    }
}

pub(super) fn port_named(port: &Port) -> String {
    let of = if port.hostname.is_empty() { String::new() } else { format!(" of instance {}", port.hostname) };
    format!("{}{of}", named(ObjectKind::Port, port_key(port), port.id))
}

/// Its id, and the project that its event is shown to.
pub(super) fn whose(object: &NetworkObject, asking: Option<ProjectId>) -> (String, Option<ProjectId>) {
    match object {
        NetworkObject::ExternalNetwork(o) => (o.id.to_string(), None),
        NetworkObject::Network(o) => (o.id.to_string(), Some(o.project_id)),
        NetworkObject::Subnet(o) => (o.id.to_string(), Some(o.project_id)),
        NetworkObject::Port(o) => (o.id.to_string(), Some(o.project_id)),
        NetworkObject::Router(o) => (o.id.to_string(), Some(o.project_id)),
        NetworkObject::FloatingIp(o) => (o.id.to_string(), Some(o.project_id)),
        NetworkObject::SecurityGroup(o) => (o.id.to_string(), Some(o.project_id)),
        NetworkObject::SecurityRule(o) => (o.id.to_string(), asking),
        NetworkObject::Peering(o) => (o.id.to_string(), Some(o.project_id)),
    }
}
