//! Certificates of hosts' agents: what they say, how they are asked for, when they are renewed.
//!
//! The key is made on the host and never leaves it: the host sends a signing request, of which only the key is used. What the
//! certificate says is the issuer's word alone: one URI that names the host and the role, no address and no name of a server, client
//! authentication only. So a stolen certificate speaks for one host, and for no server to anybody.
//!
//! It is valid from one lifetime before it was issued: clocks of two hosts differ. So the middle of its validity is the moment of issue,
//! and [`HostCertificate::renew_at`] needs nothing but the certificate.

use crate::tls::{Ca, TlsError};
use domain::{HostId, Timestamp, host::AgentRole};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData,
    SanType,
};
use std::time::{Duration, SystemTime};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, pem::Pem};

const URI_PREFIX: &str = "spiffe://iaas/host/";
/// A signing request is a few hundred bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum HostCertError {
    #[error("the signing request is longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
    /// The text is no PEM, holds no request, or isn't signed by its own key.
    #[error("the signing request can't be read")]
    Request(#[source] rcgen::Error),
    #[error("the certificate can't be made")]
    Make(#[source] TlsError),
    #[error("the certificate can't be read: {0}")]
    Read(&'static str),
}

/// A request that its own key has signed.
pub struct SigningRequest {
    params: CertificateSigningRequestParams,
    /// SHA-256 of the public key, hexadecimal.
    pub key_hash: String,
}

impl SigningRequest {
    pub fn parse(pem: &str) -> Result<Self, HostCertError> {
        if pem.len() > REQUEST_BYTES_MAX {
            return Err(HostCertError::TooLong);
        }
        let params = CertificateSigningRequestParams::from_pem(pem).map_err(HostCertError::Request)?;
        let key_hash = key_hash(&params.public_key.subject_public_key_info());
        Ok(Self { params, key_hash })
    }
}

/// A new key, PEM.
pub fn new_key() -> Result<String, HostCertError> {
    let pair = KeyPair::generate().map_err(|e| HostCertError::Make(TlsError::Make(e)))?;
    Ok(pair.serialize_pem())
}

/// A request for a certificate of this key (PEM): it proves that whoever made it has the key, and asks for nothing else.
pub fn request_for(key_pem: &str) -> Result<String, HostCertError> {
    let make = || {
        let pair = KeyPair::from_pem(key_pem)?;
        CertificateParams::new(Vec::new())?.serialize_request(&pair)?.pem()
    };
    make().map_err(|e| HostCertError::Make(TlsError::Make(e)))
}

impl Ca {
    /// A certificate (PEM) for an agent of this host.
    pub fn issue_host(
        &self,
        mut request: SigningRequest,
        host_id: HostId,
        role: AgentRole,
        lifetime: Duration,
    ) -> Result<String, HostCertError> {
        let make = |e| HostCertError::Make(TlsError::Make(e));
        let mut params = CertificateParams::new(Vec::new()).map_err(make)?;
        params.distinguished_name.push(DnType::CommonName, format!("{}:{host_id}", role.as_str()));
        let uri = format!("{URI_PREFIX}{host_id}/{}", role.as_str());
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(make)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now();
        params.not_before = (now - lifetime).into();
        params.not_after = (now + lifetime).into();
        request.params.params = params;
        Ok(request.params.signed_by(&self.issuer).map_err(make)?.pem())
    }
}

/// The host and role that a certificate's URI names.
#[must_use]
pub fn host_of(cert: &X509Certificate<'_>) -> Option<(HostId, AgentRole)> {
    let names = cert.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        let (host_id, role) = uri.strip_prefix(URI_PREFIX)?.split_once('/')?;
        Some((host_id.parse().ok()?, AgentRole::parse(role)?))
    })
}

/// SHA-256 of a public key (DER, SubjectPublicKeyInfo), hexadecimal.
#[must_use]
pub fn key_hash(spki: &[u8]) -> String {
    sha256_hex(spki)
}

