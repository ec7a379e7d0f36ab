//! What a host must know of one object, as it travels. Pure. None: nothing; should it know of it, a tombstone ends that.

use super::{Told, Topology, bound_to};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{
    HostId, InstanceId, NetworkId,
    metadata::InstanceMetadata,
    network::{FloatingIp, MacAddr, Network, Port, SecurityGroup},
};
use proto::{convert::network::rule_to_pb, network::v1 as pb, sync::v1::desired_object::Object};

/// One object, but for its version.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    pub epoch: i64,
    pub object: Object,
    /// A port that is bound there: of whom the metadata is.
    pub instance_id: Option<InstanceId>,
}

impl Topology {
    #[must_use]
    pub fn render(&self, host_id: HostId, told: Told) -> Option<Rendered> {
        match told {
            Told::Network(id) => self.render_network(host_id, self.network(id)?),
            Told::Port(id) => self.render_port(host_id, self.port(id)?),
            Told::SecurityGroup(id) => self.render_group(host_id, self.security_group(id)?),
            Told::FloatingIp(id) => self.render_floating_ip(host_id, self.floating_ip(id)?),
        }
    }

    fn known(&self, host_id: HostId, network_id: NetworkId) -> bool {
        self.present(network_id, host_id) || self.peers_of(network_id).any(|peer| self.present(peer, host_id))
    }

    fn render_network(&self, host_id: HostId, network: &Network) -> Option<Rendered> {
        if !self.known(host_id, network.id) {
            return None;
        }
        let subnets = self.subnets_of(network.id).map(|subnet| pb::Subnet {
            id: subnet.id.to_string(),
            cidr: subnet.spec.cidr.to_string(),
            gateway: subnet.spec.gateway.to_string(),
            dns: subnet.spec.dns.iter().map(ToString::to_string).collect(),
            host_routes: subnet
                .spec
                .host_routes
                .iter()
                .map(|route| pb::HostRoute {
                    destination: route.destination.to_string(),
                    next_hop: route.next_hop.to_string(),
                })
                .collect(),
            dhcp: subnet.dhcp,
        });
        let object = Object::Network(pb::Network {
            project_id: network.project_id.to_string(),
            name: network.name.to_string(),
            vni: network.vni.get(),
            mtu: self.mtu(network),
            gateway_mac: MacAddr::gateway(network.vni).to_string(),
            subnets: subnets.collect(),
            dns_domain: format!("{}.internal", network.name),
            peer_ids: self.peers_of(network.id).map(|id| id.to_string()).collect(),
            uplink: self.render_uplink(host_id, network),
        });
        Some(Rendered { epoch: 0, object, instance_id: None })
    }

    /// The network's way out of this host, once it has an address there.
    fn render_uplink(&self, host_id: HostId, network: &Network) -> Option<pb::Uplink> {
        let router = self.router_of(network.id)?;
        let uplink = self.uplink(network.id, host_id)?;
        let external = self.external_network(router.external_network_id)?;
        if uplink.external_network_id != external.id || !self.present(network.id, host_id) {
            return None;
        }
        Some(pb::Uplink {
            external_network: external.name.to_string(),
            addresses: uplink.addresses.clone(),
            gateways: external.subnets.iter().map(|subnet| subnet.gateway.to_string()).collect(),
            source_nat: router.source_nat,
            mac: uplink.mac.to_string(),
        })
    }

