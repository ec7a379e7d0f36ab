//! What a request means for what is there: decisions without I/O.

use domain::{
    ErrorKind, Problem, ProjectId, Timestamp,
    image::{self, Image, ImagePart, ImagePartKind, ImageState},
    validate,
};
use std::collections::BTreeMap;
use store::{DiskRow, DiskState, ImageChange, ImageDelete, StorageUsageAdd, Unit};

/// What an uploaded part does to its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartPlan {
    /// It is there already, with the same bytes.
    Repeat,
    /// The image as it will be.
    Add(Image),
}

/// Adds a part whose bytes are `part`, with the root disk that it needs (0 unless it is a disk).
pub fn plan_part(image: &Image, part: ImagePart, min_disk_gib: u64) -> Result<PartPlan, Problem> {
    if !image.kind.parts().contains(&part.kind) {
        let possible: Vec<&str> = image.kind.parts().iter().map(|p| p.as_str()).collect();
        return Err(Problem::invalid(
            "part",
            format!(
                "a {} image has no part `{}`, only: {}",
                image.kind.as_str(),
                part.kind.as_str(),
                possible.join(", ")
            ),
        ));
    }
    if image.state == ImageState::Deleting {
        return Err(Problem::invalid_state(format!("the image {} is being deleted", image.name)));
    }
    if let Some(there) = image.parts.iter().find(|p| p.kind == part.kind) {
        if there.sha256 == part.sha256 {
            return Ok(PartPlan::Repeat);
        }
        return Err(part_exists(image, part.kind));
    }
    let mut next = image.clone();
    next.parts.push(part);
    next.parts.sort_by_key(|p| p.kind);
    next.min_disk_gib = next.min_disk_gib.max(min_disk_gib);
    next.generation += 1;
    if next.kind.parts().iter().all(|kind| next.parts.iter().any(|p| p.kind == *kind)) {
        next.state = ImageState::Active;
        next.deadline_at = None;
        next.reason = String::new();
    }
    Ok(PartPlan::Add(next))
}

/// The code of [`part_exists`].
pub const PART_EXISTS: &str = "part_exists";

/// The content of an image never changes: instances were made from it.
#[must_use]
pub fn part_exists(image: &Image, part: ImagePartKind) -> Problem {
    Problem::new(
        ErrorKind::InvalidState,
        PART_EXISTS,
        format!("the image {} has its part `{}` already, with other bytes", image.name, part.as_str()),
    )
    .with_hint("an image's content never changes: make a new image, or delete this one first")
}

/// The end of an image: its row goes, fenced by its generation and by what uploads have reserved, and with it all that it takes of the quota.
pub fn push_removal(unit: &mut Unit, image: &Image, reserved_gib: u64) {
    let size_gib = image::size_gib(&image.parts);
    unit.push(ImageChange {
        id: image.id,
        expected_generation: image.generation,
        state: ImageState::Deleting,
        parts: image.parts.clone(),
        size_gib,
        format: image.format,
        min_disk_gib: image.min_disk_gib,
        reason: image.reason.clone(),
        deadline_at: None,
    });
    unit.push(ImageDelete { id: image.id, reserved_gib });
    unit.push(StorageUsageAdd::image(image.project_id, -1, -gib(size_gib) - gib(reserved_gib)));
}

/// The removal alone.
#[must_use]
pub fn removal(image: &Image, reserved_gib: u64) -> Unit {
    let mut unit = Unit::new();
    push_removal(&mut unit, image, reserved_gib);
    unit
}

/// Checks what people may say of a new image.
pub fn check_image(image: &Image) -> Result<(), Problem> {
    validate::check(|v| {
        validate::image::cmdline(v, "cmdline", image.kind, &image.cmdline);
        validate::image::min_memory_mib(v, "min_memory_mib", image.min_memory_mib);
    })
}

/// Whether a standing disk row is what a reservation requests: then the reservation is a repeat.
pub fn same_reservation(there: &DiskRow, requested: &DiskRow) -> Result<(), Problem> {
    let same = there.instance_id == requested.instance_id
        && there.project_id == requested.project_id
        && there.role == requested.role
        && there.pool == requested.pool
        && there.size_gib == requested.size_gib;
    match there.state {
        DiskState::Reserved | DiskState::Confirmed if same => Ok(()),
        DiskState::Reserved | DiskState::Confirmed => {
            Err(Problem::invalid_state(format!("the disk {} is reserved for something else", there.id)))
        }
        DiskState::Releasing => Err(Problem::invalid_state(format!("the disk {} is being released", there.id))),
    }
}

/// What confirming a disk comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfirmPlan {
    Confirm,
    /// Confirmed for this or a later epoch already: nothing to do.
    Done,
    /// The reservation is gone: reserve anew.
    Expired,
}

#[must_use]
pub fn plan_confirm(there: Option<&DiskRow>, requested: &store::DiskConfirm) -> ConfirmPlan {
    match there {
        Some(disk) if disk.instance_id != requested.instance_id => ConfirmPlan::Expired,
        None => ConfirmPlan::Expired,
        Some(disk) => match disk.state {
            DiskState::Releasing => ConfirmPlan::Expired,
            DiskState::Reserved => ConfirmPlan::Confirm,
            DiskState::Confirmed if disk.epoch > requested.epoch => ConfirmPlan::Done,
            DiskState::Confirmed if disk.epoch == requested.epoch && disk.host_id == Some(requested.host_id) => {
                ConfirmPlan::Done
            }
            DiskState::Confirmed => ConfirmPlan::Confirm,
        },
    }
}

