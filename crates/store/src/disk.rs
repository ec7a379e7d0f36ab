//! Instances' disks: reservations first, then attachments. Written by the storage-manager.
//!
//! `reserved` (with an expiry) → `confirmed` (the owner committed) → `releasing` (the owner's deletion was accepted; quota given back) → the
//! row goes when the host proved that the disk is gone. Storage usage counts what is reserved or confirmed. An op that goes together with a
//! [`crate::StorageUsageAdd`] is guarded, so that a repeat can't count twice.

use crate::{Page, ReadError, Store};
use domain::{DiskId, HostId, InstanceId, ProjectId, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Waits for its owner's commit; expires.
    Reserved,
    Confirmed,
    /// Its owner is being deleted; waits for proof from the host.
    Releasing,
}

impl DiskState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Confirmed => "confirmed",
            Self::Releasing => "releasing",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "reserved" => Some(Self::Reserved),
            "confirmed" => Some(Self::Confirmed),
            "releasing" => Some(Self::Releasing),
            _ => None,
        }
    }
}

op! {
    /// A reservation, attached nowhere. One that stands already is `DiskExists`: take it as done.
    DiskInsert {
        id: DiskId,
        project_id: ProjectId,
        instance_id: InstanceId,
        role: String,
        pool: String,
        size_gib: u64,
        expires_at: Timestamp,
        generation: i64,
        created_at: Timestamp,
    }
    on disk, Insert by (id), guard DiskExists: insert { epoch = "0", state = "'reserved'" }
    "WHERE TRUE ON CONFLICT (id) DO NOTHING"
}

op! {
    /// The owner committed: attached to this host in this epoch. An epoch never falls. Repeating it succeeds; a reservation that is gone
    /// fails.
    DiskConfirm { id: DiskId, instance_id: InstanceId, host_id: HostId, epoch: i64 }
    on disk, Change by (id), guard DiskState:
    "UPDATE disk SET state = 'confirmed', expires_at = NULL, host_id = r.host_id, epoch = r.epoch FROM {rows}
     WHERE disk.id = r.id AND disk.instance_id = r.instance_id AND disk.epoch <= r.epoch
     AND disk.state IN ('reserved', 'confirmed')"
}

op! {
    /// Decided on the row as `expected_generation` had it, so that the usage that goes along is the real difference. Its generation
    /// becomes that of the change that asked for it.
    DiskResize { id: DiskId, expected_generation: i64, size_gib: u64, generation: i64 }
    on disk, Change by (id), guard DiskState:
    "UPDATE disk SET size_gib = r.size_gib, generation = r.generation FROM {rows}
     WHERE disk.id = r.id AND disk.generation = r.expected_generation AND r.generation > r.expected_generation
     AND disk.state IN ('reserved', 'confirmed')"
}

op! {
    /// Not releasing already; decided on `expected_generation`, as its size is what usage gets back.
    DiskRelease { id: DiskId, expected_generation: i64 }
    on disk, Change by (id), guard DiskState:
    "UPDATE disk SET state = 'releasing', expires_at = NULL FROM {rows}
     WHERE disk.id = r.id AND disk.generation = r.expected_generation AND disk.state <> 'releasing'"
}

op! {
    /// A reservation that nobody confirmed in time goes. Decided on `expected_generation`, as its size is what usage gets back.
    DiskExpire { id: DiskId, expected_generation: i64, at: Timestamp }
    on disk, Change by (id), guard DiskState:
    "DELETE FROM disk WHERE id IN (SELECT r.id FROM {rows})
     AND (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})
     AND state = 'reserved' AND expires_at <= (SELECT max(r.at) FROM {rows})"
}

op! {
    /// The row goes. Decided on `expected_state` and `expected_generation`: whether and how much usage gets back.
    DiskDelete { id: DiskId, expected_state: DiskState, expected_generation: i64 }
    on disk, Change by (id), guard DiskState:
    "DELETE FROM disk WHERE id IN (SELECT r.id FROM {rows})
     AND (id, state, generation) IN (SELECT r.id, r.expected_state, r.expected_generation FROM {rows})"
}

row! {
    #[derive(Eq)]
    pub struct DiskRow of disk {
        pub id: DiskId,
        pub project_id: ProjectId,
        pub instance_id: InstanceId,
        /// `root`.
        pub role: String,
        /// `local`.
        pub pool: String,
        pub size_gib: u64,
        /// The host where it is attached.
        pub host_id: Option<HostId>,
        /// The instance's epoch there.
        pub epoch: i64,
        pub state: DiskState,
        pub expires_at: Option<Timestamp>,
        pub generation: i64,
        pub created_at: Timestamp,
    }
}

impl Store {
    pub async fn disk_find(&self, id: DiskId) -> Result<Option<DiskRow>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn disk_load_many(&self, ids: &[DiskId]) -> Result<Vec<DiskRow>, ReadError> {
        self.pool().list_among("id", ids).await
    }

    /// The instance's disks, by id.
    pub async fn disk_list_of_instance(&self, instance_id: InstanceId) -> Result<Vec<DiskRow>, ReadError> {
        self.pool().list("WHERE instance_id = $1 ORDER BY id", [instance_id.into()]).await
    }

    pub async fn disk_load_many_of_instances(&self, ids: &[InstanceId]) -> Result<Vec<DiskRow>, ReadError> {
        self.pool().list_among("instance_id", ids).await
    }

    /// Reservations that nobody confirmed in time, the longest overdue first.
    pub async fn disk_expired(&self, now: Timestamp, limit: u32) -> Result<Vec<DiskRow>, ReadError> {
        let sql =
            "WHERE expires_at IS NOT NULL AND expires_at <= $1 AND state = 'reserved' ORDER BY expires_at, id LIMIT $2";
        self.pool().list(sql, [now.into(), limit.into()]).await
    }

    pub async fn disk_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<DiskRow>, ReadError> {
        self.pool().page(project_id, page).await
    }
}
