//! The gRPC service by which agents take up console sessions.

use crate::{console, manager::Manager};
use domain::host::AgentRole;
use proto::{
    agent::v1::{self as pb, console_relay_server::ConsoleRelay},
    status::to_status,
};
use service_kit::peer::require_agent;
use std::{pin::Pin, sync::Arc};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
pub struct ConsoleRelayService(pub Arc<Manager>);

#[tonic::async_trait]
impl ConsoleRelay for ConsoleRelayService {
    type ConsoleSessionStream = Pin<Box<dyn futures::Stream<Item = Result<pb::ConsoleDown, Status>> + Send>>;

    async fn console_session(
        &self,
        request: Request<Streaming<pb::ConsoleUp>>,
    ) -> Result<Response<Self::ConsoleSessionStream>, Status> {
        require_agent(&request, AgentRole::ComputeAgent)?;
        let down = console::agent_side(&self.0, request.into_inner()).await.map_err(|p| to_status(&p))?;
        Ok(Response::new(Box::pin(down)))
    }
}
