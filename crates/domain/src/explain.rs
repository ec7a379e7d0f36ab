//! Why an instance is where it is, or why nothing would take it.

use crate::{HostId, Timestamp, flavor::Size};
use serde::{Deserialize, Serialize};

/// Why a host was passed over. The order is the order in which filters run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    Disconnected,
    Cordoned,
    Zone,
    /// The host is dedicated to another project, or isn't dedicated although the request demands it.
    Dedicated,
    Tags,
    ForbiddenTags,
    CpuFeatures,
    /// The host doesn't have the shared pool that the disk is to be in, or is in.
    SharedPool,
    /// Other requests claimed capacity of the host or changed it during the decision.
    Contended,
    /// The host contradicts a placement group's affinity or anti-affinity.
    Group,
    Vcpus,
    Memory,
    Disk,
    /// No NUMA node has the threads and the memory for pinned vCPUs.
    Pinning,
    /// The host has the capacity, but no other host could take the instance if this one were lost (N+1).
    Reserve,
}

impl Rejection {
    /// The verdict on a number of hosts, for people: "5 short of memory".
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Cordoned => "cordoned",
            Self::Zone => "in another zone",
            Self::Dedicated => "dedicated to others",
            Self::Tags => "without the requested tags",
            Self::ForbiddenTags => "with a forbidden tag",
            Self::CpuFeatures => "without the requested CPU features",
            Self::SharedPool => "without the shared pool",
            Self::Contended => "taken or changed by others meanwhile",
            Self::Group => "ruled out by a placement group",
            Self::Vcpus => "short of vCPUs",
            Self::Memory => "short of memory",
            Self::Disk => "short of disk",
            Self::Pinning => "without a NUMA node that has enough free threads and memory",
            Self::Reserve => "without another host that could restart the instance",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectionCount {
    pub filter: Rejection,
    pub hosts: u32,
}

/// The host that came nearest, and what it lacks of each resource (0: enough).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearestFit {
    /// The host is left out for tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<HostId>,
    pub lacks: Size,
}

/// One decision of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRecord {
    pub at: Timestamp,
    pub hosts_considered: u32,
    /// Hosts that could have taken it.
    pub candidates: u32,
    pub rejected: Vec<RejectionCount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<HostId>,
    /// The best hosts, the chosen one first; they are left out for tenants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub best: Vec<CandidateScore>,
    /// The chosen host's score, for people: "leaves 2 vCPUs, 512 MiB".
    #[serde(default)]
    pub score: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<NearestFit>,
    /// One sentence on the outcome.
    pub summary: String,
    /// After a refusal: what would make the instance fit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// A host that could have taken the instance, with its rating.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateScore {
    pub host_id: HostId,
    pub score: String,
}

impl PlacementRecord {
    /// The record as a tenant may see it: counts and what would fit, but no host.
    #[must_use]
    pub fn redacted(mut self) -> Self {
        self.chosen = None;
        self.best.clear();
        if let Some(nearest) = &mut self.nearest {
            nearest.host_id = None;
        }
        self
    }
}
