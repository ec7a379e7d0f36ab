//! Images: what a root disk starts from (`disk`), or a kernel with its initrd (`kernel`). Their bytes are parts, each addressed by its
//! SHA-256.

use crate::{ImageId, Name, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};

string_enum! {
    pub enum ImageKind {
        /// The image boots from a disk through the firmware. Its only part is `disk`.
        Disk = "disk",
        /// The image boots directly. Its parts are `kernel` and `initrd`.
        Kernel = "kernel",
    }
}

string_enum! {
    pub enum ImagePartKind {
        Disk = "disk",
        Kernel = "kernel",
        Initrd = "initrd",
    }
}

string_enum! {
    pub enum DiskFormat {
        Qcow2 = "qcow2",
        Raw = "raw",
    }
}

string_enum! {
    pub enum ImageState {
        /// The image waits for its parts until a deadline.
        Queued = "queued",
        Active = "active",
        Deleting = "deleting",
    }
}

string_enum! {
    pub enum Visibility {
        Private = "private",
        /// Every project may use it; only a system admin makes one.
        Public = "public",
    }
}

impl ImageKind {
    #[must_use]
    pub fn parts(self) -> &'static [ImagePartKind] {
        match self {
            Self::Disk => &[ImagePartKind::Disk],
            Self::Kernel => &[ImagePartKind::Kernel, ImagePartKind::Initrd],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePart {
    pub kind: ImagePartKind,
    /// The SHA-256 of the part's bytes in lower-case hexadecimal digits.
    pub sha256: String,
    pub size_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub id: ImageId,
    pub project_id: ProjectId,
    pub name: Name,
    pub visibility: Visibility,
    pub kind: ImageKind,
    /// The format of the part `disk`; `raw` for kernel images.
    pub format: DiskFormat,
    /// The kernel's command line, for kernel images.
    pub cmdline: String,
    /// The smallest root disk that holds it (the image's virtual size, rounded up).
    pub min_disk_gib: u64,
    pub min_memory_mib: u64,
    pub state: ImageState,
    pub parts: Vec<ImagePart>,
    pub reason: String,
    pub deadline_at: Option<Timestamp>,
    pub generation: i64,
    pub created_at: Timestamp,
}

/// What an image with these parts takes of its project's quota, whole GiB.
#[must_use]
pub fn size_gib(parts: &[ImagePart]) -> u64 {
    gib_of(parts.iter().map(|part| part.size_bytes).fold(0, u64::saturating_add))
}

/// So many bytes, in whole GiB.
#[must_use]
pub fn gib_of(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
}

/// Whether a project may use an image.
#[must_use]
pub fn usable_by(image: &Image, project_id: ProjectId) -> bool {
    image.project_id == project_id || image.visibility == Visibility::Public
}
