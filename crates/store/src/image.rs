//! Images: their rows; the bytes are in the object store, by SHA-256. Written by the storage-manager.

use crate::{Page, ReadError, Store, engine::read::Count};
use domain::{
    HostId, ImageId, Name, ProjectId, Timestamp,
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
        /// What the parts take of the quota: [`domain::image::size_gib`].
        size_gib: u64,
        reason: String,
        deadline_at: Option<Timestamp>,
        created_at: Timestamp,
    }
    on image, Insert by (id): insert { reserved_gib = "0", generation = "1" }
}

op! {
    /// This raises the generation.
    ImageChange {
        id: ImageId,
        expected_generation: i64,
        state: ImageState,
        parts: Vec<ImagePart>,
        /// What the parts take of the quota.
        size_gib: u64,
        format: DiskFormat,
        min_disk_gib: u64,
        reason: String,
        deadline_at: Option<Timestamp>,
    }
    on image, Change by (id), guard ImageGeneration:
    "UPDATE image SET state = r.state, parts = r.parts, size_gib = r.size_gib, format = r.format,
        min_disk_gib = r.min_disk_gib, reason = r.reason, deadline_at = r.deadline_at, generation = r.expected_generation + 1
     FROM {rows} WHERE image.id = r.id AND image.generation = r.expected_generation"
}

op! {
    /// Only when no instance holds it, and uploads have reserved what the caller releases with it (else, or when it is gone already:
    /// `ImageInUse`). An instance whose deletion was accepted holds none.
    ImageDelete { id: ImageId, reserved_gib: u64 }
    on image, Change by (id), guard ImageInUse:
    "DELETE FROM image WHERE (id, reserved_gib) IN (SELECT r.id, r.reserved_gib FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.image_id = image.id)"
}

op! {
    /// A part of the image names the object. It goes with the image.
    ImageObjectPut { sha256: String, image_id: ImageId }
    on image_object, Insert by (sha256, image_id): insert "WHERE TRUE ON CONFLICT (sha256, image_id) DO NOTHING"
}

op! {
    /// An upload reserves so much of the project's quota, or (negative) releases it. Nothing is reserved for an image that is complete or
    /// being deleted. Together with [`crate::StorageUsageAdd`].
    ImageReserve { id: ImageId, gib: i64 }
    on image, Add by (id), guard ImageReservation:
    "UPDATE image SET reserved_gib = image.reserved_gib + s.gib
     FROM (SELECT r.id, CAST(sum(r.gib) AS BIGINT) AS gib FROM {rows} GROUP BY r.id) AS s
     WHERE image.id = s.id AND image.reserved_gib + s.gib >= 0 AND (s.gib <= 0 OR image.state = 'queued')"
}

row! {
    /// What uploads have reserved for an image.
    pub struct ImageReservationRow {
        pub id: ImageId,
        pub project_id: ProjectId,
        pub reserved_gib: u64,
    }
}

record! {
    Image, of image {
        id, project_id, name, visibility, kind, format, cmdline, min_disk_gib, min_memory_mib, state, parts, reason, deadline_at, generation, created_at
    }
}

row! {
    struct ObjectRow { sha256: String }
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

    /// What uploads have reserved for the image; `None` when it is gone.
    pub async fn image_reservation_find(&self, id: ImageId) -> Result<Option<ImageReservationRow>, ReadError> {
        let sql = "SELECT id, project_id, reserved_gib FROM image WHERE id = $1";
        Ok(self.pool().fetch_all(sql, [id.into()]).await?.pop())
    }

    /// The images for which something is reserved.
    pub async fn image_reservation_list(&self) -> Result<Vec<ImageReservationRow>, ReadError> {
        let sql = "SELECT id, project_id, reserved_gib FROM image WHERE reserved_gib > 0 ORDER BY id";
        self.pool().fetch_all(sql, []).await
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
        let rows: Vec<ObjectRow> = self.pool().fetch_all("SELECT DISTINCT sha256 FROM image_object", []).await?;
        Ok(rows.into_iter().map(|row| row.sha256).collect())
    }

    /// Whether some image refers to the object.
    pub async fn image_object_used(&self, sha256: &str) -> Result<bool, ReadError> {
        let sql = "SELECT sha256 FROM image_object WHERE sha256 = $1 LIMIT 1";
        let rows: Vec<ObjectRow> = self.pool().fetch_all(sql, [sha256.into()]).await?;
        Ok(!rows.is_empty())
    }

    /// Whether an instance on the host is made of an image that refers to the object.
    pub async fn image_object_used_on_host(&self, sha256: &str, host_id: HostId) -> Result<bool, ReadError> {
        let sql = "SELECT o.sha256 FROM image_object AS o JOIN instance AS i ON i.image_id = o.image_id
            WHERE o.sha256 = $1 AND i.host_id = $2 LIMIT 1";
        let rows: Vec<ObjectRow> = self.pool().fetch_all(sql, [sha256.into(), host_id.into()]).await?;
        Ok(!rows.is_empty())
    }
}
