//! Instances: as they are shown, and what is sent to make and change them.

use crate::{
    KeptPlacement, Nic, NicRequest, Placement, PlacementRequest,
    names::{DiskPoolName, FillName, InstanceStateName, OnCrashName, OnHostLossName, PowerName},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::{
    DiskId, HostId, ImageId, InstanceId, Name, ProjectId, Timestamp,
    event::Event,
    explain::PlacementRecord,
    instance::{DiskPool, InstanceState, OnCrash, OnHostLoss, Power},
    placement::Fill,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    #[schema(value_type = String, format = "uuid")]
    pub id: InstanceId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    pub tags: BTreeMap<String, String>,
    /// Rises with every requested change; also the ETag.
    pub generation: i64,
    /// Rises each time it is placed on a host. For system admins only, else null.
    pub epoch: Option<i64>,
    /// For system admins only, else null.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub host_id: Option<HostId>,
    #[schema(value_type = InstanceStateName)]
    pub state: InstanceState,
    /// What is being done now; empty when nothing is.
    pub step: String,
    /// Why it is in `error`, or why it waits.
    pub reason: String,
    /// The desired power state.
    #[schema(value_type = PowerName)]
    pub power: Power,
    #[schema(value_type = String, format = "uuid")]
    pub image_id: ImageId,
    /// Null when the sizes were given explicitly.
    pub flavor: Option<String>,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// 0: no root disk.
    pub disk_gib: u64,
    pub zone: Option<String>,
    /// What else it requires of its host.
    pub placement: Placement,
    /// The CPU that it was placed on, and may migrate within: `cpu_baseline` of hosts. Null where its host doesn't report one.
    pub cpu_baseline: Option<String>,
    /// The node of its host that its vCPUs are pinned to. For system admins only, else null.
    pub numa_node: Option<u32>,
    #[schema(value_type = OnCrashName)]
    pub on_crash: OnCrash,
    #[schema(value_type = OnHostLossName)]
    pub on_host_loss: OnHostLoss,
    #[schema(value_type = DiskPoolName)]
    pub pool: DiskPool,
    /// Fingerprint and comment of each: "SHA256:… ann@laptop".
    pub ssh_keys: Vec<String>,
    /// Its network interfaces (NICs), in the order in which the guest sees them.
    pub nics: Vec<Nic>,
    #[schema(value_type = Option<String>, format = "uuid")]
    pub root_disk_id: Option<DiskId>,
    /// The generation that its host has caught up with.
    pub observed_generation: i64,
    /// The time by which the state should have changed; null for states that may last.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When the guest itself last reported that it is up.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub guest_up_at: Option<Timestamp>,
    /// How often it ended unexpectedly since it was created.
    pub crash_count: u32,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// Instances that were created at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstancesMade {
    pub items: Vec<Instance>,
    /// With `fill: as_many_as_fit`, when there was no host for some of them; else null.
    pub not_made: Option<NotMade>,
}

/// Instances that were requested and not created, because no host had the capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotMade {
    pub names: Vec<String>,
    /// One sentence.
    pub why: String,
    /// What would help.
    pub hint: String,
    /// Hosts rejected per filter, the nearest fit; for tenants without hosts.
    pub placement: PlacementRecord,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explain {
    /// Null when there is no instance of that name: then the rest is about what was refused or deleted last.
    pub instance: Option<Instance>,
    /// How its host was chosen; tenants see no hosts.
    #[schema(value_type = Option<Object>)]
    pub placement: Option<PlacementRecord>,
    /// Why it is where it is, why it isn't running, what would make it fit.
    pub why: String,
    /// What was refused under its name, and what was decided for earlier instances with that name: the newest first, at most 20.
    pub records: Vec<KeptPlacement>,
    /// The last events about it, the newest last.
    pub timeline: Vec<TimelineItem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimelineItem {
    /// The event's id, as in `/v1/events`.
    pub id: i64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Object kind and what happened: `instance.running`.
    pub kind: String,
    /// One sentence.
    pub message: String,
    /// The id of the request that caused it; empty when none did.
    pub request_id: String,
    /// The facts: states from and to, durations.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

impl From<Event> for TimelineItem {
    fn from(event: Event) -> Self {
        let Event { id, at, kind, message, request_id, data, .. } = event;
        Self { id, at, kind, message, request_id, data }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleTicket {
    /// Opens one session.
    pub ticket: String,
    /// The WebSocket's URL, with the ticket in it.
    pub url: String,
    /// After this time it opens nothing.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

/// An image, and a flavor or sizes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter. With `count`, the names are `name-1` to `name-N`.
    pub name: String,
    /// How many instances, 1 to 100: all are created or none, unless `fill` says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// What happens when not all of `count` fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FillName>)]
    pub fill: Option<Fill>,
    /// Id or name: the project's own, else a public one.
    pub image: String,
    /// Id or name; instead of sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The smallest size that the image needs unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_gib: Option<u64>,
    /// Ids or names of the project's SSH keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// A script or a cloud-init document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// The same, for bytes that aren't text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data_base64: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OnCrashName>)]
    pub on_crash: Option<OnCrash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OnHostLossName>)]
    pub on_host_loss: Option<OnHostLoss>,
    /// Where its root disk is: `local` (the default) or `shared`, which `on_host_loss: restart` needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DiskPoolName>)]
    pub pool: Option<DiskPool>,
    /// Only hosts of this zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What else it requires of its host.
    #[serde(default, skip_serializing_if = "PlacementRequest::is_empty")]
    pub placement: PlacementRequest,
    /// `on` (the default), or `off`: the instance is created, but not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PowerName>)]
    pub power: Option<Power>,
    /// Its network interfaces (NICs), at most 16, in the order in which the guest sees them. Without it: one on the project's network
    /// `default`, if there is one. `[]`: none.
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
        self.user_data_base64 = Some(BASE64_STANDARD.encode(bytes));
        self
    }
}

/// What isn't named stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Replaces all tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OnCrashName>)]
    pub on_crash: Option<OnCrash>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceStop {
    /// How long the guest may take before it is ended, in seconds, 0 to 3600; the instance's own setting unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u32>,
    /// Stops at once, without asking the guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hard: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceReboot {
    /// Resets the instance, without asking the guest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hard: bool,
}

/// A flavor, or sizes; sizes that aren't named stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
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

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceRebuild {
    /// Id or name; the image that it was created from unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// A request without fields: `{}` or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}
