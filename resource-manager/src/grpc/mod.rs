//! The gRPC service. Each call is a module's function that returns a [`Problem`]; here alone it becomes a status.

mod apply;
pub(crate) mod port;
mod reserve;

use crate::Manager;
use domain::Problem;
use proto::{
    resource::v1::{self as pb, resource_manager_server::ResourceManager},
    status::to_status,
};
use service_kit::{context::CallContext, peer::require_role};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Who may ask for what: tenants' changes come through the gateway, instances' ports are the cluster-manager's.
const GATEWAY: &[&str] = &["api-gateway"];
const CLUSTER: &[&str] = &["cluster-manager"];

pub(crate) struct ResourceService(pub(crate) Arc<Manager>);

fn answer<T>(call: &'static str, result: Result<T, Problem>) -> Result<Response<T>, Status> {
    let outcome = match &result {
        Ok(_) => "ok",
        Err(problem) => problem.kind.as_str(),
    };
    metrics::counter!("iaas_resource_calls_total", "call" => call, "outcome" => outcome).increment(1);
    result.map(Response::new).map_err(|problem| to_status(&problem))
}

#[tonic::async_trait]
impl ResourceManager for ResourceService {
    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyResponse>, Status> {
        require_role(&request, GATEWAY)?;
        let context = CallContext::extract(&request);
        answer("apply", apply::apply(&self.0, &context, request.into_inner()).await)
    }

    async fn reserve_ports(
        &self,
        request: Request<pb::ReservePortsRequest>,
    ) -> Result<Response<pb::ReservePortsResponse>, Status> {
        require_role(&request, CLUSTER)?;
        let context = CallContext::extract(&request);
        answer("reserve_ports", reserve::reserve(&self.0, &context, request.into_inner()).await)
    }

    async fn bind_ports(
        &self,
        request: Request<pb::BindPortsRequest>,
    ) -> Result<Response<pb::BindPortsResponse>, Status> {
        require_role(&request, CLUSTER)?;
        answer("bind_ports", port::bind(&self.0, request.into_inner()).await)
    }

    async fn release_ports(
        &self,
        request: Request<pb::ReleasePortsRequest>,
    ) -> Result<Response<pb::ReleasePortsResponse>, Status> {
        require_role(&request, CLUSTER)?;
        answer("release_ports", port::release(&self.0, request.into_inner()).await)
    }

    async fn forget_ports(
        &self,
        request: Request<pb::ForgetPortsRequest>,
    ) -> Result<Response<pb::ForgetPortsResponse>, Status> {
        require_role(&request, CLUSTER)?;
        answer("forget_ports", port::forget(&self.0, request.into_inner()).await)
    }
}
