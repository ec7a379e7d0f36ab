//! A host joins: what [`super::plan`] decides is committed, then its certificate is signed. A repeat after a lost answer is admitted again
//! and gets another certificate for the same key.

use super::{
    admission, certificate,
    plan::{Asked, Entry, Found, plan_entry, unknown_token},
};
use crate::{
    answer::{self, Deed},
    manager::{Manager, read_problem},
};
use domain::{
    ErrorKind, HostId, Problem, Timestamp,
    host::{AgentRole, HostFacts, MemoryOverhead},
};
use proto::{cluster::v1 as pb, convert::parse};
use service_kit::{
    context::CallContext,
    host_cert::{HostCertError, SigningRequest},
};
use std::time::Duration;
use store::{CommitError, Constraint, Guard, HostTokenRow, Unit};

const ATTEMPTS: usize = 5;

pub async fn admit(
    manager: &Manager,
    context: &CallContext,
    request: pb::AdmitHostRequest,
) -> Result<pb::AdmitHostResponse, Problem> {
    let authority = admission(manager)?;
    let host_id: HostId = parse("host_id", &request.host_id)?;
    let role = AgentRole::parse(&request.role)
        .ok_or_else(|| Problem::invalid("/role", "must be compute-agent or network-agent"))?;
    let csr = signing_request(&request.csr_pem)?;
    for _ in 0..ATTEMPTS {
        let token = match request.secret_sha256.as_str() {
            "" => None,
            hash => {
                let found = manager.store.host_token_find_by_secret(hash).await.map_err(|e| read_problem(&e))?;
                Some(found.ok_or_else(unknown_token)?)
            }
        };
        let host = manager.store.host_find(host_id).await.map_err(|e| read_problem(&e))?;
        let known = manager.store.host_admission_find(host_id).await.map_err(|e| read_problem(&e))?;
        let asked = Asked { host_id, key_hash: &csr.key_hash, name: &request.name, now: Timestamp::now() };
        let found = Found { token: token.as_ref(), host: host.as_ref(), admission: known.as_ref() };
        let entry = plan_entry(asked, found)?;
        let name = match (&entry, &host) {
            (Entry::New { name, .. }, _) => name.to_string(),
            (Entry::Again | Entry::Key, host) => host.as_ref().map(|h| h.name.clone()).unwrap_or_default(),
        };
        let unit = unit(context, asked, token.as_ref(), &entry, &name);
        if !unit.is_empty() {
            match manager.store.commit(unit).await {
                Ok(()) => {}
                // Changed since it was read: decided anew.
                Err(CommitError::Guard(Guard::HostToken) | CommitError::Constraint(Constraint::ForeignKey(_))) => {
                    continue;
                }
                Err(CommitError::Constraint(Constraint::HostName)) => return Err(name_taken(&name)),
                Err(error) => return Err(answer::commit_problem(&error)),
            }
        }
        if entry != Entry::Again {
            if let Some(row) = manager.store.host_find(host_id).await.map_err(|e| read_problem(&e))? {
                manager.inventory().put_host(&row);
            }
            tracing::info!(%host_id, host = name, role = role.as_str(), "a host joined");
        }
        let pem = authority.ca.issue_host(csr, host_id, role, lifetime(manager)).map_err(|e| unsigned(&e))?;
        let links = authority.links.clone();
        return Ok(pb::AdmitHostResponse {
            host_id: host_id.to_string(),
            name,
            certificate: Some(certificate(authority, pem)),
            cluster_url: links.cluster_url,
            storage_url: links.storage_url,
            resource_url: links.resource_url,
        });
    }
    Err(Problem::new(ErrorKind::StaleGeneration, "conflict", "the host kept changing meanwhile").with_hint("try again"))
}

pub(crate) fn signing_request(pem: &str) -> Result<SigningRequest, Problem> {
    SigningRequest::parse(pem).map_err(|error| match error {
        HostCertError::TooLong | HostCertError::Request(_) | HostCertError::Read(_) => {
            Problem::invalid("/csr_pem", "is no certificate signing request that its own key has signed (PEM)")
        }
        HostCertError::Make(_) => unsigned(&error),
    })
}

pub(crate) fn unsigned(error: &HostCertError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "a certificate can't be signed");
    Problem::internal()
}

pub(crate) fn lifetime(manager: &Manager) -> Duration {
    Duration::from_secs(manager.config.host_certificate_secs)
}

fn name_taken(name: &str) -> Problem {
    Problem::new(ErrorKind::AlreadyExists, "host_name_taken", format!("another host is named `{name}` already"))
        .with_hint(
            "name this one with `iaasctl host token create --name`, or remove the other with `iaasctl host remove`",
        )
}

fn unit(context: &CallContext, asked: Asked<'_>, token: Option<&HostTokenRow>, entry: &Entry, name: &str) -> Unit {
    let Asked { host_id, key_hash, now, .. } = asked;
    let mut unit = Unit::new();
    if let Some(token) = token {
        unit.push(store::HostTokenRedeem { id: token.id, host_id, key_hash: key_hash.to_owned(), at: now });
    }
    let message = match entry {
        Entry::Again => return unit,
        Entry::New { name, zone } => {
            let (facts, overhead) = (HostFacts::default(), MemoryOverhead::default());
            let called = name.to_string();
            let (name, zone) = (name.clone(), zone.clone());
            unit.push(store::HostExpect { id: host_id, name, zone, facts, overhead, at: now });
            format!("host {called} joined")
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
    Deed {
        project_id: None,
        noun: "host",
        object_id: host_id.to_string(),
        verb: "join",
        message,
        data: serde_json::json!({ "name": name, "key_sha256": key_hash }),
        now,
        context: &by,
    }
    .record(&mut unit);
    unit
}
