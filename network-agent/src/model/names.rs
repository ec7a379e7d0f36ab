//! Names of interfaces and namespaces. The kernel takes 15 characters for an interface; an id's last twelve hexadecimal digits are
//! random (UUIDv7), so that two of one host collide about never, and the namespace keeps networks apart anyway.

use domain::{NetworkId, PortId, SecurityGroupId};
use uuid::Uuid;

/// All ports' links, and no other, begin with it.
pub const PORT_PREFIX: &str = "t";
/// The links to peered networks.
pub const PEER_PREFIX: &str = "pr";
pub const VXLAN: &str = "vx";
pub const UPLINK: &str = "up";

fn tail(id: Uuid) -> String {
    let text = id.simple().to_string();
    text[20..].to_owned()
}

#[must_use]
pub fn port_link(id: PortId) -> String {
    format!("{PORT_PREFIX}{}", tail(id.0))
}

/// In this network's namespace, towards the other's.
#[must_use]
pub fn peer_link(other: NetworkId) -> String {
    format!("{PEER_PREFIX}{}", tail(other.0))
}

/// The host's end of a network's uplink.
#[must_use]
pub fn uplink_host_end(id: NetworkId) -> String {
    format!("u{}", tail(id.0))
}

#[must_use]
pub fn is_uplink_host_end(link: &str) -> bool {
    link.strip_prefix('u').is_some_and(|tail| tail.len() == 12 && tail.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The other end of a port that is wired as a veth.
#[must_use]
pub fn endpoint_link(id: PortId) -> String {
    format!("e{}", tail(id.0))
}

#[must_use]
pub fn namespace(prefix: &str, id: NetworkId) -> String {
    format!("{prefix}-{}", id.0.simple())
}

/// The table in the host's own namespace that says whose tunnelled frames are taken.
#[must_use]
pub fn underlay_table(prefix: &str) -> String {
    format!("{prefix}_underlay")
}

/// The network a namespace is of, if the name is one of ours.
#[must_use]
pub fn network_of(prefix: &str, namespace: &str) -> Option<NetworkId> {
    let id = namespace.strip_prefix(prefix)?.strip_prefix('-')?;
    (id.len() == 32).then(|| Uuid::parse_str(id).ok().map(NetworkId)).flatten()
}

#[must_use]
pub fn group_chain(id: SecurityGroupId, ingress: bool) -> String {
    format!("sg_{}_{}", id.0.simple(), if ingress { "in" } else { "out" })
}

#[must_use]
pub fn member_set(id: SecurityGroupId, v4: bool) -> String {
    format!("m{}_{}", if v4 { 4 } else { 6 }, id.0.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernel_and_parse_back() {
        let network = NetworkId::new();
        for name in
            [port_link(PortId::new()), peer_link(network), uplink_host_end(network), endpoint_link(PortId::new())]
        {
            assert!(name.len() <= 15, "{name}");
        }
        assert_eq!(network_of("iaas", &namespace("iaas", network)), Some(network));
        assert_eq!(network_of("iaas", "iaas-other"), None);
        assert_eq!(network_of("iaas", &namespace("other", network)), None);
    }
}
