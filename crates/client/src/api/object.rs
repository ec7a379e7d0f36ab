//! What every kind of object has: a list, one object, create, delete, and mostly a change.

use crate::{
    Client, ClientError, Listing, Mutation,
    http::{Call, segment},
    model::*,
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
    "/v1/projects": Project { projects, project, project_create(ProjectCreate), project_delete, project_change(ProjectChange) }
    "/v1/users": User { users, user, user_create(UserCreate), user_delete, user_change(UserChange) }
    "/v1/flavors": Flavor { flavors, flavor, flavor_create(FlavorCreate), flavor_delete }
    "/v1/ssh-keys": SshKey { ssh_keys, ssh_key, ssh_key_create(SshKeyCreate), ssh_key_delete }
    // A new image is queued until its parts are uploaded (`Client::image_upload`).
    "/v1/images": Image { images, image, image_create(ImageCreate), image_delete }
    "/v1/placement-groups": PlacementGroup { placement_groups, placement_group,
        placement_group_create(PlacementGroupCreate), placement_group_delete }
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