    fn render_port(&self, host_id: HostId, port: &Port) -> Option<Rendered> {
        let bound = bound_to(port)?;
        let local = bound == host_id;
        let owner = port.owner;
        let binding = if local {
            pb::port::Binding::Local(pb::LocalBinding { instance_id: owner?.instance_id.to_string(), metadata: None })
        } else if self.known(host_id, port.network_id) {
            // A host that never said where it is can't be reached yet.
            pb::port::Binding::RemoteUnderlay(self.host(bound)?.underlay_address.to_string())
        } else {
            return None;
        };
        let object = Object::Port(pb::Port {
            network_id: port.network_id.to_string(),
            project_id: port.project_id.to_string(),
            mac: port.mac.to_string(),
            fixed_ips: port.fixed_ips.iter().map(|ip| ip.address.to_string()).collect(),
            allowed_addresses: port.allowed_addresses.iter().map(ToString::to_string).collect(),
            security_group_ids: port.security_group_ids.iter().map(ToString::to_string).collect(),
            binding: Some(binding),
            rate_limit: local.then_some(pb::RateLimit {
                to_instance_bps: port.rate_limit.to_instance_bps,
                from_instance_bps: port.rate_limit.from_instance_bps,
            }),
            hostname: port.hostname.clone(),
        });
        let instance_id = owner.filter(|_| local).map(|owner| owner.instance_id);
        Some(Rendered { epoch: port.epoch, object, instance_id })
    }

    fn render_group(&self, host_id: HostId, group: &SecurityGroup) -> Option<Rendered> {
        self.ports_in(group.id).any(|port| bound_to(port) == Some(host_id)).then(|| {
            let object = Object::SecurityGroup(pb::SecurityGroup {
                project_id: group.project_id.to_string(),
                name: group.name.to_string(),
                rules: group.rules.iter().map(|rule| rule_to_pb(&rule.id.to_string(), &rule.rule)).collect(),
            });
            Rendered { epoch: 0, object, instance_id: None }
        })
    }

    fn render_floating_ip(&self, host_id: HostId, floating: &FloatingIp) -> Option<Rendered> {
        let port = self.port(floating.port_id?)?;
        if bound_to(port) != Some(host_id) {
            return None;
        }
        let object = Object::FloatingIp(pb::FloatingIp {
            network_id: port.network_id.to_string(),
            port_id: port.id.to_string(),
            address: floating.address.to_string(),
            fixed_ip: floating.fixed_ip?.to_string(),
        });
        Some(Rendered { epoch: 0, object, instance_id: None })
    }
}

/// What the metadata service of a port's host serves to the port's instance.
#[must_use]
pub fn metadata(of: InstanceMetadata<'_>) -> pb::Metadata {
    let InstanceMetadata { name, tags, ssh_keys, user_data_base64, zone, flavor } = of;
    let ssh_keys = ssh_keys.iter().enumerate().map(|(at, line)| {
        // The comment, if the key has one.
        let comment = line.splitn(3, ' ').nth(2).map(str::trim).filter(|comment| !comment.is_empty());
        pb::SshKey { name: comment.map_or_else(|| format!("key-{at}"), str::to_owned), public_key: line.clone() }
    });
    pb::Metadata {
        instance_name: name.to_string(),
        ssh_keys: ssh_keys.collect(),
        user_data: BASE64_STANDARD.decode(user_data_base64).unwrap_or_default().into(),
        zone: zone.unwrap_or_default().to_owned(),
        flavor: flavor.to_owned(),
        tags: tags.clone().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{
        instance::{Instance, InstanceSpec, InstanceState},
        testing,
    };

    #[test]
    fn guests_can_read_every_field_of_their_metadata() {
        let row = testing::instance(InstanceState::Running);
        let instance = Instance {
            tags: [("role".into(), "web".into())].into(),
            spec: InstanceSpec {
                ssh_keys: vec!["ssh-ed25519 AAAA ann@laptop".into(), "ssh-ed25519 BBBB".into()],
                user_data_base64: "aGk=".into(),
                zone: Some("a".into()),
                ..row.spec.clone()
            },
            ..row
        };
        let key = |name: &str, public_key: &str| pb::SshKey { name: name.into(), public_key: public_key.into() };
        let expected = pb::Metadata {
            instance_name: "web".into(),
            ssh_keys: vec![key("ann@laptop", "ssh-ed25519 AAAA ann@laptop"), key("key-1", "ssh-ed25519 BBBB")],
            user_data: b"hi".to_vec().into(),
            zone: "a".into(),
            flavor: "small".into(),
            tags: [("role".to_owned(), "web".to_owned())].into(),
        };
        assert_eq!(metadata(InstanceMetadata::from(&instance)), expected);
    }
}
