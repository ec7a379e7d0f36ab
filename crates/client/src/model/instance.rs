//! Instances, and requests about them.

use super::{KeptPlacement, Nic, NicRequest, Placement, PlacementRequest};
use domain::{
    DiskId, HostId, ImageId, InstanceId, ProjectId, Timestamp,
    explain::PlacementRecord,
    instance::{InstanceState, OnCrash, OnHostLoss, Power},
    placement::Fill,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub project_id: ProjectId,
    pub name: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub generation: i64,
    /// For system admins.
    #[serde(default)]
    pub epoch: Option<i64>,
    /// For system admins.
    #[serde(default)]
    pub host_id: Option<HostId>,
    pub state: InstanceState,
    /// What is being done right now.
    #[serde(default)]
    pub step: String,
    /// Why it is in `error`, or why it waits.
    #[serde(default)]
    pub reason: String,
    pub power: Power,
    pub image_id: ImageId,
    #[serde(default)]
    pub flavor: Option<String>,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    #[serde(default)]
    pub zone: Option<String>,
    #[serde(default)]
    pub placement: Placement,
    /// The CPU that it may migrate within.
    #[serde(default)]
    pub cpu_baseline: Option<String>,
    /// For system admins: the node of its host that its vCPUs are pinned to.
    #[serde(default)]
    pub numa_node: Option<u32>,
    #[serde(default)]
    pub on_crash: OnCrash,
    #[serde(default)]
    pub on_host_loss: OnHostLoss,
    /// Fingerprints.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Its NICs, in the order in which the guest sees them.
    #[serde(default)]
    pub nics: Vec<Nic>,
    #[serde(default)]
    pub root_disk_id: Option<DiskId>,
    #[serde(default)]
    pub observed_generation: i64,
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    #[serde(default)]
    pub guest_up_at: Option<Timestamp>,
    #[serde(default)]
    pub crash_count: u32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A new instance: an image, and a flavor or sizes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceCreate {
    pub name: String,
    pub image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
    /// Names of stored keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_base64: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_crash: Option<OnCrash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_host_loss: Option<OnHostLoss>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(skip_serializing_if = "PlacementRequest::is_empty")]
    pub placement: PlacementRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// What is made of several when not all have a place; `None`: all or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
    /// Its NICs; `None`: one on the project's network `default`, if there is such a one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NicRequest>>,
}

impl InstanceCreate {
    #[must_use]
    pub fn new(name: impl Into<String>, image: impl Into<String>) -> Self {
        Self { name: name.into(), image: image.into(), ..Self::default() }
    }

    #[must_use]
    pub fn flavor(mut self, flavor: impl Into<String>) -> Self {
        self.flavor = Some(flavor.into());
        self
    }

    #[must_use]
    pub fn size(mut self, vcpus: u32, memory_mib: u64, disk_gib: u64) -> Self {
        (self.vcpus, self.memory_mib, self.disk_gib) = (Some(vcpus), Some(memory_mib), Some(disk_gib));
        self
    }

    /// A script or a cloud-init document.
    #[must_use]
    pub fn user_data(mut self, bytes: &[u8]) -> Self {
        use base64::{Engine, engine::general_purpose::STANDARD};
        self.user_data_base64 = Some(STANDARD.encode(bytes));
        self
    }
}

/// What came of a request for several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstancesMade {
    pub items: Vec<Instance>,
    /// The instances that didn't fit, if as many as fit were requested.
    #[serde(default)]
    pub not_made: Option<NotMade>,
}

/// Requested instances for which no host had enough capacity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotMade {
    pub names: Vec<String>,
    pub why: String,
    /// What would help.
    #[serde(default)]
    pub hint: String,
    pub placement: PlacementRecord,
}

/// A changed description; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_crash: Option<OnCrash>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceStop {
    /// How long the guest may take before it is ended, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u32>,
    /// Not asking the guest at all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hard: bool,
}

/// A new size: a flavor, or numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceResize {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
}

/// Why an instance is as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// One paragraph.
    pub why: String,
    #[serde(default)]
    pub placement: Option<PlacementRecord>,
    /// What was refused under its name, and what was decided of instances that had it before, the newest first.
    #[serde(default)]
    pub records: Vec<KeptPlacement>,
    /// What happened to it last, the newest at the end.
    #[serde(default)]
    pub timeline: Vec<TimelineItem>,
    /// As it is now; null when there is none: it was refused, or is gone.
    #[serde(default)]
    pub instance: serde_json::Value,
}

/// One thing that happened to an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineItem {
    pub id: i64,
    pub at: Timestamp,
    /// `noun.verb`.
    pub kind: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub request_id: String,
    #[serde(default)]
    pub data: serde_json::Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleTicket {
    pub ticket: String,
    pub url: String,
    pub expires_at: Timestamp,
}
