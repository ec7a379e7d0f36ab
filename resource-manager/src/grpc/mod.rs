//! The gRPC service. Each call is a module's function that returns a [`Problem`]; here alone it becomes a status.
//!
//! A call runs on a task of its own: a caller that gives up must not leave an address claimed, nor memory behind what was committed.

pub(crate) mod apply;
mod commit;
pub(crate) mod port;
mod traffic;

use crate::Manager;
use domain::Problem;
use proto::{
    resource::v1::{self as pb, resource_manager_server::ResourceManager},
    status::to_status,
};
use service_kit::{context::CallContext, peer::require_role};
use std::{future::Future, sync::Arc};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

/// Who may request what: changes of people come through the gateway, ports of instances are the cluster-manager's.
const GATEWAY: &[&str] = &["api-gateway"];
const CLUSTER: &[&str] = &["cluster-manager"];

#[derive(Clone)]
pub struct ResourceManagerService(pub Arc<Manager>);

impl ResourceManagerService {
    async fn answer<T: Send + 'static>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let span = tracing::info_span!("resource", call);
        let result = match self.0.tasks.spawn(work.instrument(span)).await {
            Ok(result) => result,
            Err(failed) => {
                tracing::error!(error = &failed as &dyn std::error::Error, call, "a call ended without an answer");
                Err(Problem::internal())
            }
        };
        let outcome = match &result {
            Ok(_) => "ok",
            Err(problem) => problem.kind.as_str(),
        };
        metrics::counter!("iaas_resource_calls_total", "call" => call, "outcome" => outcome).increment(1);
        result.map(Response::new).map_err(|problem| to_status(&problem))
    }
}

#[tonic::async_trait]
impl ResourceManager for ResourceManagerService {
    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyResponse>, Status> {
        require_role(&request, GATEWAY)?;
        let context = CallContext::extract(&request);
        let (manager, request) = (Arc::clone(&self.0), request.into_inner());
        self.answer("apply", async move { apply::call(&manager, &context, request).await }).await
    }

    async fn read_traffic(
        &self,
        request: Request<pb::ReadTrafficRequest>,
    ) -> Result<Response<pb::ReadTrafficResponse>, Status> {
        require_role(&request, GATEWAY)?;
        let (manager, request) = (Arc::clone(&self.0), request.into_inner());
        self.answer("read_traffic", async move { traffic::read(&manager, &request) }).await
    }

    async fn reserve_ports(
        &self,
        request: Request<pb::ReservePortsRequest>,
    ) -> Result<Response<pb::ReservePortsResponse>, Status> {
        require_role(&request, CLUSTER)?;
        let context = CallContext::extract(&request);
        let (manager, request) = (Arc::clone(&self.0), request.into_inner());
        self.answer("reserve_ports", async move { port::reserve(&manager, &context, request).await }).await
    }

    async fn bind_ports(
        &self,
        request: Request<pb::BindPortsRequest>,
    ) -> Result<Response<pb::BindPortsResponse>, Status> {
        require_role(&request, CLUSTER)?;
        let (manager, request) = (Arc::clone(&self.0), request.into_inner());
        self.answer("bind_ports", async move { port::bind(&manager, request).await }).await
    }

    async fn release_ports(
        &self,
        request: Request<pb::ReleasePortsRequest>,
    ) -> Result<Response<pb::ReleasePortsResponse>, Status> {
        require_role(&request, CLUSTER)?;
        let (manager, request) = (Arc::clone(&self.0), request.into_inner());
        self.answer("release_ports", async move { port::release(&manager, request).await }).await
    }

    async fn remove_ports(
        &self,
        request: Request<pb::RemovePortsRequest>,
    ) -> Result<Response<pb::RemovePortsResponse>, Status> {
        require_role(&request, CLUSTER)?;
        let (manager, request) = (Arc::clone(&self.0), request.into_inner());
        self.answer("remove_ports", async move { port::remove(&manager, request).await }).await
    }
}
