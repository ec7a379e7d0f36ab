//! A host joins: what [`super::plan`] decides is committed, then its certificate is signed. A repeat after a lost answer is admitted again
//! and gets another certificate for the same key. Later its agents renew their certificates.

use super::{
    AdmittedHost, Certificate,
    plan::{Applicant, Entry, Known, plan_entry, unknown_token},
    required,
};
use crate::manager::Manager;
use domain::{
    ErrorKind, HostId, Problem, Timestamp,
    host::{AgentRole, HostFacts, MemoryOverhead},
};
use operation::{Activity, commit_problem, contended, read_problem};
use service_kit::{
    context::CallContext,
    host_cert::{HostCertError, SigningRequest},
    peer::HostPeer,
};
use std::time::Duration;
use store::{CommitError, Constraint, Guard, HostTokenRow, Unit};

const ATTEMPTS: usize = 5;

#[derive(Debug)]
pub struct JoinRequest {
    pub host_id: HostId,
    pub role: AgentRole,
    /// What the host calls itself.
    pub name: String,
    pub csr_pem: String,
    /// `None`: it was admitted before, and asks with the key that it was admitted with.
    pub secret_sha256: Option<String>,
}

pub async fn admit(manager: &Manager, context: &CallContext, request: JoinRequest) -> Result<AdmittedHost, Problem> {
    let authority = required(manager.admission.as_deref())?;
    let JoinRequest { host_id, role, .. } = request;
    let csr = signing_request(&request.csr_pem)?;
    for _ in 0..ATTEMPTS {
        let token = match &request.secret_sha256 {
            None => None,
            Some(hash) => {
                let found = manager.store.host_token_find_by_secret(hash).await.map_err(read_problem)?;
                Some(found.ok_or_else(unknown_token)?)
            }
        };
        let host = manager.store.host_find(host_id).await.map_err(read_problem)?;
        let admission = manager.store.host_admission_find(host_id).await.map_err(read_problem)?;
        let applicant = Applicant { host_id, key_hash: &csr.key_hash, name: &request.name, now: Timestamp::now() };
        let known = Known { token: token.as_ref(), host: host.as_ref(), admission: admission.as_ref() };
        let entry = plan_entry(applicant, known)?;
        let name = match (&entry, &host) {
            (Entry::New { name, .. }, _) => name.to_string(),
            (Entry::Again | Entry::Key, host) => host.as_ref().map(|h| h.name.clone()).unwrap_or_default(),
        };
        let unit = unit(context, applicant, token.as_ref(), &entry, &name);
        if !unit.is_empty() {
            match manager.store.commit(unit).await {
                Ok(()) => {}
                // It changed since it was read, so it is decided again.
                Err(CommitError::Guard(Guard::HostToken) | CommitError::Constraint(Constraint::ForeignKey(_))) => {
                    continue;
                }
                Err(CommitError::Constraint(Constraint::HostName)) => return Err(name_taken(&name)),
                Err(error) => return Err(commit_problem(error)),
            }
        }
        if entry != Entry::Again {
            if let Some(row) = manager.store.host_find(host_id).await.map_err(read_problem)? {
                manager.inventory().put_host(&row);
            }
            tracing::info!(%host_id, host = name, role = role.as_str(), "a host joined");
        }
        let pem = authority.ca.issue_host(csr, host_id, role, lifetime(manager)).map_err(|e| unsigned(&e))?;
        let certificate = authority.certificate(pem);
        return Ok(AdmittedHost { host_id, name, certificate, links: authority.links.clone() });
    }
    Err(contended("the host"))
}

/// The next certificate for the same host, role and key, whatever the request names.
pub fn renew(manager: &Manager, peer: &HostPeer, csr_pem: &str) -> Result<Certificate, Problem> {
    let authority = required(manager.admission.as_deref())?;
    let csr = signing_request(csr_pem)?;
    if csr.key_hash != peer.key_hash {
        return Err(Problem::invalid(
            "/csr_pem",
            "is of another key than the certificate: a new key joins with a token",
        ));
    }
    let pem = authority.ca.issue_host(csr, peer.host_id, peer.role, lifetime(manager)).map_err(|e| unsigned(&e))?;
    tracing::info!(host_id = %peer.host_id, role = peer.role.as_str(), "a host's certificate was renewed");
    Ok(authority.certificate(pem))
}

fn signing_request(pem: &str) -> Result<SigningRequest, Problem> {
    SigningRequest::parse(pem).map_err(|error| match error {
        HostCertError::TooLong | HostCertError::Request(_) | HostCertError::Read(_) => {
            Problem::invalid("/csr_pem", "is no certificate signing request that its own key has signed (PEM)")
        }
        HostCertError::Make(_) => unsigned(&error),
    })
}

fn unsigned(error: &HostCertError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "a certificate can't be signed");
    Problem::internal()
}

fn lifetime(manager: &Manager) -> Duration {
    Duration::from_secs(manager.config.host_certificate_secs)
}

fn name_taken(name: &str) -> Problem {
    Problem::new(ErrorKind::AlreadyExists, "host_name_taken", format!("another host is named `{name}` already"))
        .with_hint(
            "name this one with `iaasctl host token create --name`, or remove the other with `iaasctl host remove`",
        )
}

fn unit(
    context: &CallContext,
    applicant: Applicant<'_>,
    token: Option<&HostTokenRow>,
    entry: &Entry,
    name: &str,
) -> Unit {
    let Applicant { host_id, key_hash, now, .. } = applicant;
    let mut unit = Unit::new();
    if let Some(token) = token {
        unit.push(store::HostTokenRedeem { id: token.id, host_id, key_hash: key_hash.to_owned(), at: now });
    }
    let message = match entry {
        Entry::Again => return unit,
        Entry::New { name, zone } => {
            let (facts, overhead) = (HostFacts::default(), MemoryOverhead::default());
            let message = format!("host {name} joined");
            let (name, zone) = (name.clone(), zone.clone());
            unit.push(store::HostExpect { id: host_id, name, zone, facts, overhead, at: now });
            message
        }
        Entry::Key => format!("host {name} joined with a new key"),
    };
    unit.push(store::HostAdmissionPut { host_id, key_hash: key_hash.to_owned(), at: now });
    // Whoever made the token answers for the host.
    let by = CallContext {
        principal: token.map(|t| format!("host-token:{}", t.id)).unwrap_or_default(),
        principal_name: token.map(|t| t.created_by.clone()).unwrap_or_default(),
        ..context.clone()
    };
    Activity::accepted("host", host_id, "join", message)
        .with_data(serde_json::json!({ "name": name, "key_sha256": key_hash }))
        .record(&mut unit, &by, now);
    unit
}
