//! Certificates: a built-in CA for daemons and the API, mutual TLS between daemons, certificates that are read anew when their files
//! change.
//!
//! A manager's certificate carries its role as its common name, an agent's names its host ([`crate::host_cert`]); a server trusts exactly
//! the CA it was given.

use crate::{
    host_cert,
    secret_file::{self, SecretFileError},
};
use domain::{HostId, host::AgentRole};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("a certificate could not be made")]
    Make(#[source] rcgen::Error),
    #[error("{} can't be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} holds no PEM certificate or key", path.display())]
    Pem {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("the certificate and key don't work")]
    Config(#[source] rustls::Error),
    #[error("the client verifier could not be made")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error(transparent)]
    Secret(SecretFileError),
}

/// Where a certificate chain, its key, and the CA that its peers must be signed by, are (PEM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// `None` is a server that requires no client certificate.
    pub peers_ca: Option<PathBuf>,
}

/// The CA of one installation: `ca.pem` and `ca.key` in its directory.
pub struct Ca {
    pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Opens the CA in `dir`, making it at first use.
    pub fn open_or_create(dir: &Path) -> Result<Self, TlsError> {
        let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        if let Some(key_pem) = secret_file::read(&key).map_err(TlsError::Secret)? {
            let pem = std::fs::read_to_string(&cert).map_err(|source| TlsError::Read { path: cert, source })?;
            let key = KeyPair::from_pem(&String::from_utf8_lossy(&key_pem)).map_err(TlsError::Make)?;
            let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(TlsError::Make)?;
            return Ok(Self { pem, issuer });
        }
        let mut params = CertificateParams::new(Vec::new()).map_err(TlsError::Make)?;
        params.distinguished_name.push(DnType::CommonName, "iaas CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_lifetime(&mut params, Duration::from_secs(10 * 365 * 86_400));
        let pair = KeyPair::generate().map_err(TlsError::Make)?;
        let made = params.self_signed(&pair).map_err(TlsError::Make)?;
        let pem = made.pem();
        // The key last: a CA exists once its key does.
        secret_file::write(&cert, pem.as_bytes()).map_err(TlsError::Secret)?;
        secret_file::write(&key, pair.serialize_pem().as_bytes()).map_err(TlsError::Secret)?;
        Ok(Self { issuer: Issuer::new(params, pair), pem })
    }

    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate and key (PEM) for a daemon: server and client in one, valid for `lifetime`.
    pub fn issue(&self, common_name: &str, names: &[String], lifetime: Duration) -> Result<(String, String), TlsError> {
        let mut params = CertificateParams::new(Vec::new()).map_err(TlsError::Make)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        for name in names {
            let san = match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(TlsError::Make)?),
            };
            params.subject_alt_names.push(san);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_lifetime(&mut params, lifetime);
        let pair = KeyPair::generate().map_err(TlsError::Make)?;
        let cert = params.signed_by(&pair, &self.issuer).map_err(TlsError::Make)?;
        Ok((cert.pem(), pair.serialize_pem()))
    }

    /// As [`Ca::issue`], into `<dir>/<stem>.pem` and `<dir>/<stem>.key`, with the CA beside them.
    pub fn issue_files(
        &self,
        dir: &Path,
        stem: &str,
        names: &[String],
        lifetime: Duration,
    ) -> Result<CertFiles, TlsError> {
        let (cert, key) = self.issue(stem, names, lifetime)?;
        // With the CA behind it: a client that knows only the CA's fingerprint finds what to check by.
        let cert = cert + &self.pem;
        let files = CertFiles {
            cert: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
            peers_ca: Some(dir.join("ca.pem")),
        };
        for (path, text) in
            [(&files.key, key.as_str()), (&files.cert, cert.as_str()), (&dir.join("ca.pem"), self.pem.as_str())]
        {
            secret_file::write(path, text.as_bytes()).map_err(TlsError::Secret)?;
        }
        Ok(files)
    }
}

fn set_lifetime(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    // It is valid since yesterday, because the clocks of two hosts differ.
    params.not_before = (now - Duration::from_secs(86_400)).into();
    params.not_after = (now + lifetime).into();
}

fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Pem { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}

fn read_roots(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in read_certs(path)? {
        roots.add(cert).map_err(TlsError::Config)?;
    }
    Ok(Arc::new(roots))
}

/// A value made from files, made anew when one of them changes. A change that doesn't load keeps the old value and says so.
struct Reloading<T> {
    paths: Vec<PathBuf>,
    current: Mutex<(Vec<Option<SystemTime>>, Arc<T>)>,
    load: Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>,
}

