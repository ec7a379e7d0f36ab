//! What the API's JSON looks like, from a caller's side. Answers that are the same for the server and its callers are `api-types`'; all of them
//! tolerate fields that this version doesn't know.

mod catalog;
mod identity;
mod placement;

pub use api_types::{
    AuditEntry, Capacity, ConsoleTicket, DryRun, Event, Explain, ExternalNetwork, ExternalNetworkChange,
    ExternalNetworkCreate, ExternalSubnet, ExternalSubnetRequest, FixedIp, Flavor, FlavorCreate, FlavorFits,
    FloatingIp, FloatingIpChange, FloatingIpCreate, Host, HostChange, HostReserve, HostRoute, HostRouteRequest,
    HostToken, HostTokenCreate, HostTokenCreated, HostTokenState, Image, ImagePart, Instance, InstanceChange,
    InstanceCreate, InstanceReboot, InstanceRebuild, InstanceResize, InstanceStop, InstancesMade, KeptPlacement, Move,
    Network, NetworkChange, NetworkCreate, Nic, NicRequest, NotMade, Peering, PeeringCreate, PeeringOfNetwork,
    Placement, PlacementGroup, PlacementGroupCreate, PlacementRequest, Plan, Port, PortChange, PortCreate, PortTraffic,
    QuotaLeft, RateLimit, RateLimitRequest, RebalancePlan, Router, RouterChange, RouterCreate, RouterOfNetwork,
    SecurityGroup, SecurityGroupChange, SecurityGroupCreate, SecurityGroupOfPort, SecurityRule, SecurityRuleCreate,
    Size, SshKey, SshKeyCreate, Subnet, SubnetChange, SubnetCreate, SubnetOfNetwork, TimelineItem, ZoneCapacity,
};
pub use catalog::*;
pub use identity::*;
pub use placement::*;

use serde::{Deserialize, Serialize};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    #[serde(default = "Option::default")]
    pub next_cursor: Option<String>,
}

/// An amount of each resource that quotas count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaAmounts {
    pub instances: i64,
    pub vcpus: i64,
    pub memory_mib: i64,
    pub disk_gib: i64,
    pub networks: i64,
    pub subnets: i64,
    pub ports: i64,
    pub routers: i64,
    pub floating_ips: i64,
    pub security_groups: i64,
    pub security_rules: i64,
    pub peerings: i64,
}
