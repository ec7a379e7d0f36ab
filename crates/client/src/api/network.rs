use crate::{
    Client, ClientError, Listing, Mutation,
    http::{Call, segment},
    model::{
        ExternalNetwork, ExternalNetworkChange, ExternalNetworkCreate, FloatingIp, FloatingIpChange, FloatingIpCreate,
        Instance, Network, NetworkChange, NetworkCreate, NicRequest, Peering, PeeringCreate, Port, PortChange,
        PortCreate, PortTraffic, Router, RouterChange, RouterCreate, SecurityGroup, SecurityGroupChange,
        SecurityGroupCreate, SecurityRule, SecurityRuleCreate, Subnet, SubnetChange, SubnetCreate,
    },
};
use reqwest::Method;

/// List, show, create, change and delete of a kind of object.
macro_rules! objects {
    ($($path:literal: $object:ident { $list:ident, $show:ident, $create:ident($create_ty:ty), $delete:ident
        $(, $change:ident($change_ty:ty))? })+) => {
        impl Client {$(
            pub fn $list(&self) -> Listing<$object> {
                Listing::new(self, $path)
            }

            pub async fn $show(&self, key: &str) -> Result<$object, ClientError> {
                self.json(&Call::get(format!(concat!($path, "/{}"), segment(key)), &[])).await
            }

            pub fn $create(&self, request: &$create_ty) -> Mutation<$object> {
                Mutation::new(self, Method::POST, $path).body(request)
            }

            pub fn $delete(&self, key: &str) -> Mutation<()> {
                Mutation::new(self, Method::DELETE, format!(concat!($path, "/{}"), segment(key)))
            }

            $(pub fn $change(&self, key: &str, change: &$change_ty) -> Mutation<$object> {
                Mutation::new(self, Method::PATCH, format!(concat!($path, "/{}"), segment(key))).body(change)
            })?
        )+}
    };
}
objects! {
    "/v1/networks": Network { networks, network, network_create(NetworkCreate), network_delete,
        network_change(NetworkChange) }
    "/v1/subnets": Subnet { subnets, subnet, subnet_create(SubnetCreate), subnet_delete, subnet_change(SubnetChange) }
    "/v1/ports": Port { ports, port, port_create(PortCreate), port_delete, port_change(PortChange) }
    "/v1/routers": Router { routers, router, router_create(RouterCreate), router_delete, router_change(RouterChange) }
    "/v1/floating-ips": FloatingIp { floating_ips, floating_ip, floating_ip_create(FloatingIpCreate),
        floating_ip_delete, floating_ip_change(FloatingIpChange) }
    "/v1/security-groups": SecurityGroup { security_groups, security_group, security_group_create(SecurityGroupCreate),
        security_group_delete, security_group_change(SecurityGroupChange) }
    "/v1/network-peerings": Peering { peerings, peering, peering_create(PeeringCreate), peering_delete }
    "/v1/external-networks": ExternalNetwork { external_networks, external_network,
        external_network_create(ExternalNetworkCreate), external_network_delete,
        external_network_change(ExternalNetworkChange) }
}

impl Client {
    pub async fn port_traffic(&self, port: &str) -> Result<PortTraffic, ClientError> {
        self.json(&Call::get(format!("/v1/ports/{}/traffic", segment(port)), &[])).await
    }

    pub fn security_rule_create(&self, group: &str, request: &SecurityRuleCreate) -> Mutation<SecurityRule> {
        Mutation::new(self, Method::POST, format!("/v1/security-groups/{}/rules", segment(group))).body(request)
    }

    pub fn security_rule_delete(&self, group: &str, rule: &str) -> Mutation<()> {
        let path = format!("/v1/security-groups/{}/rules/{}", segment(group), segment(rule));
        Mutation::new(self, Method::DELETE, path)
    }

    /// A NIC more, also while it runs.
    pub fn instance_attach(&self, instance: &str, nic: &NicRequest) -> Mutation<Instance> {
        Mutation::new(self, Method::POST, format!("/v1/instances/{}/nics", segment(instance))).body(nic)
    }

    /// The NIC with this port less.
    pub fn instance_detach(&self, instance: &str, port: &str) -> Mutation<Instance> {
        let path = format!("/v1/instances/{}/nics/{}", segment(instance), segment(port));
        Mutation::new(self, Method::DELETE, path)
    }
}
