//! Renewal: an agent asks with its certificate for the next one.

use crate::{
    host::admission::{
        admission, certificate,
        join::{lifetime, signing_request, unsigned},
    },
    manager::Manager,
};
use domain::Problem;
use proto::{
    agent::v1::{self as pb, host_identity_server::HostIdentity},
    status::to_status,
};
use service_kit::peer::{HostPeer, require_host};
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
        renew(&self.0, &peer, &request.into_inner().csr_pem).map(Response::new).map_err(|p| to_status(&p))
    }
}

/// For the same host, role and key, whatever the request says.
fn renew(manager: &Manager, peer: &HostPeer, csr_pem: &str) -> Result<pb::RenewResponse, Problem> {
    let authority = admission(manager)?;
    let csr = signing_request(csr_pem)?;
    if csr.key_hash != peer.key_hash {
        return Err(Problem::invalid(
            "/csr_pem",
            "is of another key than the certificate: a new key joins with a token",
        ));
    }
    let pem = authority.ca.issue_host(csr, peer.host_id, peer.role, lifetime(manager)).map_err(|e| unsigned(&e))?;
    tracing::info!(host_id = %peer.host_id, role = peer.role.as_str(), "a host's certificate was renewed");
    Ok(pb::RenewResponse { certificate: Some(certificate(authority, pem)) })
}