impl<T> Reloading<T> {
    fn new(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let stamps = Self::stamps(&paths);
        let current = Mutex::new((stamps, Arc::new(load()?)));
        Ok(Self { paths, current, load: Box::new(load) })
    }

    fn stamps(paths: &[PathBuf]) -> Vec<Option<SystemTime>> {
        paths.iter().map(|p| std::fs::metadata(p).and_then(|m| m.modified()).ok()).collect()
    }

    fn get(&self) -> Arc<T> {
        let stamps = Self::stamps(&self.paths);
        let mut current = self.current.lock();
        if current.0 != stamps {
            match (self.load)() {
                Ok(value) => {
                    tracing::info!(files = ?self.paths, "certificates reloaded");
                    *current = (stamps, Arc::new(value));
                }
                Err(error) => {
                    tracing::error!(%error, files = ?self.paths, "changed certificates don't load; the old ones stay in use");
                    current.0 = stamps;
                }
            }
        }
        Arc::clone(&current.1)
    }
}

/// The server's side of TLS.
#[derive(Clone)]
pub struct ServerTls(Arc<Reloading<ServerConfig>>);

impl ServerTls {
    /// `alpn` as in `[b"h2", b"http/1.1"]`.
    pub fn new(files: CertFiles, alpn: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        crate::install_crypto();
        let mut paths = vec![files.cert.clone(), files.key.clone()];
        paths.extend(files.peers_ca.clone());
        let load = move || {
            let builder = ServerConfig::builder();
            let builder = match &files.peers_ca {
                None => builder.with_no_client_auth(),
                Some(ca) => builder.with_client_cert_verifier(
                    WebPkiClientVerifier::builder(read_roots(ca)?).build().map_err(TlsError::Verifier)?,
                ),
            };
            let mut config =
                builder.with_single_cert(read_certs(&files.cert)?, read_key(&files.key)?).map_err(TlsError::Config)?;
            config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
            Ok(config)
        };
        Ok(Self(Arc::new(Reloading::new(paths, load)?)))
    }

    pub async fn accept<S>(&self, stream: S) -> io::Result<tokio_rustls::server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        tokio_rustls::TlsAcceptor::from(self.0.get()).accept(stream).await
    }
}

/// The client's side of mutual TLS.
#[derive(Clone)]
pub struct ClientTls(Arc<Reloading<ClientConfig>>);

impl ClientTls {
    pub fn new(files: CertFiles) -> Result<Self, TlsError> {
        crate::install_crypto();
        let mut paths = vec![files.cert.clone(), files.key.clone()];
        paths.extend(files.peers_ca.clone());
        let load = move || {
            let roots = match &files.peers_ca {
                Some(ca) => read_roots(ca)?,
                None => Arc::new(RootCertStore::empty()),
            };
            let mut config = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_client_auth_cert(read_certs(&files.cert)?, read_key(&files.key)?)
                .map_err(TlsError::Config)?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            Ok(config)
        };
        Ok(Self(Arc::new(Reloading::new(paths, load)?)))
    }

    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        tokio_rustls::TlsConnector::from(self.0.get()).connect(name, stream).await
    }
}

/// The names and addresses under which others can reach a server that listens on every address of this machine.
#[must_use]
pub fn local_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    if let Ok(hostname) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        let hostname = hostname.trim().to_ascii_lowercase();
        if !hostname.is_empty() && hostname.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
            names.push(hostname);
        }
    }
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let address = interface.address.as_ref();
        names.extend(address.and_then(|a| a.as_sockaddr_in()).map(|a| a.ip().to_string()));
        names.extend(address.and_then(|a| a.as_sockaddr_in6()).map(|a| a.ip().to_string()));
    }
    names.sort();
    names.dedup();
    names
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerName {
    /// The role that its common name says.
    Role(String),
    /// An agent of one host, with the SHA-256 of its public key.
    Host { host_id: HostId, role: AgentRole, key_hash: String },
}

/// Whom the peer's verified certificate names. None: there is none that can be read.
#[must_use]
pub fn peer_name(connection: &ServerConnection) -> Option<PeerName> {
    let der = connection.peer_certificates()?.first()?;
    let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
    if let Some((host_id, role)) = host_cert::host_of(&cert) {
        return Some(PeerName::Host { host_id, role, key_hash: host_cert::key_hash(cert.public_key().raw) });
    }
    cert.subject().iter_common_name().next()?.as_str().ok().map(|name| PeerName::Role(name.to_owned()))
}
