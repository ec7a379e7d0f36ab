//! What a host asks of the API to join: one request, over TLS that is checked by the CA's fingerprint.
//!
//! The host knows no certificate yet. It accepts a server that shows, in its chain, the CA whose fingerprint came with the token, and
//! whose own certificate is of that CA and names the host that was asked for; or one that the machine's own trust store accepts (an API
//! with a certificate of a public CA). Plain HTTP is for loopback. Whatever way it came, the CA in the answer must be the token's.

use anyhow::Context;
use domain::{HostId, host::AgentRole};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde::{Deserialize, Serialize};
use service_kit::error_chain;
use service_kit::host_cert::{fingerprints, sha256_hex};
use std::{net::IpAddr, sync::Arc, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize)]
pub struct JoinRequest<'a> {
    /// None: by the key alone, which was admitted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<&'a str>,
    pub host_id: HostId,
    pub role: AgentRole,
    pub name: &'a str,
    pub csr_pem: &'a str,
}

#[derive(Debug, Deserialize)]
pub struct Joined {
    pub name: String,
    pub certificate_pem: String,
    pub ca_pem: String,
    pub cluster_url: String,
    pub storage_url: String,
    pub resource_url: String,
}

/// Why a host couldn't join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Asking again won't help.
    #[error("{detail}")]
    Refused { code: String, detail: String },
    /// The server isn't the one that the token names.
    #[error(
        "{url} doesn't show the CA {ca_sha256} that the token names, or isn't certified by it for this address: is it the right server, and the whole token?"
    )]
    Untrusted { url: String, ca_sha256: String },
    #[error("{url} is plain HTTP, which is for loopback alone: the token's secret would be readable on the way")]
    Plain { url: String },
    /// Perhaps later.
    #[error("{url} can't be asked: {detail}")]
    Away { url: String, detail: String },
}

impl JoinError {
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    hint: Option<String>,
}

/// Asks one URL.
pub async fn join(url: &str, ca_sha256: &str, request: &JoinRequest<'_>) -> Result<Joined, JoinError> {
    let away = |detail: String| JoinError::Away { url: url.to_owned(), detail };
    let uri: http::Uri = url.parse().map_err(|_| away("it is not a URL".to_owned()))?;
    if uri.scheme_str() != Some("https") && !is_loopback(&uri) {
        return Err(JoinError::Plain { url: url.to_owned() });
    }
    let client = client(ca_sha256).map_err(|e| away(format!("{e:#}")))?;
    let response = client.post(format!("{}/v1/host-joins", url.trim_end_matches('/'))).json(request).send().await;
    let answer = response.map_err(|error| match untrusted(&error) {
        true => JoinError::Untrusted { url: url.to_owned(), ca_sha256: ca_sha256.to_owned() },
        false => away(error_chain(&error)),
    })?;
    let status = answer.status();
    if status.is_success() {
        let joined: Joined = answer.json().await.map_err(|e| away(error_chain(&e)))?;
        let shown = fingerprints(&joined.ca_pem).unwrap_or_default();
        if !shown.iter().any(|print| print == ca_sha256) {
            return Err(JoinError::Untrusted { url: url.to_owned(), ca_sha256: ca_sha256.to_owned() });
        }
        return Ok(for_host(joined, uri.host().unwrap_or_default()));
    }
    let refusal = answer.json::<Refusal>().await.ok();
    let (code, detail, hint) = refusal
        .map_or_else(Default::default, |r| (r.code, r.detail, r.hint.map(|h| format!(" ({h})")).unwrap_or_default()));
    let detail = if detail.is_empty() { format!("status {status}") } else { format!("{detail}{hint}") };
    if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS {
        return Err(away(detail));
    }
    Err(JoinError::Refused { code, detail })
}

/// Managers that listen on every address are where the API is.
fn for_host(joined: Joined, host: &str) -> Joined {
    let fill = |url: String| url.replace("{host}", host);
    Joined {
        cluster_url: fill(joined.cluster_url),
        storage_url: fill(joined.storage_url),
        resource_url: fill(joined.resource_url),
        ..joined
    }
}

pub fn is_loopback(uri: &http::Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the server's certificate is at the bottom of it. An I/O error hides what it holds from `source`.
fn untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |e| e.source());
    causes.any(|cause| {
        let held = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) || held.is_some_and(|e| untrusted(e))
    })
}

