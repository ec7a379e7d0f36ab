//! A resource-manager that fails on demand, as [`crate::storage_proxy`] does for the storage-manager: it stands before the real one.

use crate::storage_proxy::{Failure, Method, Plan};
use proto::resource::v1::{
    self as pb, resource_manager_client::ResourceManagerClient, resource_manager_server::ResourceManager,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, transport::Channel};

#[derive(Clone)]
pub struct Proxy {
    real: ResourceManagerClient<Channel>,
    plan: Plan,
    deaths: mpsc::UnboundedSender<()>,
}

impl Proxy {
    pub fn new(real: Channel, plan: Plan, deaths: mpsc::UnboundedSender<()>) -> Self {
        Self { real: ResourceManagerClient::new(real), plan, deaths }
    }

    async fn pass<T, R>(
        &self,
        method: Method,
        request: Request<T>,
        call: impl AsyncFnOnce(ResourceManagerClient<Channel>, Request<T>) -> Result<Response<R>, Status>,
    ) -> Result<Response<R>, Status> {
        self.plan.pass_time(method).await;
        let failure = self.plan.take(method);
        if failure == Some(Failure::Before) {
            return Err(Status::unavailable("planned: not done"));
        }
        // The call's context is passed on.
        let (metadata, _, message) = request.into_parts();
        let answer = call(self.real.clone(), Request::from_parts(metadata, Default::default(), message)).await;
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
impl ResourceManager for Proxy {
    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyResponse>, Status> {
        self.real.clone().apply(request).await
    }

    async fn read_traffic(
        &self,
        request: Request<pb::ReadTrafficRequest>,
    ) -> Result<Response<pb::ReadTrafficResponse>, Status> {
        self.real.clone().read_traffic(request).await
    }

    async fn reserve_ports(
        &self,
        request: Request<pb::ReservePortsRequest>,
    ) -> Result<Response<pb::ReservePortsResponse>, Status> {
        self.pass(Method::ReservePorts, request, async |mut real, message| real.reserve_ports(message).await).await
    }

    async fn bind_ports(
        &self,
        request: Request<pb::BindPortsRequest>,
    ) -> Result<Response<pb::BindPortsResponse>, Status> {
        self.pass(Method::BindPorts, request, async |mut real, message| real.bind_ports(message).await).await
    }

    async fn release_ports(
        &self,
        request: Request<pb::ReleasePortsRequest>,
    ) -> Result<Response<pb::ReleasePortsResponse>, Status> {
        self.pass(Method::ReleasePorts, request, async |mut real, message| real.release_ports(message).await).await
    }

    async fn remove_ports(
        &self,
        request: Request<pb::RemovePortsRequest>,
    ) -> Result<Response<pb::RemovePortsResponse>, Status> {
        self.pass(Method::RemovePorts, request, async |mut real, message| real.remove_ports(message).await).await
    }
}
