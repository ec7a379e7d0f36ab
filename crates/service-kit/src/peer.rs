//! Who is at the other end of a link, and whether it may make a call.
//!
//! A manager's certificate carries its role as common name (`iaasd certs issue`); an agent's names one host and one role in a URI
//! (`spiffe://iaas/host/<id>/compute-agent`), and is good for as long as that host is part of the [`Fleet`] with that key. So a host's
//! certificate can never be taken for a manager's, whatever its common name says.

use crate::fleet::Fleet;
use domain::{ErrorKind, HostId, Problem, host::AgentRole};
use proto::status::to_status;
use tonic::Status;

/// A certificate of this role may do what every manager may: all managers in one process.
pub const CONTROL_PLANE: &str = "control-plane";

/// Who is at the other end: in a request's extensions.
#[derive(Debug, Clone)]
pub enum Peer {
    InProcess,
    /// The peer came by plain TCP, which is allowed on loopback alone, and from root or this process's user alone.
    Loopback,
    /// The peer came by mutual TLS and is a manager or the gateway. The role is empty when the certificate names none.
    Role {
        role: String,
    },
    /// The peer came by mutual TLS and is an agent of one host.
    Host(HostPeer),
}

#[derive(Debug, Clone)]
pub struct HostPeer {
    pub host_id: HostId,
    pub role: AgentRole,
    /// SHA-256 of the certificate's public key, hexadecimal.
    pub key_hash: String,
    pub fleet: Fleet,
}

impl HostPeer {
    fn check_admitted(&self) -> Result<(), Status> {
        if self.fleet.admits(self.host_id, &self.key_hash) {
            return Ok(());
        }
        tracing::warn!(host_id = %self.host_id, role = self.role.as_str(), "a call of a host that isn't part of the fleet was refused");
        let problem = Problem::new(
            ErrorKind::PermissionDenied,
            NOT_ADMITTED,
            format!("host {} was removed, or has joined anew with another key", self.host_id),
        );
        Err(to_status(&problem.with_hint("make a token (`iaasctl host token create`) and join again with it")))
    }
}

/// The code of a refusal after which a host has to join again.
pub const NOT_ADMITTED: &str = "host_not_admitted";

/// Whether a refusal says that this host is no (longer) part of the fleet.
#[must_use]
pub fn says_not_admitted(status: &Status) -> bool {
    status.code() == tonic::Code::PermissionDenied && proto::status::from_status(status).code == NOT_ADMITTED
}

/// Whom an agent's connection may speak for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpeaksFor {
    /// This machine's administrator: in process, or plain text on loopback.
    Any,
    Host(HostId),
}

impl SpeaksFor {
    /// Refuses a `claimed` host id that isn't the certificate's.
    pub fn check(self, claimed: &str) -> Result<(), Status> {
        match self {
            Self::Any => Ok(()),
            Self::Host(host_id) if claimed.parse() == Ok(host_id) => Ok(()),
            Self::Host(host_id) => {
                tracing::warn!(%host_id, claimed, "an agent speaks for a host that isn't its own");
                Err(Status::permission_denied("this certificate names another host"))
            }
        }
    }
}

fn peer_of<T>(request: &tonic::Request<T>) -> Result<&Peer, Status> {
    request.extensions().get::<Peer>().ok_or_else(|| Status::permission_denied("a call without a known peer"))
}

fn refused(what: &str) -> Status {
    tracing::warn!(peer = what, "a call of a role that may not make it was refused");
    Status::permission_denied(format!("`{what}` may not make this call"))
}

/// Refuses a call whose peer's certificate names none of `roles` of managers. In-process peers and loopback without TLS are trusted:
/// they are this machine's administrator. Hosts are none of them.
pub fn require_role<T>(request: &tonic::Request<T>, roles: &[&str]) -> Result<(), Status> {
    match peer_of(request)? {
        Peer::InProcess | Peer::Loopback => Ok(()),
        Peer::Role { role } if role == CONTROL_PLANE || roles.contains(&role.as_str()) => Ok(()),
        Peer::Role { role } => Err(refused(role)),
        Peer::Host(host) => Err(refused(&format!("{} of host {}", host.role.as_str(), host.host_id))),
    }
}

/// Refuses a call that doesn't come from such an agent of a host that is part of the fleet; says which host it may speak for.
pub fn require_agent<T>(request: &tonic::Request<T>, role: AgentRole) -> Result<SpeaksFor, Status> {
    match peer_of(request)? {
        Peer::InProcess | Peer::Loopback => Ok(SpeaksFor::Any),
        Peer::Host(host) if host.role == role => host.check_admitted().map(|()| SpeaksFor::Host(host.host_id)),
        Peer::Host(host) => Err(refused(&format!("{} of host {}", host.role.as_str(), host.host_id))),
        Peer::Role { role } => Err(refused(role)),
    }
}

/// The admitted host that calls, whichever of its agents it is; None for whoever is trusted without a certificate.
pub fn require_host<T>(request: &tonic::Request<T>) -> Result<Option<HostPeer>, Status> {
    match peer_of(request)? {
        Peer::InProcess | Peer::Loopback => Ok(None),
        Peer::Host(host) => host.check_admitted().map(|()| Some(host.clone())),
        Peer::Role { role } => Err(refused(role)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(peer: Peer) -> tonic::Request<()> {
        let mut request = tonic::Request::new(());
        request.extensions_mut().insert(peer);
        request
    }

    #[test]
    fn each_peer_may_do_its_own_and_nothing_else() {
        let (fleet, host_id) = (Fleet::default(), HostId::new());
        fleet.publish([(host_id, "k1".to_owned())].into());
        let host = |key: &str, role| {
            request(Peer::Host(HostPeer { host_id, role, key_hash: key.into(), fleet: fleet.clone() }))
        };
        let role = |role: &str| request(Peer::Role { role: role.into() });
        let gateway = ["api-gateway"];
        for trusted in [Peer::InProcess, Peer::Loopback] {
            assert!(require_role(&request(trusted.clone()), &gateway).is_ok());
            assert_eq!(require_agent(&request(trusted), AgentRole::ComputeAgent).expect("trusted"), SpeaksFor::Any);
        }
        assert!(require_role(&role("api-gateway"), &gateway).is_ok());
        assert!(require_role(&role(CONTROL_PLANE), &gateway).is_ok());
        for stranger in
            [role("storage-manager"), role(""), host("k1", AgentRole::ComputeAgent), tonic::Request::new(())]
        {
            assert!(require_role(&stranger, &gateway).is_err(), "{stranger:?}");
        }
        let may = require_agent(&host("k1", AgentRole::ComputeAgent), AgentRole::ComputeAgent).expect("admitted");
        assert!(may.check(&host_id.to_string()).is_ok());
        assert!(may.check(&HostId::new().to_string()).is_err() && may.check("").is_err());
        assert!(require_agent(&host("k1", AgentRole::NetworkAgent), AgentRole::ComputeAgent).is_err());
        assert!(require_agent(&role(CONTROL_PLANE), AgentRole::ComputeAgent).is_err(), "a manager is no host");
        assert!(require_host(&host("k1", AgentRole::NetworkAgent)).expect("admitted").is_some());

        let old_key = require_agent(&host("k0", AgentRole::ComputeAgent), AgentRole::ComputeAgent).expect_err("old");
        assert!(says_not_admitted(&old_key));
        fleet.publish([].into());
        let removed = require_agent(&host("k1", AgentRole::ComputeAgent), AgentRole::ComputeAgent).expect_err("gone");
        assert!(says_not_admitted(&removed) && !says_not_admitted(&Status::permission_denied("x")));
    }
}
