//! Images on the wire.

use super::{InvalidMessage, parse, unknown};
use crate::{agent::v1 as agent, storage::v1 as pb};
use domain::{
    Timestamp,
    image::{DiskFormat, Image, ImageKind, ImagePart, ImagePartKind, ImageState, Visibility},
};

#[must_use]
pub fn image_to_pb(image: &Image) -> pb::Image {
    pb::Image {
        id: image.id.to_string(),
        project_id: image.project_id.to_string(),
        name: image.name.to_string(),
        visibility: image.visibility.as_str().to_owned(),
        kind: image.kind.as_str().to_owned(),
        format: image.format.as_str().to_owned(),
        cmdline: image.cmdline.clone(),
        min_disk_gib: image.min_disk_gib,
        min_memory_mib: image.min_memory_mib,
        state: image.state.as_str().to_owned(),
        parts: image
            .parts
            .iter()
            .map(|p| pb::Part { kind: p.kind.as_str().to_owned(), sha256: p.sha256.clone(), size_bytes: p.size_bytes })
            .collect(),
        reason: image.reason.clone(),
        deadline_at: image.deadline_at.map(|t| t.0),
        generation: image.generation,
        created_at: image.created_at.0,
    }
}

pub fn image_from_pb(image: pb::Image) -> Result<Image, InvalidMessage> {
    let parts = image.parts.into_iter().map(|p| {
        let kind = ImagePartKind::parse(&p.kind).ok_or_else(|| unknown("part.kind", &p.kind))?;
        Ok(ImagePart { kind, sha256: p.sha256, size_bytes: p.size_bytes })
    });
    Ok(Image {
        id: parse("id", &image.id)?,
        project_id: parse("project_id", &image.project_id)?,
        name: parse("name", &image.name)?,
        visibility: Visibility::parse(&image.visibility).ok_or_else(|| unknown("visibility", &image.visibility))?,
        kind: ImageKind::parse(&image.kind).ok_or_else(|| unknown("kind", &image.kind))?,
        format: DiskFormat::parse(&image.format).ok_or_else(|| unknown("format", &image.format))?,
        cmdline: image.cmdline,
        min_disk_gib: image.min_disk_gib,
        min_memory_mib: image.min_memory_mib,
        state: ImageState::parse(&image.state).ok_or_else(|| unknown("state", &image.state))?,
        parts: parts.collect::<Result<_, _>>()?,
        reason: image.reason,
        deadline_at: image.deadline_at.map(Timestamp),
        generation: image.generation,
        created_at: Timestamp(image.created_at),
    })
}

/// What a host needs of an image.
#[must_use]
pub fn image_to_desired(image: &Image) -> agent::DesiredImage {
    agent::DesiredImage {
        image_id: image.id.to_string(),
        kind: image.kind.as_str().to_owned(),
        format: image.format.as_str().to_owned(),
        cmdline: image.cmdline.clone(),
        parts: image
            .parts
            .iter()
            .map(|p| agent::ImagePart {
                kind: p.kind.as_str().to_owned(),
                sha256: p.sha256.clone(),
                size_bytes: p.size_bytes,
            })
            .collect(),
    }
}
