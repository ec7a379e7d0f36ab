//! Whether an image can be booted with a size. The bounds of a request by itself are `domain::validate`'s.

use domain::{
    ErrorKind, ImageId, Problem, ProjectId,
    flavor::Size,
    image::{Image, ImageKind, ImageState, usable_by},
};

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
