//! What instances are made of: flavors, images, SSH keys.

use domain::{
    FlavorId, ImageId, ProjectId, SshKeyId, Timestamp,
    flavor::Pinning,
    image::{DiskFormat, ImageKind, ImagePart, ImageState, Visibility},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flavor {
    pub id: FlavorId,
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    #[serde(default)]
    pub pinning: Pinning,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlavorCreate {
    pub name: String,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    #[serde(skip_serializing_if = "Pinning::none")]
    pub pinning: Pinning,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKey {
    pub id: SshKeyId,
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    pub name: String,
    pub public_key: String,
    pub fingerprint: String,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKeyCreate {
    pub name: String,
    pub public_key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub id: ImageId,
    pub project_id: ProjectId,
    pub name: String,
    pub visibility: Visibility,
    pub kind: ImageKind,
    /// None for kernel images.
    #[serde(default)]
    pub format: Option<DiskFormat>,
    #[serde(default)]
    pub cmdline: String,
    #[serde(default)]
    pub min_disk_gib: u64,
    #[serde(default)]
    pub min_memory_mib: u64,
    pub state: ImageState,
    #[serde(default)]
    pub parts: Vec<ImagePart>,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    #[serde(default)]
    pub generation: i64,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageCreate {
    pub name: String,
    pub kind: ImageKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_memory_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}
