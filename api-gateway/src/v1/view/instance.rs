//! Instances as a caller sees them.

use super::{
    names::{InstanceStateName, OnCrashName, OnHostLossName, PowerName},
    nic::NicView,
    placement::PlacementView,
};
use crate::app::network::related::Related;
use crate::{app::instance::NotCreated, auth::caller::SystemRole};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use domain::{
    DiskId, HostId, ImageId, InstanceId, Name, ProjectId, Timestamp,
    explain::PlacementRecord,
    instance::{Instance, InstanceState, OnCrash, OnHostLoss, Power},
    ssh_key,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub struct InstanceView {
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
    pub placement: PlacementView,
    /// The CPU that it was placed on, and may migrate within: `cpu_baseline` of hosts. Null where its host doesn't report one.
    pub cpu_baseline: Option<String>,
    /// The node of its host that its vCPUs are pinned to. For system admins only, else null.
    pub numa_node: Option<u32>,
    #[schema(value_type = OnCrashName)]
    pub on_crash: OnCrash,
    #[schema(value_type = OnHostLossName)]
    pub on_host_loss: OnHostLoss,
    /// Fingerprint and comment of each: "SHA256:… ann@laptop".
    pub ssh_keys: Vec<String>,
    /// Its network interfaces (NICs), in the order in which the guest sees them.
    pub nics: Vec<NicView>,
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

impl InstanceView {
    #[must_use]
    pub fn new(instance: Instance, related: &Related, role: SystemRole) -> Self {
        let Instance {
            id,
            project_id,
            name,
            tags,
            generation,
            epoch,
            host_id,
            root_disk_id,
            spec,
            status,
            placement: _,
            binding,
            created_at,
            updated_at,
        } = instance;
        let admin = role == SystemRole::Admin;
        Self {
            id,
            project_id,
            name,
            tags,
            generation,
            epoch: admin.then_some(epoch),
            host_id: host_id.filter(|_| admin),
            state: status.state,
            step: status.step,
            reason: status.reason,
            power: spec.power,
            image_id: spec.image_id,
            flavor: Some(spec.flavor).filter(|name| !name.is_empty()),
            vcpus: spec.size.vcpus,
            memory_mib: spec.size.memory_mib,
            disk_gib: spec.size.disk_gib,
            zone: spec.zone,
            placement: spec.placement.into(),
            cpu_baseline: binding.cpu_baseline,
            numa_node: binding.numa_node.filter(|_| admin),
            on_crash: spec.on_crash,
            on_host_loss: spec.on_host_loss,
            ssh_keys: spec.ssh_keys.iter().map(|line| fingerprint_line(line)).collect(),
            nics: spec.nics.into_iter().map(|nic| NicView::new(nic, related)).collect(),
            root_disk_id,
            observed_generation: status.observed_generation,
            deadline_at: status.deadline_at,
            started_at: status.started_at,
            guest_up_at: status.guest_up_at,
            crash_count: status.crash_count,
            created_at,
            updated_at,
        }
    }
}

/// A key as `ssh-keygen -l` tells keys apart: its fingerprint and its comment.
fn fingerprint_line(line: &str) -> String {
    let (line, fingerprint) = match ssh_key::parse_public_key(line) {
        Ok(parsed) => parsed,
        // Stored before a rule got stricter: still told apart.
        Err(_) => {
            (line.to_owned(), format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(line.as_bytes()))))
        }
    };
    match line.splitn(3, ' ').nth(2) {
        Some(comment) => format!("{fingerprint} {comment}"),
        None => fingerprint,
    }
}

/// Instances that were created at once.
#[derive(Serialize, ToSchema)]
pub struct InstancesView {
    pub items: Vec<InstanceView>,
    /// With `fill: as_many_as_fit`, when there was no host for some of them; else null.
    pub not_made: Option<NotMadeView>,
}

/// Instances that were requested and not created, because no host had the capacity.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotMade)]
pub struct NotMadeView {
    pub names: Vec<String>,
    /// One sentence.
    pub why: String,
    /// What would help.
    pub hint: String,
    /// Hosts rejected per filter, the nearest fit; for tenants without hosts.
    #[schema(value_type = Object)]
    pub placement: PlacementRecord,
}

impl NotMadeView {
    #[must_use]
    pub fn new(not_created: NotCreated, role: SystemRole) -> Self {
        let NotCreated { names, record } = not_created;
        let placement = match role {
            SystemRole::Admin => record,
            SystemRole::Tenant => record.redacted(),
        };
        Self { names, why: placement.summary.clone(), hint: placement.hint.clone(), placement }
    }
}
