//! What the api-gateway calls, and where the wire format ends: each call is parsed into domain types, handed on, and answered.

mod host;
pub mod host_identity;
mod instance;

use crate::{console, manager::Manager, outcome::Outcome};
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

/// Who may call on behalf of tenants and operators.
const CALLERS: &[&str] = &["api-gateway"];

/// Runs an operation once, however often it is requested, and answers with its outcome.
async fn execute_once<O: Outcome>(
    manager: &Manager,
    context: &CallContext,
    operation: impl Future<Output = Result<O, Problem>>,
) -> Result<O::Answer, Problem> {
    manager.operations.execute_once(context, async { operation.await.map(|outcome| outcome.answer()) }).await
}

fn answered<T>(result: Result<T, Problem>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|problem| to_status(&problem))
}

macro_rules! calls {
    ($($name:ident: $request:ident -> $response:ident = $handler:path;)+) => {
        #[tonic::async_trait]
        impl ClusterManager for ClusterManagerService {
            $(async fn $name(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                require_role(&request, CALLERS)?;
                let context = CallContext::extract(&request);
                let span = tracing::info_span!(stringify!($name), request_id = context.request_id);
                let message = request.into_inner();
                // It runs in a task of its own: a caller who goes away in the middle must not leave a commit without what follows it in memory.
                let manager = Arc::clone(&self.0);
                let work = async move { $handler(&manager, &context, message).await }.instrument(span);
                match self.0.lifetime.tasks.spawn(work).await {
                    Ok(result) => answered(result),
                    Err(error) => {
                        tracing::error!(%error, call = stringify!($name), "a call died");
                        answered(Err(Problem::internal()))
                    }
                }
            })+

            type ConsoleStream = Pin<Box<dyn futures::Stream<Item = Result<pb::ConsoleOutput, Status>> + Send>>;

            async fn console(
                &self,
                request: Request<Streaming<pb::ConsoleInput>>,
            ) -> Result<Response<Self::ConsoleStream>, Status> {
                require_role(&request, CALLERS)?;
                let console = console::open(&self.0, request.into_inner()).await.map_err(|p| to_status(&p))?;
                Ok(Response::new(Box::pin(console.into_stream(self.0.lifetime.shutdown.clone()))))
            }
        }
    };
}

calls! {
    create_instances: CreateInstancesRequest -> CreateInstancesResponse = instance::create;
    change_instance: ChangeInstanceRequest -> ChangeInstanceResponse = instance::change;
    delete_instance: DeleteInstanceRequest -> ChangeInstanceResponse = instance::delete;
    change_host: ChangeHostRequest -> ChangeHostResponse = host::change;
    remove_host: RemoveHostRequest -> RemoveHostResponse = host::remove;
    declare_host_lost: DeclareHostLostRequest -> DeclareHostLostResponse = host::declare_lost;
    create_host_token: CreateHostTokenRequest -> CreateHostTokenResponse = host::create_token;
    delete_host_token: DeleteHostTokenRequest -> DeleteHostTokenResponse = host::delete_token;
    admit_host: AdmitHostRequest -> AdmitHostResponse = host::admit;
    read_capacity: ReadCapacityRequest -> ReadCapacityResponse = host::read_capacity;
    plan_rebalance: PlanRebalanceRequest -> PlanRebalanceResponse = host::plan_rebalance;
}