/// GiB per project, of the disks whose usage counts.
#[must_use]
pub fn usage_by_project<'a>(disks: impl IntoIterator<Item = &'a DiskRow>) -> BTreeMap<ProjectId, i64> {
    let mut sums = BTreeMap::new();
    for disk in disks {
        match disk.state {
            DiskState::Reserved | DiskState::Confirmed => {
                *sums.entry(disk.project_id).or_insert(0) += gib(disk.size_gib);
            }
            DiskState::Releasing => {}
        }
    }
    sums
}

/// A size as usage counts it.
#[must_use]
pub fn gib(size_gib: u64) -> i64 {
    i64::try_from(size_gib).unwrap_or(i64::MAX)
}

/// Whether an image's deadline should be pushed out for an upload in progress: when less than half of it is left.
#[must_use]
pub fn deadline_due(image: &Image, now: Timestamp, deadline_secs: u64) -> bool {
    image.deadline_at.is_some_and(|at| at < now.plus_secs(deadline_secs / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{
        DiskId, HostId, ImageId, InstanceId,
        image::{DiskFormat, ImageKind, Visibility},
    };

    fn image(kind: ImageKind) -> Image {
        Image {
            id: ImageId::new(),
            project_id: ProjectId::new(),
            name: "tiny".parse().expect("a name"),
            visibility: Visibility::Private,
            kind,
            format: DiskFormat::Raw,
            cmdline: String::new(),
            min_disk_gib: 0,
            min_memory_mib: 0,
            state: ImageState::Queued,
            parts: Vec::new(),
            reason: "waits for its parts".into(),
            deadline_at: Some(Timestamp(1000)),
            generation: 1,
            created_at: Timestamp(0),
        }
    }

    fn part(kind: ImagePartKind, sha256: &str) -> ImagePart {
        ImagePart { kind, sha256: sha256.into(), size_bytes: 1 }
    }

    #[test]
    fn an_image_is_active_when_all_its_parts_are_there() {
        let queued = image(ImageKind::Kernel);
        let Ok(PartPlan::Add(half)) = plan_part(&queued, part(ImagePartKind::Initrd, "b"), 0) else {
            panic!("the first part is added")
        };
        assert_eq!((half.state, half.deadline_at, half.generation), (ImageState::Queued, Some(Timestamp(1000)), 2));
        let Ok(PartPlan::Add(whole)) = plan_part(&half, part(ImagePartKind::Kernel, "a"), 0) else {
            panic!("the second part is added")
        };
        assert_eq!((whole.state, whole.deadline_at, whole.reason.as_str()), (ImageState::Active, None, ""));
        assert_eq!(whole.parts[0].kind, ImagePartKind::Kernel);
        assert_eq!(plan_part(&whole, part(ImagePartKind::Kernel, "a"), 0), Ok(PartPlan::Repeat));
        assert_eq!(
            plan_part(&whole, part(ImagePartKind::Kernel, "c"), 0).expect_err("other bytes").code,
            "part_exists"
        );
        let foreign = plan_part(&queued, part(ImagePartKind::Disk, "a"), 0).expect_err("no such part");
        assert_eq!(foreign.kind, ErrorKind::InvalidArgument);
    }

    #[test]
    fn a_disk_image_says_what_root_disk_it_needs() {
        let Ok(PartPlan::Add(active)) = plan_part(&image(ImageKind::Disk), part(ImagePartKind::Disk, "a"), 3) else {
            panic!("added")
        };
        assert_eq!((active.state, active.min_disk_gib), (ImageState::Active, 3));
    }

    #[test]
    fn command_lines_are_for_kernels_and_printable() {
        let mut kernel = image(ImageKind::Kernel);
        kernel.cmdline = "console=ttyS0 quiet".into();
        assert_eq!(check_image(&kernel), Ok(()));
        kernel.kind = ImageKind::Disk;
        assert!(check_image(&kernel).is_err());
        let mut strange = image(ImageKind::Kernel);
        strange.cmdline = "a\nb".into();
        assert!(check_image(&strange).is_err());
    }

    #[test]
    fn confirming_is_fenced_by_the_epoch_and_says_what_expired() {
        let (instance_id, host_id) = (InstanceId::new(), HostId::new());
        let disk = |state, epoch| DiskRow {
            id: DiskId::new(),
            project_id: ProjectId::new(),
            instance_id,
            role: "root".into(),
            pool: "local".into(),
            size_gib: 2,
            host_id: Some(host_id),
            epoch,
            state,
            expires_at: None,
            generation: 1,
            created_at: Timestamp(0),
        };
        let requested = |epoch| store::DiskConfirm { id: DiskId::new(), instance_id, host_id, epoch };
        assert_eq!(plan_confirm(None, &requested(1)), ConfirmPlan::Expired);
        assert_eq!(plan_confirm(Some(&disk(DiskState::Reserved, 0)), &requested(1)), ConfirmPlan::Confirm);
        assert_eq!(plan_confirm(Some(&disk(DiskState::Confirmed, 1)), &requested(1)), ConfirmPlan::Done);
        assert_eq!(plan_confirm(Some(&disk(DiskState::Confirmed, 1)), &requested(2)), ConfirmPlan::Confirm);
        assert_eq!(plan_confirm(Some(&disk(DiskState::Confirmed, 3)), &requested(2)), ConfirmPlan::Done);
        assert_eq!(plan_confirm(Some(&disk(DiskState::Releasing, 1)), &requested(1)), ConfirmPlan::Expired);
        let foreign = store::DiskConfirm { instance_id: InstanceId::new(), ..requested(1) };
        assert_eq!(plan_confirm(Some(&disk(DiskState::Reserved, 0)), &foreign), ConfirmPlan::Expired);
        let disks = [disk(DiskState::Reserved, 0), disk(DiskState::Releasing, 1)];
        assert_eq!(usage_by_project(&disks).values().copied().collect::<Vec<_>>(), [2]);
    }
}
