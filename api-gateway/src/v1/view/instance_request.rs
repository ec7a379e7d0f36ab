//! What callers send to make and change instances. Types are checked here; bounds and names in `app::instance_check`, all at once.

use super::{
    names::{FillName, OnCrashName, OnHostLossName, PowerName},
    nic::NicRequest,
    placement::PlacementRequest,
};
use domain::{
    instance::{OnCrash, OnHostLoss, Power},
    placement::Fill,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An image, and a flavor or sizes.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter. With `count`, the names are `name-1` to `name-N`.
    pub name: String,
    /// How many instances, 1 to 100: all are created or none, unless `fill` says otherwise.
    #[serde(default)]
    pub count: Option<u32>,
    /// What happens when not all of `count` fit.
    #[serde(default)]
    #[schema(value_type = Option<FillName>)]
    pub fill: Option<Fill>,
    /// Id or name: the project's own, else a public one.
    pub image: String,
    /// Id or name; instead of sizes.
    #[serde(default)]
    pub flavor: Option<String>,
    #[serde(default)]
    pub vcpus: Option<u32>,
    #[serde(default)]
    pub memory_mib: Option<u64>,
    /// The smallest size that the image needs unless given.
    #[serde(default)]
    pub disk_gib: Option<u64>,
    /// Ids or names of the project's SSH keys.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// A script or a cloud-init document.
    #[serde(default)]
    pub user_data: Option<String>,
    /// The same, for bytes that aren't text.
    #[serde(default)]
    pub user_data_base64: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    #[serde(default)]
    #[schema(value_type = Option<OnCrashName>)]
    pub on_crash: Option<OnCrash>,
    #[serde(default)]
    #[schema(value_type = Option<OnHostLossName>)]
    pub on_host_loss: Option<OnHostLoss>,
    /// Only hosts of this zone.
    #[serde(default)]
    pub zone: Option<String>,
    /// What else it requires of its host.
    #[serde(default)]
    pub placement: PlacementRequest,
    /// `on` (the default), or `off`: the instance is created, but not started.
    #[serde(default)]
    #[schema(value_type = Option<PowerName>)]
    pub power: Option<Power>,
    /// Its network interfaces (NICs), at most 16, in the order in which the guest sees them. Without it: one on the project's network
    /// `default`, if there is one. `[]`: none.
    #[serde(default)]
    pub networks: Option<Vec<NicRequest>>,
}

/// What isn't named stays.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceChange {
    #[serde(default)]
    pub name: Option<String>,
    /// Replaces all tags.
    #[serde(default)]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    #[schema(value_type = Option<OnCrashName>)]
    pub on_crash: Option<OnCrash>,
}

#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceStop {
    /// How long the guest may take before it is ended, in seconds, 0 to 3600; the instance's own setting unless given.
    #[serde(default)]
    pub timeout_secs: Option<u32>,
    /// Stops at once, without asking the guest.
    #[serde(default)]
    pub hard: bool,
}

#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceReboot {
    /// Resets the instance, without asking the guest.
    #[serde(default)]
    pub hard: bool,
}

/// A flavor, or sizes; sizes that aren't named stay.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceResize {
    #[serde(default)]
    pub flavor: Option<String>,
    #[serde(default)]
    pub vcpus: Option<u32>,
    #[serde(default)]
    pub memory_mib: Option<u64>,
    #[serde(default)]
    pub disk_gib: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceRebuild {
    /// Id or name; the image that it was created from unless given.
    #[serde(default)]
    pub image: Option<String>,
}

/// A request without fields: `{}` or nothing.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}
