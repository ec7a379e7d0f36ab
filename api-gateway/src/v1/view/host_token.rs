//! Tokens that admit hosts, and hosts that join.

pub use api_types::{HostToken as HostTokenView, HostTokenCreated, HostTokenState};

use crate::app::host_token::NewHostToken;
use domain::{HostId, Timestamp, host::AgentRole};
use proto::cluster::v1::AdmitHostResponse;
use serde::{Deserialize, Serialize};
use store::HostTokenRow;
use utoipa::ToSchema;

#[must_use]
pub fn host_token_view(row: HostTokenRow) -> HostTokenView {
    let state = if row.expires_at <= Timestamp::now() {
        HostTokenState::Expired
    } else if row.host_id.is_some() {
        HostTokenState::Used
    } else {
        HostTokenState::Unused
    };
    HostTokenView {
        id: row.id,
        name: row.host_name,
        zone: row.zone,
        state,
        host_id: row.host_id,
        redeemed_at: row.redeemed_at,
        created_by: row.created_by,
        created_at: row.created_at,
        expires_at: row.expires_at,
    }
}

#[must_use]
pub fn host_token_created(new: NewHostToken) -> HostTokenCreated {
    let NewHostToken { id, token, expires_at } = new;
    HostTokenCreated { id, token, expires_at }
}

/// What a host sends to join.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostJoin {
    /// The token's secret. Absent: a host that was admitted before, by the key that signed the request.
    #[serde(default)]
    pub secret: Option<String>,
    #[schema(value_type = String, format = "uuid")]
    pub host_id: HostId,
    /// Which of the host's agents the certificate is for: `compute-agent` or `network-agent`.
    #[schema(value_type = String)]
    pub role: AgentRole,
    /// What the host calls itself.
    #[serde(default)]
    pub name: String,
    /// A certificate signing request (PKCS #10, PEM). Only its key is used.
    pub csr_pem: String,
}

#[derive(Serialize, ToSchema)]
pub struct HostJoined {
    pub host_id: String,
    pub name: String,
    pub certificate_pem: String,
    /// The CA that signed the managers' certificates.
    pub ca_pem: String,
    /// The addresses of the managers. `{host}` stands for the host name by which the API was reached; empty: there is none.
    pub cluster_url: String,
    pub storage_url: String,
    pub resource_url: String,
}

impl From<AdmitHostResponse> for HostJoined {
    fn from(answer: AdmitHostResponse) -> Self {
        let certificate = answer.certificate.unwrap_or_default();
        Self {
            host_id: answer.host_id,
            name: answer.name,
            certificate_pem: certificate.certificate_pem,
            ca_pem: certificate.ca_pem,
            cluster_url: answer.cluster_url,
            storage_url: answer.storage_url,
            resource_url: answer.resource_url,
        }
    }
}