fn client(ca_sha256: &str) -> anyhow::Result<reqwest::Client> {
    service_kit::install_crypto();
    let provider = CryptoProvider::get_default().context("no crypto provider")?.clone();
    let verifier = Pinned::new(ca_sha256.to_owned(), Arc::clone(&provider));
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .user_agent(concat!("iaasd/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls)
        .build()
        .context("the HTTP client")
}

/// Trusts the CA of one fingerprint, and whom this machine trusts.
#[derive(Debug)]
struct Pinned {
    ca_sha256: String,
    provider: Arc<CryptoProvider>,
    machine: Arc<RootCertStore>,
}

impl Pinned {
    fn new(ca_sha256: String, provider: Arc<CryptoProvider>) -> Self {
        // A machine without a trust store has only the fingerprint.
        let mut machine = RootCertStore::empty();
        machine.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { ca_sha256, provider, machine: Arc::new(machine) }
    }

    fn roots(&self, shown: &[CertificateDer<'_>]) -> Result<Arc<RootCertStore>, rustls::Error> {
        let Some(ca) = shown.iter().find(|cert| sha256_hex(cert) == self.ca_sha256) else {
            return Ok(Arc::clone(&self.machine));
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        Ok(Arc::new(roots))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = self.roots(intermediates)?;
        if roots.is_empty() {
            return Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use service_kit::tls::Ca;

    fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("PEM")
    }

    #[test]
    fn a_server_is_trusted_by_the_cas_fingerprint_and_for_its_own_name() {
        service_kit::install_crypto();
        let provider = CryptoProvider::get_default().expect("installed").clone();
        let dir = tempfile::tempdir().expect("tempdir");
        let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
        let (ours, theirs) = (Ca::open_or_create(&ours).expect("a CA"), Ca::open_or_create(&theirs).expect("a CA"));
        let issue = |ca: &Ca| ca.issue("api", &["127.0.0.1".to_owned()], Duration::from_secs(60)).expect("issued").0;
        let print = fingerprints(ours.pem()).expect("read").remove(0);
        let verifier = Pinned { machine: Arc::new(RootCertStore::empty()), ..Pinned::new(print, provider) };
        let verify = |leaf: &str, chain: &str, name: &str| {
            let (leaf, chain) = (certificates(leaf), certificates(chain));
            let name = ServerName::try_from(name.to_owned()).expect("a name");
            verifier.verify_server_cert(&leaf[0], &chain, &name, &[], UnixTime::now())
        };
        let leaf = issue(&ours);
        assert!(verify(&leaf, ours.pem(), "127.0.0.1").is_ok());
        assert!(verify(&leaf, ours.pem(), "127.0.0.2").is_err(), "another server of ours");
        assert!(verify(&leaf, theirs.pem(), "127.0.0.1").is_err(), "the CA isn't shown");
        assert!(verify(&issue(&theirs), ours.pem(), "127.0.0.1").is_err(), "the CA is shown, but hasn't signed");
        assert!(verify(&issue(&theirs), theirs.pem(), "127.0.0.1").is_err());
    }

    #[test]
    fn managers_that_listen_everywhere_are_where_the_api_is() {
        let joined = Joined {
            name: "h".into(),
            certificate_pem: String::new(),
            ca_pem: String::new(),
            cluster_url: "https://{host}:7481".into(),
            storage_url: "https://10.0.0.9:7482".into(),
            resource_url: String::new(),
        };
        let filled = for_host(joined, "[fd00::1]");
        assert_eq!(filled.cluster_url, "https://[fd00::1]:7481");
        assert_eq!((filled.storage_url.as_str(), filled.resource_url.as_str()), ("https://10.0.0.9:7482", ""));
    }

    #[tokio::test]
    async fn a_secret_is_never_sent_in_plain_text_to_another_machine() {
        let request = JoinRequest {
            secret: Some("s"),
            host_id: HostId::new(),
            role: AgentRole::ComputeAgent,
            name: "",
            csr_pem: "",
        };
        let error = join("http://192.0.2.1:7480", &"0".repeat(64), &request).await.expect_err("refused");
        assert!(matches!(error, JoinError::Plain { .. }) && !error.may_pass());
        let error = join("http://127.0.0.1:1", &"0".repeat(64), &request).await.expect_err("nobody listens");
        assert!(error.may_pass());
    }
}
