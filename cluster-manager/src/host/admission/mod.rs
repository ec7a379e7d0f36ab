//! Which hosts are part of the fleet: tokens, joining, certificates, removal.
//!
//! A host proves itself with a key that it made and that never leaves it. The first time, a token's secret vouches for the key; from then
//! on the key does, also when all its certificates have expired while it was switched off. Whom the table of admissions doesn't name with
//! that key is refused by every manager, whatever certificate it holds: so removal needs no revocation list, and certificates may live
//! for a day. [`plan`] decides, [`join`] commits and signs.

pub mod join;
pub mod plan;
pub mod remove;
pub mod token;

use domain::Problem;
use proto::cluster::v1 as pb;
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

impl Admission {
    fn ca_sha256(&self) -> Result<String, Problem> {
        let prints = host_cert::fingerprints(self.ca.pem()).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "the CA's certificate can't be read");
            Problem::internal()
        })?;
        prints.into_iter().next().ok_or_else(Problem::internal)
    }
}

/// The CA, or why hosts can't join here.
pub(crate) fn admission(manager: &crate::manager::Manager) -> Result<&Admission, Problem> {
    let refuse = |detail: &str, hint: &str| Problem::invalid_state(detail).with_hint(hint);
    let found = manager.admission.as_ref().ok_or_else(|| {
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

pub(crate) fn certificate(admission: &Admission, certificate_pem: String) -> pb::HostCertificate {
    pb::HostCertificate { certificate_pem, ca_pem: admission.ca.pem().to_owned() }
}
