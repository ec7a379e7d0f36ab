//! The storage-manager as this service uses it: disks are reserved before a commit, confirmed before a delivery, released with a deletion
//! and removed on proof. All of it is idempotent, so a failure needs no more than a repeat.

use super::coalesce::Coalescer;
use domain::{
    DiskId, HostId, InstanceId, Problem, ProjectId,
    instance::{DiskPool, InstanceDisk},
};
use proto::{
    status::from_status,
    storage::v1::{self as pb, storage_manager_client::StorageManagerClient},
};
use std::time::Duration;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

/// Reservations merged into one call.
const RESERVE_MAX: usize = 128;
/// Such calls on their way at once: with one, a create would wait for half of another's before its own.
const RESERVE_AT_ONCE: usize = 2;

#[derive(Clone)]
struct Client {
    inner: StorageManagerClient<Channel>,
    timeout: Duration,
}

impl Client {
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    async fn reserve(&self, disks: &[DiskReservation], ttl_secs: u32) -> Result<(), Problem> {
        let disks = disks.iter().map(DiskReservation::to_pb).collect();
        let request = self.request(pb::ReserveDisksRequest { disks, ttl_secs });
        self.inner.clone().reserve_disks(request).await.map(drop).map_err(|s| from_status(&s))
    }
}

pub struct Storage {
    client: Client,
    reserve: Coalescer<Vec<DiskReservation>, Result<(), Problem>>,
}

/// A disk that is reserved for an instance.
#[derive(Debug, Clone)]
pub struct DiskReservation {
    pub disk: InstanceDisk,
    pub pool: DiskPool,
    pub instance_id: InstanceId,
    pub project_id: ProjectId,
}

impl DiskReservation {
    fn to_pb(&self) -> pb::DiskReservation {
        pb::DiskReservation {
            disk_id: self.disk.id.to_string(),
            instance_id: self.instance_id.to_string(),
            project_id: self.project_id.to_string(),
            role: self.disk.role.to_owned(),
            pool: self.pool.as_str().to_owned(),
            size_gib: self.disk.size_gib,
        }
    }
}

/// A disk to be bound to where its instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskBinding {
    pub disk_id: DiskId,
    pub instance_id: InstanceId,
    pub host_id: HostId,
    pub epoch: i64,
}

impl Storage {
    pub fn start(channel: Channel, timeout: Duration, ttl_secs: u32, tasks: &TaskTracker) -> Self {
        let inner = StorageManagerClient::new(channel)
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        let client = Client { inner, timeout };
        let worker = client.clone();
        let reserve = Coalescer::start(tasks, RESERVE_MAX, RESERVE_AT_ONCE, move |calls: Vec<Vec<DiskReservation>>| {
            let client = worker.clone();
            async move { reserve_all(&client, calls, ttl_secs).await }
        });
        Self { client, reserve }
    }

    /// Reserves all of the disks or none. A refusal (quota) is the caller's to pass on.
    pub async fn reserve(&self, disks: Vec<DiskReservation>) -> Result<(), Problem> {
        if disks.is_empty() {
            return Ok(());
        }
        self.reserve.call(disks).await.unwrap_or_else(|e| Err(Problem::unavailable(e.to_string())))
    }

    /// The disks whose reservation is gone; all others are bound.
    pub async fn confirm(&self, bindings: &[DiskBinding]) -> Result<Vec<DiskId>, Problem> {
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let disks = bindings
            .iter()
            .map(|b| pb::DiskConfirmation {
                disk_id: b.disk_id.to_string(),
                instance_id: b.instance_id.to_string(),
                host_id: b.host_id.to_string(),
                epoch: b.epoch,
            })
            .collect();
        let request = self.client.request(pb::ConfirmDisksRequest { disks });
        let answer = self.client.inner.clone().confirm_disks(request).await.map_err(|s| from_status(&s))?;
        let expired = answer.into_inner().expired_disk_ids;
        Ok(expired.iter().filter_map(|id| id.parse().ok()).collect())
    }

    pub async fn resize(
        &self,
        disk_id: DiskId,
        instance_id: InstanceId,
        size_gib: u64,
        generation: i64,
    ) -> Result<(), Problem> {
        let request = self.client.request(pb::ResizeDiskRequest {
            disk_id: disk_id.to_string(),
            instance_id: instance_id.to_string(),
            size_gib,
            generation,
        });
        self.client.inner.clone().resize_disk(request).await.map(drop).map_err(|s| from_status(&s))
    }

    pub async fn release(&self, instance_ids: &[InstanceId]) -> Result<(), Problem> {
        if instance_ids.is_empty() {
            return Ok(());
        }
        let instance_ids = instance_ids.iter().map(ToString::to_string).collect();
        let request = self.client.request(pb::ReleaseDisksRequest { instance_ids });
        self.client.inner.clone().release_disks(request).await.map(drop).map_err(|s| from_status(&s))
    }

    /// Removes the disks of instances that are proven gone, or never came to be.
    pub async fn remove(&self, instance_ids: &[InstanceId]) -> Result<(), Problem> {
        if instance_ids.is_empty() {
            return Ok(());
        }
        let instance_ids = instance_ids.iter().map(ToString::to_string).collect();
        let request = self.client.request(pb::RemoveDisksRequest { instance_ids });
        self.client.inner.clone().remove_disks(request).await.map(drop).map_err(|s| from_status(&s))
    }
}

/// All in one call; when that is refused, each on its own, so that one project's quota refuses nobody else.
async fn reserve_all(client: &Client, calls: Vec<Vec<DiskReservation>>, ttl_secs: u32) -> Vec<Result<(), Problem>> {
    let together: Vec<_> = calls.iter().flatten().cloned().collect();
    match client.reserve(&together, ttl_secs).await {
        Ok(()) => calls.iter().map(|_| Ok(())).collect(),
        Err(problem) if calls.len() == 1 => vec![Err(problem)],
        Err(_) => futures::future::join_all(calls.iter().map(|disks| client.reserve(disks, ttl_secs))).await,
    }
}