/// SHA-256, hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A host's certificate, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCertificate {
    pub host_id: HostId,
    pub role: AgentRole,
    pub key_hash: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl HostCertificate {
    /// The first certificate of a PEM text.
    pub fn parse(pem: &str) -> Result<Self, HostCertError> {
        let block = Pem::iter_from_buffer(pem.as_bytes()).next().and_then(Result::ok);
        let block = block.ok_or(HostCertError::Read("it is not PEM"))?;
        let cert = block.parse_x509().map_err(|_| HostCertError::Read("it is not X.509"))?;
        let (host_id, role) = host_of(&cert).ok_or(HostCertError::Read("it names no host"))?;
        let millis = |time: x509_parser::time::ASN1Time| Timestamp(time.timestamp().saturating_mul(1000));
        Ok(Self {
            host_id,
            role,
            key_hash: key_hash(cert.public_key().raw),
            not_before: millis(cert.validity().not_before),
            not_after: millis(cert.validity().not_after),
        })
    }

    /// Half of its life after it was issued.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let whole = self.not_after.0.saturating_sub(self.not_before.0);
        Timestamp(self.not_before.0 + whole / 4 * 3)
    }
}

/// SHA-256 of each certificate (DER) of a PEM text.
pub fn fingerprints(pem: &str) -> Result<Vec<String>, HostCertError> {
    let blocks: Result<Vec<Pem>, _> = Pem::iter_from_buffer(pem.as_bytes()).collect();
    let blocks = blocks.map_err(|_| HostCertError::Read("it is not PEM"))?;
    Ok(blocks.iter().filter(|b| b.label == "CERTIFICATE").map(|b| sha256_hex(&b.contents)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_what_the_issuer_says_and_nothing_that_was_asked_for() {
        let dir = tempfile::tempdir().expect("tempdir");
        let ca = Ca::open_or_create(dir.path()).expect("a CA");
        let (host_id, key) = (HostId::new(), new_key().expect("a key"));
        let request = SigningRequest::parse(&request_for(&key).expect("made")).expect("signed by its key");
        let hash = request.key_hash.clone();
        let pem = ca.issue_host(request, host_id, AgentRole::NetworkAgent, Duration::from_secs(100)).expect("issued");
        let cert = HostCertificate::parse(&pem).expect("readable");
        assert_eq!((cert.host_id, cert.role, &cert.key_hash), (host_id, AgentRole::NetworkAgent, &hash));
        let now = Timestamp::now().0;
        assert!((cert.renew_at().0 - now - 50_000).abs() < 5_000, "{cert:?} at {now}");

        // Asks to be a CA and a server of that name.
        let pair = KeyPair::from_pem(&key).expect("a key");
        let mut greedy = CertificateParams::new(vec!["manager.example".to_owned()]).expect("params");
        greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let greedy = greedy.serialize_request(&pair).and_then(|r| r.pem()).expect("made");
        let request = SigningRequest::parse(&greedy).expect("signed by its key");
        let pem = ca.issue_host(request, host_id, AgentRole::ComputeAgent, Duration::from_secs(1)).expect("issued");
        let block = Pem::iter_from_buffer(pem.as_bytes()).next().expect("one").expect("PEM");
        let cert = block.parse_x509().expect("X.509");
        assert!(!cert.is_ca());
        let names = cert.subject_alternative_name().expect("read").expect("there").value.general_names.clone();
        assert!(matches!(names.as_slice(), [GeneralName::URI(_)]), "{names:?}");
        let usage = cert.extended_key_usage().expect("read").expect("there").value;
        assert!(usage.client_auth && !usage.server_auth);
    }

    #[test]
    fn a_request_that_is_none_is_refused() {
        let request = request_for(&new_key().expect("a key")).expect("made");
        let long = "x".repeat(REQUEST_BYTES_MAX + 1);
        // The signature is the last part of it.
        let forged = {
            let lines: Vec<&str> = request.lines().collect();
            let (end, rest) = lines.split_last().expect("lines");
            let (last, head) = rest.split_last().expect("lines");
            let changed = if last.starts_with('A') { last.replacen('A', "B", 1) } else { format!("A{}", &last[1..]) };
            format!("{}\n{changed}\n{end}\n", head.join("\n"))
        };
        for bad in
            ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", &long, &forged]
        {
            assert!(SigningRequest::parse(bad).is_err(), "{bad}");
        }
        assert!(SigningRequest::parse(&request).is_ok());
    }
}
