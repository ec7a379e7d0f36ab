//! The service that agents call for their certificates: an agent asks with its certificate for the next one.

use super::host::certificate_to_pb;
use crate::{host::admission::join, manager::Manager};
use proto::{
    agent::v1::{self as pb, host_identity_server::HostIdentity},
    status::to_status,
};
use service_kit::peer::require_host;
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub struct HostIdentityService(pub Arc<Manager>);

#[tonic::async_trait]
impl HostIdentity for HostIdentityService {
    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::RenewResponse>, Status> {
        let peer = require_host(&request)?;
        let peer =
            peer.ok_or_else(|| Status::permission_denied("only a certificate can be renewed, and this call has none"))?;
        let renewed = join::renew(&self.0, &peer, &request.into_inner().csr_pem).map_err(|p| to_status(&p))?;
        Ok(Response::new(pb::RenewResponse { certificate: Some(certificate_to_pb(renewed)) }))
    }
}
