//! Images as a caller sees them, and what is sent to make one.

pub use api_types::Image as ImageView;

use super::names::{DiskFormatName, ImageKindName, VisibilityName};
use domain::image::{DiskFormat, ImageKind, Visibility};
use serde::Deserialize;
use utoipa::ToSchema;

/// An image without bytes yet: they come with `PUT …/parts/{part}`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageCreate {
    /// 1 to 63 characters of a-z, 0-9 and '-', starting with a letter.
    pub name: String,
    /// `disk`: boots from its disk, part `disk`. `kernel`: boots directly, parts `kernel` and `initrd`.
    #[schema(value_type = ImageKindName)]
    pub kind: ImageKind,
    /// The format of a disk image; `qcow2` unless given.
    #[serde(default)]
    #[schema(value_type = Option<DiskFormatName>)]
    pub format: Option<DiskFormat>,
    /// The command line of a kernel image.
    #[serde(default)]
    pub cmdline: Option<String>,
    #[serde(default)]
    pub min_memory_mib: Option<u64>,
    /// `private` unless given; only system admins create public images.
    #[serde(default)]
    #[schema(value_type = Option<VisibilityName>)]
    pub visibility: Option<Visibility>,
}

/// Bytes, for the API's description.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)]
pub struct ImageBytes(Vec<u8>);
