//! What a request may ask for at all, before anything is claimed: bounds, and whether the image fits the size. Every wrong field is
//! named at once.

use domain::{
    ErrorKind, ImageId, Problem, ProjectId,
    flavor::Size,
    image::{Image, ImageKind, ImageState, usable_by},
    instance::{InstanceSpec, OnHostLoss},
    limits,
};
use std::collections::BTreeMap;

/// The bounds of a size.
pub fn check_size(size: Size) -> Result<(), Problem> {
    let mut wrong = Vec::new();
    if !(1..=limits::VCPUS_MAX).contains(&size.vcpus) {
        wrong.push(("vcpus", format!("must be 1 to {}", limits::VCPUS_MAX)));
    }
    if !(limits::MEMORY_MIB_MIN..=limits::MEMORY_MIB_MAX).contains(&size.memory_mib) {
        wrong.push(("memory_mib", format!("must be {} to {}", limits::MEMORY_MIB_MIN, limits::MEMORY_MIB_MAX)));
    }
    if size.disk_gib > limits::DISK_GIB_MAX {
        wrong.push(("disk_gib", format!("must be at most {}", limits::DISK_GIB_MAX)));
    }
    collect(wrong)
}

/// The bounds of the rest of a spec.
pub fn check_spec(spec: &InstanceSpec) -> Result<(), Problem> {
    let mut wrong = Vec::new();
    if spec.ssh_keys.len() > limits::SSH_KEYS_PER_INSTANCE {
        wrong.push(("ssh_keys", format!("at most {}", limits::SSH_KEYS_PER_INSTANCE)));
    }
    if spec.ssh_keys.iter().any(|k| k.len() > limits::SSH_KEY_BYTES) {
        wrong.push(("ssh_keys", format!("a key has at most {} bytes", limits::SSH_KEY_BYTES)));
    }
    // Base64 carries 3 bytes in 4.
    if spec.user_data_base64.len().div_ceil(4) * 3 > limits::USER_DATA_BYTES + 2 {
        wrong.push(("user_data", format!("at most {} bytes", limits::USER_DATA_BYTES)));
    }
    let wishes = &spec.placement;
    if wishes.groups.len() > limits::PLACEMENT_GROUPS_PER_INSTANCE {
        wrong.push(("placement/groups", format!("at most {}", limits::PLACEMENT_GROUPS_PER_INSTANCE)));
    }
    let most = limits::PLACEMENT_TAGS_PER_INSTANCE;
    if wishes.required_tags.len() > most || wishes.forbidden_tags.len() > most {
        wrong.push(("placement", format!("at most {most} tags each")));
    }
    if wishes.cpu_features.len() > limits::CPU_FEATURES_PER_INSTANCE {
        wrong.push(("placement/cpu_features", format!("at most {}", limits::CPU_FEATURES_PER_INSTANCE)));
    }
    collect(wrong)?;
    check_size(spec.size)?;
    if spec.on_host_loss == OnHostLoss::Restart && spec.size.disk_gib > 0 {
        return Err(Problem::new(
            ErrorKind::InvalidState,
            "local_disk",
            "on_host_loss: restart needs disks that outlive the host, and this root disk is on the host's local pool",
        )
        .with_hint("use on_host_loss: recreate or wait, or an image that runs from memory with disk_gib 0"));
    }
    Ok(())
}

pub fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), Problem> {
    let mut wrong = Vec::new();
    if tags.len() > limits::TAGS_PER_OBJECT {
        wrong.push(("tags", format!("at most {}", limits::TAGS_PER_OBJECT)));
    }
    if tags.keys().any(|k| k.is_empty() || k.len() > limits::TAG_KEY_BYTES) {
        wrong.push(("tags", format!("a key has 1 to {} bytes", limits::TAG_KEY_BYTES)));
    }
    if tags.values().any(|v| v.len() > limits::TAG_VALUE_BYTES) {
        wrong.push(("tags", format!("a value has at most {} bytes", limits::TAG_VALUE_BYTES)));
    }
    collect(wrong)
}

fn collect(wrong: Vec<(&str, String)>) -> Result<(), Problem> {
    let mut wrong = wrong.into_iter();
    let Some((field, detail)) = wrong.next() else { return Ok(()) };
    Err(wrong.fold(Problem::invalid(field, detail), |problem, (field, detail)| problem.with_field(field, detail)))
}

/// Whether `project_id` may boot `image` with `size`.
pub fn check_image(image_id: ImageId, image: Option<&Image>, project_id: ProjectId, size: Size) -> Result<(), Problem> {
    // One that may not be used is one that isn't there.
    let Some(image) = image.filter(|i| usable_by(i, project_id)) else {
        return Err(Problem::not_found("image", image_id));
    };
    match image.state {
        ImageState::Active => {}
        ImageState::Queued => {
            return Err(Problem::new(
                ErrorKind::InvalidState,
                "image_not_active",
                format!("image {} isn't complete yet", image.name),
            )
            .with_hint("upload all of its parts first (iaasctl image upload)"));
        }
        ImageState::Deleting => return Err(Problem::not_found("image", &image.name)),
    }
    if size.memory_mib < image.min_memory_mib {
        let detail = format!("image {} needs at least {} MiB of memory", image.name, image.min_memory_mib);
        return Err(too_small("memory_mib", detail));
    }
    let least_disk = match image.kind {
        ImageKind::Disk => image.min_disk_gib.max(1),
        // Runs from memory; a disk, if any, is scratch space.
        ImageKind::Kernel => 0,
    };
    if size.disk_gib < least_disk {
        let detail = format!("image {} needs a root disk of at least {least_disk} GiB", image.name);
        return Err(too_small("disk_gib", detail));
    }
    Ok(())
}

fn too_small(field: &str, detail: String) -> Problem {
    Problem::new(ErrorKind::InvalidArgument, "size_too_small", detail.clone())
        .with_hint("choose a larger flavor or size")
        .with_field(field, detail)
}
