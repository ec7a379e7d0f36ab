//! A storage-manager that fails on demand: it stands before the real one and, for a call that is planned to fail, either doesn't pass it
//! on, or passes it on and loses the answer, or takes the moment to kill the manager that called.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::storage::v1::{
    self as pb, storage_manager_client::StorageManagerClient, storage_manager_server::StorageManager,
};
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    Reserve,
    Confirm,
    Resize,
    Release,
    Forget,
    ReservePorts,
    BindPorts,
    ReleasePorts,
    RemovePorts,
}

impl Method {
    pub const STORAGE: [Self; 5] = [Self::Reserve, Self::Confirm, Self::Resize, Self::Release, Self::Forget];
    pub const RESOURCE: [Self; 4] = [Self::ReservePorts, Self::BindPorts, Self::ReleasePorts, Self::RemovePorts];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The call isn't done.
    Before,
    /// The call is done; its answer is lost.
    After,
    /// The call is done; the caller is killed before it gets the answer.
    CallerDies,
}

impl Failure {
    pub const ALL: [Self; 3] = [Self::Before, Self::After, Self::CallerDies];
}

#[derive(Clone)]
pub struct Proxy {
    real: StorageManagerClient<Channel>,
    plan: Plan,
    deaths: mpsc::UnboundedSender<()>,
}

/// What happens while a call is on its way.
type Meanwhile = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Failures to come: each is used up by the first call it fits.
#[derive(Clone, Default)]
pub struct Plan {
    failures: Arc<Mutex<Vec<(Method, Failure)>>>,
    meanwhile: Arc<Mutex<Vec<(Method, Meanwhile)>>>,
}

impl Plan {
    pub fn fail_once(&self, method: Method, failure: Failure) {
        self.failures.lock().push((method, failure));
    }

    pub fn used_up(&self) -> bool {
        self.failures.lock().is_empty()
    }

    pub fn take(&self, method: Method) -> Option<Failure> {
        let mut plan = self.failures.lock();
        let at = plan.iter().position(|(m, _)| *m == method)?;
        Some(plan.remove(at).1)
    }

    /// The next such call finds that this was done while it was on its way.
    pub fn meanwhile(&self, method: Method, work: impl Future<Output = ()> + Send + 'static) {
        self.meanwhile.lock().push((method, Box::new(move || Box::pin(work))));
    }

    pub async fn pass_time(&self, method: Method) {
        let work = {
            let mut planned = self.meanwhile.lock();
            let at = planned.iter().position(|(m, _)| *m == method);
            at.map(|at| planned.remove(at).1)
        };
        if let Some(work) = work {
            work().await;
        }
    }
}

impl Proxy {
    pub fn new(real: Channel, plan: Plan, deaths: mpsc::UnboundedSender<()>) -> Self {
        Self { real: StorageManagerClient::new(real), plan, deaths }
    }

    async fn pass<T, R>(
        &self,
        method: Method,
        request: Request<T>,
        call: impl AsyncFnOnce(StorageManagerClient<Channel>, T) -> Result<Response<R>, Status>,
    ) -> Result<Response<R>, Status> {
        self.plan.pass_time(method).await;
        let failure = self.plan.take(method);
        if failure == Some(Failure::Before) {
            return Err(Status::unavailable("planned: not done"));
        }
        let answer = call(self.real.clone(), request.into_inner()).await;
        match failure {
            None | Some(Failure::Before) => answer,
            Some(Failure::After) => Err(Status::unavailable("planned: done, the answer is lost")),
            Some(Failure::CallerDies) => {
                self.deaths.send(()).expect("the test listens");
                std::future::pending().await
            }
        }
    }
}

#[tonic::async_trait]
impl StorageManager for Proxy {
    async fn reserve_disks(
        &self,
        request: Request<pb::ReserveDisksRequest>,
    ) -> Result<Response<pb::ReserveDisksResponse>, Status> {
        self.pass(Method::Reserve, request, async |mut real, message| real.reserve_disks(message).await).await
    }

    async fn confirm_disks(
        &self,
        request: Request<pb::ConfirmDisksRequest>,
    ) -> Result<Response<pb::ConfirmDisksResponse>, Status> {
        self.pass(Method::Confirm, request, async |mut real, message| real.confirm_disks(message).await).await
    }

    async fn resize_disk(
        &self,
        request: Request<pb::ResizeDiskRequest>,
    ) -> Result<Response<pb::ResizeDiskResponse>, Status> {
        self.pass(Method::Resize, request, async |mut real, message| real.resize_disk(message).await).await
    }

    async fn release_disks(
        &self,
        request: Request<pb::ReleaseDisksRequest>,
    ) -> Result<Response<pb::ReleaseDisksResponse>, Status> {
        self.pass(Method::Release, request, async |mut real, message| real.release_disks(message).await).await
    }

    async fn remove_disks(
        &self,
        request: Request<pb::RemoveDisksRequest>,
    ) -> Result<Response<pb::RemoveDisksResponse>, Status> {
        self.pass(Method::Forget, request, async |mut real, message| real.remove_disks(message).await).await
    }

    async fn create_image(
        &self,
        _: Request<pb::CreateImageRequest>,
    ) -> Result<Response<pb::CreateImageResponse>, Status> {
        Err(Status::unimplemented("images don't pass here"))
    }

    async fn upload_image(
        &self,
        _: Request<Streaming<pb::UploadImageRequest>>,
    ) -> Result<Response<pb::UploadImageResponse>, Status> {
        Err(Status::unimplemented("images don't pass here"))
    }

    async fn delete_image(
        &self,
        _: Request<pb::DeleteImageRequest>,
    ) -> Result<Response<pb::DeleteImageResponse>, Status> {
        Err(Status::unimplemented("images don't pass here"))
    }

    type FetchObjectStream = futures::stream::Empty<Result<pb::FetchObjectResponse, Status>>;

    async fn fetch_object(
        &self,
        _: Request<pb::FetchObjectRequest>,
    ) -> Result<Response<Self::FetchObjectStream>, Status> {
        Err(Status::unimplemented("images don't pass here"))
    }
}
