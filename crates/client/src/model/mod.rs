//! What the API's JSON looks like, from a caller's side. Answers that are the same for the server and its callers are `api-types`'; all of them
//! tolerate fields that this version doesn't know.

mod catalog;
mod identity;
mod placement;
mod system;

pub use api_types::{
    AuditEntry, Capacity, ConsoleTicket, Explain, ExternalNetwork, ExternalNetworkChange, ExternalNetworkCreate,
    ExternalSubnet, ExternalSubnetRequest, FixedIp, Flavor, FlavorFits, FloatingIp, FloatingIpChange, FloatingIpCreate,
    Host, HostChange, HostReserve, HostRoute, HostRouteRequest, HostToken, HostTokenCreate, HostTokenCreated,
    HostTokenState, Image, ImagePart, Instance, InstanceChange, InstanceCreate, InstanceReboot, InstanceRebuild,
    InstanceResize, InstanceStop, InstancesMade, KeptPlacement, Move, Network, NetworkChange, NetworkCreate, Nic,
    NicRequest, NotMade, Peering, PeeringCreate, PeeringOfNetwork, Placement, PlacementGroup, PlacementRequest, Port,
    PortChange, PortCreate, PortTraffic, RateLimit, RateLimitRequest, RebalancePlan, Router, RouterChange,
    RouterCreate, RouterOfNetwork, SecurityGroup, SecurityGroupChange, SecurityGroupCreate, SecurityGroupOfPort,
    SecurityRule, SecurityRuleCreate, Size, SshKey, Subnet, SubnetChange, SubnetCreate, SubnetOfNetwork, TimelineItem,
    ZoneCapacity,
};
pub use catalog::*;
pub use identity::*;
pub use placement::*;
pub use system::*;

use domain::explain::PlacementRecord;
use serde::{Deserialize, Serialize};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    #[serde(default = "Option::default")]
    pub next_cursor: Option<String>,
}

/// What a change would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    pub summary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_left: Option<QuotaAmounts>,
    pub touches: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PlanAnswer {
    pub(crate) plan: Plan,
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
