//! What the api-gateway asks of this service. Each call is a file; this one only receives and answers.

pub mod host_identity;

use crate::{
    console,
    host::{
        admission::{join, remove, token},
        capacity, change as host, rebalance,
    },
    instance::{change, create},
    manager::Manager,
};
use domain::Problem;
use proto::{
    cluster::v1::{self as pb, cluster_manager_server::ClusterManager},
    status::to_status,
};
use service_kit::{context::CallContext, peer::require_role};
use std::{pin::Pin, sync::Arc};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

#[derive(Clone)]
pub struct ClusterManagerService(pub Arc<Manager>);

/// Who may ask for what tenants and operators want.
const CALLERS: &[&str] = &["api-gateway"];

fn answered<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|problem| to_status(&problem))
}

macro_rules! call {
    ($self:ident, $request:ident, $name:literal, $handler:path) => {{
        require_role(&$request, CALLERS)?;
        let context = CallContext::extract(&$request);
        let span = tracing::info_span!($name, request_id = context.request_id);
        let message = $request.into_inner();
        // In a task of its own: a caller who goes away in the middle must not leave a commit without what follows it in memory.
        let manager = Arc::clone(&$self.0);
        let work = async move { $handler(&manager, &context, message).await }.instrument(span);
        match $self.0.tasks.spawn(work).await {
            Ok(result) => answered(result),
            Err(error) => {
                tracing::error!(%error, call = $name, "a call died");
                answered(Err(Problem::internal()))
            }
        }
    }};
}

#[tonic::async_trait]
impl ClusterManager for ClusterManagerService {
    async fn create_instances(
        &self,
        request: Request<pb::CreateInstancesRequest>,
    ) -> Result<Response<pb::CreateInstancesResponse>, Status> {
        call!(self, request, "create_instances", create::create)
    }

    async fn change_instance(
        &self,
        request: Request<pb::ChangeInstanceRequest>,
    ) -> Result<Response<pb::ChangeInstanceResponse>, Status> {
        call!(self, request, "change_instance", change::change)
    }

    async fn delete_instance(
        &self,
        request: Request<pb::DeleteInstanceRequest>,
    ) -> Result<Response<pb::DeleteInstanceResponse>, Status> {
        call!(self, request, "delete_instance", change::delete)
    }

    async fn change_host(
        &self,
        request: Request<pb::ChangeHostRequest>,
    ) -> Result<Response<pb::ChangeHostResponse>, Status> {
        call!(self, request, "change_host", host::change)
    }

    async fn remove_host(
        &self,
        request: Request<pb::RemoveHostRequest>,
    ) -> Result<Response<pb::RemoveHostResponse>, Status> {
        call!(self, request, "remove_host", remove::remove)
    }

    async fn create_host_token(
        &self,
        request: Request<pb::CreateHostTokenRequest>,
    ) -> Result<Response<pb::CreateHostTokenResponse>, Status> {
        call!(self, request, "create_host_token", token::create)
    }

    async fn delete_host_token(
        &self,
        request: Request<pb::DeleteHostTokenRequest>,
    ) -> Result<Response<pb::DeleteHostTokenResponse>, Status> {
        call!(self, request, "delete_host_token", token::delete)
    }

    async fn read_capacity(
        &self,
        request: Request<pb::ReadCapacityRequest>,
    ) -> Result<Response<pb::ReadCapacityResponse>, Status> {
        call!(self, request, "read_capacity", capacity::read)
    }

    async fn plan_rebalance(
        &self,
        request: Request<pb::PlanRebalanceRequest>,
    ) -> Result<Response<pb::PlanRebalanceResponse>, Status> {
        call!(self, request, "plan_rebalance", rebalance::plan)
    }

    async fn admit_host(
        &self,
        request: Request<pb::AdmitHostRequest>,
    ) -> Result<Response<pb::AdmitHostResponse>, Status> {
        call!(self, request, "admit_host", join::admit)
    }

    type ConsoleStream = Pin<Box<dyn futures::Stream<Item = Result<pb::ConsoleOutput, Status>> + Send>>;

    async fn console(
        &self,
        request: Request<Streaming<pb::ConsoleInput>>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        require_role(&request, CALLERS)?;
        let opened = console::open(&self.0, request.into_inner()).await.map_err(|p| to_status(&p))?;
        Ok(Response::new(Box::pin(opened.run(self.0.shutdown.clone()))))
    }
}
