//! Instances as a caller sees them.

pub use api_types::{Instance as InstanceView, InstancesMade, NotMade};

use super::nic::nic_view;
use crate::{
    app::{instance::NotCreated, network::related::Related},
    auth::caller::SystemRole,
};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use domain::{
    Timestamp,
    host::HostState,
    instance::{Instance, InstanceState, InstanceStatus},
    ssh_key,
};
use sha2::{Digest, Sha256};

#[must_use]
pub fn instance_view(instance: Instance, related: &Related, role: SystemRole) -> InstanceView {
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
    let reason = reason(&status, spec.deleted, host_id.and_then(|id| related.hosts_away.get(&id)));
    InstanceView {
        id,
        project_id,
        name,
        tags,
        generation,
        epoch: admin.then_some(epoch),
        host_id: host_id.filter(|_| admin),
        state: status.state,
        step: status.step,
        reason,
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
        pool: spec.pool,
        ssh_keys: spec.ssh_keys.iter().map(|line| fingerprint_line(line)).collect(),
        nics: spec.nics.into_iter().map(|nic| nic_view(nic, related)).collect(),
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

/// Why it is as it is. While its host isn't there, its state is what was last observed, and that is what its owner must know first.
fn reason(status: &InstanceStatus, deleted: bool, away: Option<&(HostState, Timestamp)>) -> String {
    let Some((state, since)) = away else { return status.reason.clone() };
    let what = match state {
        HostState::Lost if deleted || status.state == InstanceState::Recovering => return status.reason.clone(),
        HostState::Lost => {
            "its host was lost, and it waits for that host: its state is what was last observed. Delete it if you don't want to wait"
        }
        HostState::Disconnected => "its host can't be reached: its state is what was last observed",
        HostState::Up | HostState::Held | HostState::DiskFull => return status.reason.clone(),
    };
    // What a failed instance failed with is its owner's as well.
    let before = if status.state == InstanceState::Error { format!("{}; ", status.reason) } else { String::new() };
    format!("{before}{what} (since {since})")
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

#[must_use]
pub fn not_made(not_created: NotCreated, role: SystemRole) -> NotMade {
    let NotCreated { names, record } = not_created;
    let placement = match role {
        SystemRole::Admin => record,
        SystemRole::Tenant => record.redacted(),
    };
    NotMade { names, why: placement.summary.clone(), hint: placement.hint.clone(), placement }
}
