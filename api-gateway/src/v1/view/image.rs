//! Images as a caller sees them, and what is sent to make one.

use super::names::{DiskFormatName, ImageKindName, ImagePartName, ImageStateName, VisibilityName};
use domain::{
    ImageId, Name, ProjectId, Timestamp,
    image::{DiskFormat, Image, ImageKind, ImagePart, ImagePartKind, ImageState, Visibility},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = Image)]
pub struct ImageView {
    #[schema(value_type = String, format = "uuid")]
    pub id: ImageId,
    /// The project that made it; a public one may be used from every project.
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    #[schema(value_type = VisibilityName)]
    pub visibility: Visibility,
    #[schema(value_type = ImageKindName)]
    pub kind: ImageKind,
    /// Null for kernel images.
    #[schema(value_type = Option<DiskFormatName>)]
    pub format: Option<DiskFormat>,
    /// Of the kernel, for kernel images.
    pub cmdline: String,
    /// The smallest root disk that holds it.
    pub min_disk_gib: u64,
    pub min_memory_mib: u64,
    #[schema(value_type = ImageStateName)]
    pub state: ImageState,
    pub parts: Vec<ImagePartView>,
    /// Why it isn't active.
    pub reason: String,
    /// A queued image whose parts haven't come by then is removed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ImagePart)]
pub struct ImagePartView {
    #[schema(value_type = ImagePartName)]
    pub kind: ImagePartKind,
    /// Lower-case hex.
    pub sha256: String,
    pub size_bytes: u64,
}

impl From<ImagePart> for ImagePartView {
    fn from(part: ImagePart) -> Self {
        let ImagePart { kind, sha256, size_bytes } = part;
        Self { kind, sha256, size_bytes }
    }
}

impl From<Image> for ImageView {
    fn from(image: Image) -> Self {
        Self {
            id: image.id,
            project_id: image.project_id,
            name: image.name,
            visibility: image.visibility,
            kind: image.kind,
            format: (image.kind == ImageKind::Disk).then_some(image.format),
            cmdline: image.cmdline,
            min_disk_gib: image.min_disk_gib,
            min_memory_mib: image.min_memory_mib,
            state: image.state,
            parts: image.parts.into_iter().map(ImagePartView::from).collect(),
            reason: image.reason,
            deadline_at: image.deadline_at,
            generation: image.generation,
            created_at: image.created_at,
        }
    }
}

/// An image without bytes yet: they come with `PUT …/parts/{part}`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter.
    pub name: String,
    /// `disk`: boots from its disk, part `disk`. `kernel`: boots directly, parts `kernel` and `initrd`.
    #[schema(value_type = ImageKindName)]
    pub kind: ImageKind,
    /// Of a disk image; `qcow2` unless said.
    #[serde(default)]
    #[schema(value_type = Option<DiskFormatName>)]
    pub format: Option<DiskFormat>,
    /// Of a kernel image.
    #[serde(default)]
    pub cmdline: Option<String>,
    #[serde(default)]
    pub min_memory_mib: Option<u64>,
    /// `private` unless said; only system admins make public ones.
    #[serde(default)]
    #[schema(value_type = Option<VisibilityName>)]
    pub visibility: Option<Visibility>,
}

/// Bytes, for the API's description.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)]
pub struct ImageBytes(Vec<u8>);
