//! What the API's JSON looks like: the types that the server writes too. Answers may have fields that this version doesn't know.

mod identity;
mod placement;

pub use api_types::*;
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
    pub images: i64,
    pub image_gib: i64,
    pub networks: i64,
    pub subnets: i64,
    pub ports: i64,
    pub routers: i64,
    pub floating_ips: i64,
    pub security_groups: i64,
    pub security_rules: i64,
    pub peerings: i64,
    pub ssh_keys: i64,
    pub placement_groups: i64,
}
