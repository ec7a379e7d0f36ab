//! What instances are made of: flavors, images, SSH keys.

use crate::names::{DiskFormatName, ImageKindName, ImagePartName, ImageStateName, PinningName, VisibilityName};
use domain::{
    FlavorId, ImageId, Name, ProjectId, SshKeyId, Timestamp,
    flavor::{self, Pinning},
    image::{self, DiskFormat, ImageKind, ImagePartKind, ImageState, Visibility},
    ssh_key,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flavor {
    #[schema(value_type = String, format = "uuid")]
    pub id: FlavorId,
    #[schema(value_type = String)]
    pub name: Name,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// 0: no root disk, for kernel images, which run from memory.
    pub disk_gib: u64,
    #[schema(value_type = PinningName)]
    pub pinning: Pinning,
    pub description: String,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<flavor::Flavor> for Flavor {
    fn from(flavor: flavor::Flavor) -> Self {
        Self {
            id: flavor.id,
            name: flavor.name,
            vcpus: flavor.size.vcpus,
            memory_mib: flavor.size.memory_mib,
            disk_gib: flavor.size.disk_gib,
            pinning: flavor.pinning,
            description: flavor.description,
            generation: flavor.generation,
            created_at: flavor.created_at,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlavorCreate {
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// `numa`: each vCPU of its instances gets a hardware thread of its own, all of one NUMA node, with memory of that node.
    #[schema(value_type = PinningName)]
    #[serde(default, skip_serializing_if = "Pinning::none")]
    pub pinning: Pinning,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SshKey {
    #[schema(value_type = String, format = "uuid")]
    pub id: SshKeyId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    /// One line with type, base64 and comment.
    pub public_key: String,
    /// The fingerprint as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<ssh_key::SshKey> for SshKey {
    fn from(key: ssh_key::SshKey) -> Self {
        Self {
            id: key.id,
            project_id: key.project_id,
            name: key.name,
            public_key: key.public_key,
            fingerprint: key.fingerprint,
            generation: key.generation,
            created_at: key.created_at,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SshKeyCreate {
    pub name: String,
    /// The line of a `.pub` file.
    pub public_key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    #[schema(value_type = String, format = "uuid")]
    pub id: ImageId,
    /// The project that created it; a public image can be used in every project.
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
    /// The kernel's command line, for kernel images.
    pub cmdline: String,
    /// The smallest root disk that holds it.
    pub min_disk_gib: u64,
    pub min_memory_mib: u64,
    #[schema(value_type = ImageStateName)]
    pub state: ImageState,
    pub parts: Vec<ImagePart>,
    /// Why it isn't active.
    pub reason: String,
    /// A queued image whose parts aren't uploaded by then is removed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline_at: Option<Timestamp>,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// An image without bytes yet: they come with `PUT …/parts/{part}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter.
    pub name: String,
    /// `disk`: boots from its disk, part `disk`. `kernel`: boots directly, parts `kernel` and `initrd`.
    #[schema(value_type = ImageKindName)]
    pub kind: ImageKind,
    /// The format of a disk image; `qcow2` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DiskFormatName>)]
    pub format: Option<DiskFormat>,
    /// The command line of a kernel image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_memory_mib: Option<u64>,
    /// `private` unless given; only system admins create public images.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<VisibilityName>)]
    pub visibility: Option<Visibility>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImagePart {
    #[schema(value_type = ImagePartName)]
    pub kind: ImagePartKind,
    /// Lower-case hex.
    pub sha256: String,
    pub size_bytes: u64,
}

impl From<image::ImagePart> for ImagePart {
    fn from(part: image::ImagePart) -> Self {
        let image::ImagePart { kind, sha256, size_bytes } = part;
        Self { kind, sha256, size_bytes }
    }
}

impl From<image::Image> for Image {
    fn from(image: image::Image) -> Self {
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
            parts: image.parts.into_iter().map(ImagePart::from).collect(),
            reason: image.reason,
            deadline_at: image.deadline_at,
            generation: image.generation,
            created_at: image.created_at,
        }
    }
}
