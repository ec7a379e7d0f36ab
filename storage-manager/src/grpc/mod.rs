//! The gRPC service. Each call is a module's function that returns a [`Problem`]; here alone it becomes a status.

mod disk;
mod failure;
mod image;
mod object;
mod upload;

use crate::{Config, object::ObjectDir, reservation::ImageReservations};
use domain::{ImageId, Problem, ProjectId, host::AgentRole, image::ImagePartKind};
use operation::{InFlight, Operations};
use proto::{
    status::to_status,
    storage::v1::{self as pb, storage_manager_server::StorageManager},
};
use service_kit::{
    context::CallContext,
    peer::{require_agent, require_role},
    share::{Pool, SharedPool},
};
use std::{pin::Pin, sync::Arc};
use store::{OperationTable, Store};
use tokio::sync::{Notify, Semaphore};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// The callers of each call: tenants' images come through the gateway, disks are the cluster-manager's, and bytes go to hosts.
const GATEWAY: &[&str] = &["api-gateway"];
const CLUSTER: &[&str] = &["cluster-manager"];

pub(crate) struct StorageService {
    store: Store,
    operations: Operations,
    objects: ObjectDir,
    config: Config,
    /// Wakes the reconcilers.
    wake: Arc<Notify>,
    uploads: SharedPool<ProjectId>,
    /// Checks of images by `qemu-img`.
    checks: Semaphore,
    /// A project has one check at a time, so that it holds up the others by no more than that.
    checking: InFlight<ProjectId>,
    reservations: ImageReservations,
    /// One part is published at a time: what is published is then named, or was named before.
    publishing: InFlight<(ImageId, ImagePartKind)>,
    /// Objects that are being named, or removed because nothing names them.
    naming: InFlight<String>,
}

impl StorageService {
    pub(crate) fn new(
        store: Store,
        objects: ObjectDir,
        config: Config,
        reservations: ImageReservations,
        wake: Arc<Notify>,
    ) -> Self {
        let uploads = SharedPool::new(Pool::Uploads, config.uploads_max);
        let operations = Operations::new(store.clone(), OperationTable::Storage);
        let checks = Semaphore::new(config.checks_max);
        let (checking, publishing, naming) = (InFlight::default(), InFlight::default(), InFlight::default());
        Self { store, operations, objects, config, wake, uploads, checks, checking, reservations, publishing, naming }
    }
}

fn answer<T>(call: &'static str, result: Result<T, Problem>) -> Result<Response<T>, Status> {
    let outcome = match &result {
        Ok(_) => "ok",
        Err(problem) => problem.kind.as_str(),
    };
    metrics::counter!("iaas_storage_calls_total", "call" => call, "outcome" => outcome).increment(1);
    result.map(Response::new).map_err(|problem| to_status(&problem))
}

#[tonic::async_trait]
impl StorageManager for StorageService {
    async fn create_image(
        &self,
        request: Request<pb::CreateImageRequest>,
    ) -> Result<Response<pb::CreateImageResponse>, Status> {
        require_role(&request, GATEWAY)?;
        let context = CallContext::extract(&request);
        answer("create_image", self.image_create(context, request.into_inner()).await)
    }

    async fn upload_image(
        &self,
        request: Request<Streaming<pb::UploadImageRequest>>,
    ) -> Result<Response<pb::UploadImageResponse>, Status> {
        require_role(&request, GATEWAY)?;
        let context = CallContext::extract(&request);
        answer("upload_image", self.image_upload(context, request.into_inner()).await)
    }

    async fn delete_image(
        &self,
        request: Request<pb::DeleteImageRequest>,
    ) -> Result<Response<pb::DeleteImageResponse>, Status> {
        require_role(&request, GATEWAY)?;
        let context = CallContext::extract(&request);
        answer("delete_image", self.image_delete(context, request.into_inner()).await)
    }

    async fn reserve_disks(
        &self,
        request: Request<pb::ReserveDisksRequest>,
    ) -> Result<Response<pb::ReserveDisksResponse>, Status> {
        require_role(&request, CLUSTER)?;
        answer("reserve_disks", self.disks_reserve(request.into_inner()).await)
    }

    async fn confirm_disks(
        &self,
        request: Request<pb::ConfirmDisksRequest>,
    ) -> Result<Response<pb::ConfirmDisksResponse>, Status> {
        require_role(&request, CLUSTER)?;
        answer("confirm_disks", self.disks_confirm(request.into_inner()).await)
    }

    async fn resize_disk(
        &self,
        request: Request<pb::ResizeDiskRequest>,
    ) -> Result<Response<pb::ResizeDiskResponse>, Status> {
        require_role(&request, CLUSTER)?;
        answer("resize_disk", self.disk_resize(request.into_inner()).await)
    }

    async fn release_disks(
        &self,
        request: Request<pb::ReleaseDisksRequest>,
    ) -> Result<Response<pb::ReleaseDisksResponse>, Status> {
        require_role(&request, CLUSTER)?;
        answer("release_disks", self.disks_release(request.into_inner()).await)
    }

    async fn remove_disks(
        &self,
        request: Request<pb::RemoveDisksRequest>,
    ) -> Result<Response<pb::RemoveDisksResponse>, Status> {
        require_role(&request, CLUSTER)?;
        answer("remove_disks", self.disks_remove(request.into_inner()).await)
    }

    type FetchObjectStream = Pin<Box<dyn Stream<Item = Result<pb::FetchObjectResponse, Status>> + Send>>;

    async fn fetch_object(
        &self,
        request: Request<pb::FetchObjectRequest>,
    ) -> Result<Response<Self::FetchObjectStream>, Status> {
        let speaks_for = require_agent(&request, AgentRole::ComputeAgent)?;
        answer("fetch_object", self.object_fetch(speaks_for, request.into_inner()).await)
    }
}
