//! Which hosts are part of the fleet: tokens, joining, certificates, removal.
//!
//! A host proves itself with a key that it made and that never leaves it. The first time, a token's secret vouches for the key; from then
//! on the key does, also when all its certificates have expired while it was switched off. A host that the table of admissions doesn't name
//! with that key is refused by every manager, whatever certificate it holds: so removal needs no revocation list, and certificates may live
//! for a day. [`plan`] decides, [`join`] commits and signs.

pub mod join;
pub mod plan;
pub mod remove;
pub mod token;

use domain::{HostId, Problem};
use service_kit::{host_cert, tls::Ca};

/// What only the manager that holds the CA's key has.
pub struct Admission {
    pub ca: Ca,
    pub links: AgentLinks,
}

/// Where agents on other hosts find the managers. `{host}` stands for the host of the URL by which they reach the API; empty: nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentLinks {
    pub cluster_url: String,
    pub storage_url: String,
    pub resource_url: String,
}

/// A host's certificate, and the CA's.
#[derive(Debug)]
pub struct Certificate {
    pub certificate_pem: String,
    pub ca_pem: String,
}

/// What a host gets when it joins.
#[derive(Debug)]
pub struct AdmittedHost {
    pub host_id: HostId,
    pub name: String,
    pub certificate: Certificate,
    pub links: AgentLinks,
}

impl Admission {
    fn ca_sha256(&self) -> Result<String, Problem> {
        let prints = host_cert::fingerprints(self.ca.pem()).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the CA's certificate can't be read");
            Problem::internal()
        })?;
        prints.into_iter().next().ok_or_else(Problem::internal)
    }

    fn certificate(&self, certificate_pem: String) -> Certificate {
        Certificate { certificate_pem, ca_pem: self.ca.pem().to_owned() }
    }
}

/// The CA, or why hosts can't join here.
fn required(admission: Option<&Admission>) -> Result<&Admission, Problem> {
    let refuse = |detail: &str, hint: &str| Problem::invalid_state(detail).with_hint(hint);
    let found = admission.ok_or_else(|| {
        refuse(
            "this cluster-manager has no CA, so no host can join",
            "give it the CA's directory (api.ca_dir) with ca.key in it",
        )
    })?;
    if found.links.cluster_url.is_empty() || found.links.storage_url.is_empty() {
        return Err(refuse(
            "this control plane listens for no other host's agents, so no host can join",
            "set links.cluster_listen and links.storage_listen, and restart it",
        ));
    }
    Ok(found)
}
