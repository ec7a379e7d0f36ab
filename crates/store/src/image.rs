//! Images: their rows; the bytes are in the object store, by SHA-256. Written by the storage-manager.

use crate::{Page, ReadError, Store, engine::read::Count};
use domain::{
    ImageId, Name, ProjectId, Timestamp,
    image::{DiskFormat, Image, ImageKind, ImagePart, ImageState, Visibility},
};
use std::collections::BTreeSet;

op! {
    /// The row starts at generation 1.
    ImageInsert {
        id: ImageId,
        project_id: ProjectId,
        name: Name,
        visibility: Visibility,
        kind: ImageKind,
        format: DiskFormat,
        cmdline: String,
        min_disk_gib: u64,
        min_memory_mib: u64,
        state: ImageState,
        parts: Vec<ImagePart>,
        reason: String,
        deadline_at: Option<Timestamp>,
        created_at: Timestamp,
    }
    on image, Insert by (id): insert { generation = "1" }
}

op! {
    /// This raises the generation.
    ImageChange {
        id: ImageId,
        expected_generation: i64,
        state: ImageState,
        parts: Vec<ImagePart>,
        format: DiskFormat,
        min_disk_gib: u64,
        reason: String,
        deadline_at: Option<Timestamp>,
    }
    on image, Change by (id), guard ImageGeneration:
    "UPDATE image SET state = r.state, parts = r.parts, format = r.format, min_disk_gib = r.min_disk_gib, reason = r.reason,
        deadline_at = r.deadline_at, generation = r.expected_generation + 1
     FROM {rows} WHERE image.id = r.id AND image.generation = r.expected_generation"
}

op! {
    /// Only when no instance holds it (else, or when it is gone already: `ImageInUse`). One whose deletion was accepted holds none.
    ImageDelete { id: ImageId }
    on image, Change by (id), guard ImageInUse:
    "DELETE FROM image WHERE id IN (SELECT r.id FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.image_id = image.id)"
}

record! {
    Image, of image {
        id, project_id, name, visibility, kind, format, cmdline, min_disk_gib, min_memory_mib, state, parts, reason, deadline_at, generation, created_at
    }
}

row! {
    struct PartsRow { parts: Vec<ImagePart> }
}

impl Store {
    /// Of any project: whether the caller may use it is `domain::image::usable_by`.
    pub async fn image_find(&self, id: ImageId) -> Result<Option<Image>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    /// The project's own of that name, else the oldest public one.
    pub async fn image_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Image>, ReadError> {
        let sql = "WHERE name = $2 AND (project_id = $1 OR visibility = 'public')
             ORDER BY CASE WHEN project_id = $1 THEN 0 ELSE 1 END, id LIMIT 1";
        self.pool().find(sql, [project_id.into(), name.into()]).await
    }

    /// The images that the project may use: its own and public ones.
    pub async fn image_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Image>, ReadError> {
        let sql = "WHERE (project_id = $1 OR visibility = 'public') AND id > $2 ORDER BY id LIMIT $3";
        self.pool().list(sql, [project_id.into(), page.after_text().into(), page.limit.into()]).await
    }

    pub(crate) async fn image_load_many(&self, ids: &[ImageId]) -> Result<Vec<Image>, ReadError> {
        self.pool().list_among("id", ids).await
    }

    /// The images whose deadline has passed, the longest overdue first.
    pub async fn image_deadline_passed(&self, now: Timestamp) -> Result<Vec<Image>, ReadError> {
        let sql = "WHERE deadline_at IS NOT NULL AND deadline_at <= $1 ORDER BY deadline_at, id";
        self.pool().list(sql, [now.into()]).await
    }

    /// The images whose deletion was begun.
    pub async fn image_deleting(&self) -> Result<Vec<Image>, ReadError> {
        self.pool().list("WHERE state = 'deleting' ORDER BY id", []).await
    }

    /// Instances that keep it from being deleted.
    pub async fn image_use_count(&self, id: ImageId) -> Result<i64, ReadError> {
        let sql = "SELECT count(*) AS n FROM instance WHERE image_id = $1";
        let count: Count = self.pool().fetch_one(sql, [id.into()]).await?;
        Ok(count.n)
    }

    /// The SHA-256 of every part that some image refers to: the objects to keep.
    pub async fn image_hashes(&self) -> Result<BTreeSet<String>, ReadError> {
        let rows: Vec<PartsRow> = self.pool().fetch_all("SELECT parts FROM image", []).await?;
        Ok(rows.into_iter().flat_map(|row| row.parts).map(|part| part.sha256).collect())
    }
}
