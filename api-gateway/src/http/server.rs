//! The listener: accepts, does TLS where the address asks for it, and drains on shutdown.
//!
//! hyper-util's connection builder is driven here rather than by `axum::serve`, for TCP_NODELAY, header timeouts, TLS whose certificate
//! changes under it, and a drain with a deadline that also covers event streams and WebSockets (both end when the shutdown token does). A client
//! that reads nothing keeps its answer from being polled, so nothing but the end of its connection ends it: at the end of the drain, and before
//! that when it has taken nothing for a while (`StallGuard`).
//!
//! Nobody holds connections for nothing or all of them: one without a request is closed ([`Activity`]), and peers share the places.

use crate::{
    app::App,
    auth::peer::{PeerNetwork, TrustedProxies},
    config::Config,
    http::{
        activity::{Activity, Answer, IdleLimits},
        dialect::Dialect,
        edge::{self, Edge},
        stall::StallGuard,
        stream_stall::StallExecutor,
    },
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use service_kit::{
    share::{Exhausted, Place, Pool, SharedPool},
    tls::{Ca, CertFiles, ServerTls, TlsError},
};
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A client that hasn't sent its first request's head, or finished its handshake, by then is hung up on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an idle connection may take to end when it is told to.
const GOODBYE: Duration = Duration::from_secs(5);
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
const CERTIFICATE_RENEWAL: Duration = Duration::from_secs(10 * 24 * 3600);

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("can't listen on {addr} (api.listen): is another process using the port?")]
    Listen {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the API's TLS can't be set up")]
    Tls(#[source] TlsError),
}

pub struct Server {
    listener: TcpListener,
    tls: Option<ServerTls>,
    /// Of the built-in CA, when the certificate is its own: to be renewed.
    own_certificate: Option<OwnCertificate>,
    connections: SharedPool<PeerNetwork>,
    proxies: TrustedProxies,
    idle: IdleLimits,
    drain: Duration,
}

/// What all connections are served with.
struct Serving {
    edge: Edge,
    builder: auto::Builder<StallExecutor>,
    tls: Option<ServerTls>,
    idle: IdleLimits,
    shutdown: CancellationToken,
    /// The end of the drain: every connection ends as it is.
    cut: CancellationToken,
}

struct OwnCertificate {
    ca: Ca,
    dir: std::path::PathBuf,
    names: Vec<String>,
}

impl OwnCertificate {
    fn issue(&self) -> Result<CertFiles, TlsError> {
        let mut files = self.ca.issue_files(&self.dir, "api", &self.names, CERTIFICATE_LIFETIME)?;
        // Clients of the API bring tokens, no certificate.
        files.peers_ca = None;
        Ok(files)
    }
}

impl Server {
    /// Binds, so that a port in use is an error of the start and the address is known before serving.
    pub async fn bind(config: &Config) -> Result<Self, ServerError> {
        let addr = config.api.listen;
        let listener = TcpListener::bind(addr).await.map_err(|source| ServerError::Listen { addr, source })?;
        let idle = Duration::from_secs(config.api.idle_timeout_secs);
        let (tls, own_certificate) = tls(config).map_err(ServerError::Tls)?;
        Ok(Self {
            listener,
            tls,
            own_certificate,
            connections: SharedPool::with_most(
                Pool::Connections,
                config.api.max_connections,
                config.api.max_connections_per_peer,
            ),
            proxies: TrustedProxies::new(config.api.trusted_proxies.clone()),
            idle: IdleLimits { first: idle.min(HEAD_TIMEOUT), between: idle },
            drain: Duration::from_secs(config.api.drain_timeout_secs),
        })
    }

    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Accepts until `shutdown`, then waits for what is in progress, at most the drain timeout.
    pub async fn serve(self, app: App, dialects: Vec<Dialect>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let mut builder = auto::Builder::new(StallExecutor::default());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
        let serving = Arc::new(Serving {
            edge: Edge::new(app, dialects, self.tls.is_some()),
            builder,
            tls: self.tls.clone(),
            idle: self.idle,
            shutdown: shutdown.clone(),
            cut: CancellationToken::new(),
        });
        let mut renewal =
            tokio::time::interval_at(tokio::time::Instant::now() + CERTIFICATE_RENEWAL, CERTIFICATE_RENEWAL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.connections.vacancy() => {}
            }
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = renewal.tick(), if self.own_certificate.is_some() => {
                    if let Some(Err(error)) = self.own_certificate.as_ref().map(OwnCertificate::issue) {
                        tracing::error!(%error, "the API's certificate can't be renewed");
                    }
                    continue;
                }
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of file descriptors, mostly: waiting is all that helps.
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let place = match self.place(peer) {
                Ok(place) => place,
                // The stream is dropped, and with it closed.
                Err(exhausted) => {
                    tracing::debug!(%peer, ?exhausted, "a connection was closed: its peer has too many");
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let serving = Arc::clone(&serving);
            connections.spawn(async move {
                tokio::select! {
                    () = serve_stream(&serving, stream, peer) => {}
                    () = serving.cut.cancelled() => {}
                }
                drop(place);
            });
        }
        drop(self.listener);
        connections.close();
        if tokio::time::timeout(self.drain, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "some requests didn't end in time and are cut");
            serving.cut.cancel();
            connections.wait().await;
        }
    }

    /// A proxy that speaks for many has no share: its clients have theirs of what comes behind.
    fn place(&self, peer: SocketAddr) -> Result<Place<PeerNetwork>, Exhausted> {
        if self.proxies.contains(peer.ip()) {
            self.connections.take_unshared()
        } else {
            self.connections.take(peer.ip().into())
        }
    }
}

async fn serve_stream(serving: &Arc<Serving>, stream: TcpStream, peer: SocketAddr) {
    let stream = StallGuard::new(stream);
    match &serving.tls {
        None => converse(serving, TokioIo::new(stream), peer).await,
        Some(tls) => {
            if let Some(stream) = handshake(tls, stream).await {
                converse(serving, TokioIo::new(stream), peer).await;
            }
        }
    }
}

async fn handshake(
    tls: &ServerTls,
    stream: StallGuard<TcpStream>,
) -> Option<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static> {
    match tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Serves a connection until it ends, is idle for too long, or the server stops.
async fn converse<I>(serving: &Arc<Serving>, io: I, peer: SocketAddr)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let activity = Activity::new(serving.idle);
    let service = hyper::service::service_fn(|request| {
        let (serving, in_progress) = (Arc::clone(serving), activity.request());
        async move {
            let answer = edge::handle(&serving.edge, peer.ip(), request).await;
            Ok::<_, std::convert::Infallible>(answer.map(|body| Answer::new(body, in_progress)))
        }
    });
    let mut connection = pin!(serving.builder.serve_connection_with_upgrades(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = activity.idle() => {
            // One that doesn't even know its protocol yet ends with the drop.
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GOODBYE, connection).await;
            return;
        }
        () = serving.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

fn tls(config: &Config) -> Result<(Option<ServerTls>, Option<OwnCertificate>), TlsError> {
    const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];
    if !config.api.uses_tls() {
        return Ok((None, None));
    }
    service_kit::install_crypto();
    if let (Some(cert), Some(key)) = (&config.api.tls_certificate, &config.api.tls_key) {
        let files = CertFiles { cert: cert.clone(), key: key.clone(), peers_ca: None };
        return Ok((Some(ServerTls::new(files, ALPN)?), None));
    }
    let dir = config.api.ca_dir.clone().unwrap_or_else(|| config.identity.state_dir.join("ca"));
    let mut names = config.api.tls_names.clone();
    let address = config.api.listen.ip();
    if address.is_unspecified() {
        names.extend(service_kit::tls::local_names());
    } else {
        names.extend([address.to_string(), "localhost".to_owned()]);
    }
    names.sort();
    names.dedup();
    let own = OwnCertificate { ca: Ca::open_or_create(&dir)?, dir: config.identity.state_dir.join("tls"), names };
    let tls = ServerTls::new(own.issue()?, ALPN)?;
    Ok((Some(tls), Some(own)))
}
