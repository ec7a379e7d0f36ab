//! Tokens that admit hosts, and hosts that join.

use crate::app::host_token::NewHostToken;
use domain::{HostId, HostTokenId, Name, Timestamp, host::AgentRole};
use proto::cluster::v1::AdmitHostResponse;
use serde::{Deserialize, Serialize};
use store::HostTokenRow;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = HostToken)]
pub struct HostTokenView {
    #[schema(value_type = String, format = "uuid")]
    pub id: HostTokenId,
    /// The only host that it is for; null: any new host.
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    /// The zone of a new host; null: what its agent is configured with.
    #[schema(value_type = Option<String>)]
    pub zone: Option<Name>,
    pub state: HostTokenState,
    /// The host it has admitted.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub host_id: Option<HostId>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub redeemed_at: Option<Timestamp>,
    pub created_by: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostTokenState {
    /// It admits its first host.
    Unused,
    /// It admits the host that used it, and no other.
    Used,
    Expired,
}

impl From<HostTokenRow> for HostTokenView {
    fn from(row: HostTokenRow) -> Self {
        let state = if row.expires_at <= Timestamp::now() {
            HostTokenState::Expired
        } else if row.host_id.is_some() {
            HostTokenState::Used
        } else {
            HostTokenState::Unused
        };
        Self {
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
}

#[derive(Serialize, ToSchema)]
pub struct HostTokenCreated {
    #[schema(value_type = String, format = "uuid")]
    pub id: HostTokenId,
    /// All that a host needs, in one line: `iaasd compute-agent --join <token>`. It is shown once.
    pub token: String,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

impl From<NewHostToken> for HostTokenCreated {
    fn from(new: NewHostToken) -> Self {
        let NewHostToken { id, token, expires_at } = new;
        Self { id, token, expires_at }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HostTokenCreate {
    /// Admits only this host: a new one, which gets this name, or the known one of that name, which gets a new key. Absent: any new host.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub name: Option<Name>,
    /// The zone of a new host. Absent: what its agent is configured with.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub zone: Option<Name>,
    /// How long it is valid, in seconds: 1 to 2592000. Absent: an hour.
    #[serde(default)]
    pub ttl_secs: Option<u64>,
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
