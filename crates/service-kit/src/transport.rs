//! How roles reach each other: the same gRPC over in-process duplex streams (`iaasd all`: no port, no TLS), or over TCP with mutual
//! TLS. A server is handed a [`GrpcListener`], a client a [`GrpcTarget`]; neither knows which it has.
//!
//! tonic's own TLS is not used: its configuration is read once, and certificates here renew themselves while connections come and go.
//! So TLS is done before tonic sees the stream, with a configuration that is read anew for each connection.

use crate::{
    fleet::{Entered, Fleet},
    peer::{HostPeer, Peer},
    tls::{self, ClientTls, ServerTls},
};
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint, server::Router};

/// Bytes in flight in each direction of an in-process connection.
const DUPLEX_BYTES: usize = 1024 * 1024;
/// How long calls in progress may take to finish after a shutdown. The call of a peer that reads nothing isn't polled, so it can't notice the
/// shutdown: it ends with its connection.
const DRAIN: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;
/// A leader that was paused, or whose machine is gone, is noticed within twice this.
const LEADER_KEEP_ALIVE: Duration = Duration::from_secs(2);
/// A TLS handshake that takes longer is given up.
const HANDSHAKE_SECS: u64 = 10;

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("can't listen on {addr}")]
    Listen {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the gRPC server ended with an error")]
    Serve(#[source] tonic::transport::Error),
    #[error("`{url}` is not an address of a service (https://host:port)")]
    Target {
        url: String,
        #[source]
        source: tonic::transport::Error,
    },
}

/// This is where a service accepts calls.
pub enum GrpcListener {
    InProcess(mpsc::Receiver<DuplexStream>),
    Tcp {
        listener: TcpListener,
        tls: Option<ServerTls>,
        /// The hosts whose certificates are good.
        fleet: Fleet,
    },
    /// Several at once: in process for the roles beside it, TCP for agents.
    Many(Vec<GrpcListener>),
    /// One after another serves on it: see [`GrpcListener::shared`].
    Shared(SharedListener),
    /// Others reach it at this URL, whatever address it listens on.
    Advertised(Box<GrpcListener>, String),
}

/// A listener that outlives those who serve on it. A connection goes to whoever serves when it comes.
#[derive(Clone)]
pub struct SharedListener {
    incoming: Arc<Mutex<Incoming>>,
    address: String,
}

/// Where a service is.
#[derive(Clone)]
pub enum GrpcTarget {
    InProcess(mpsc::Sender<DuplexStream>),
    /// `tls` None: plain text, for loopback only.
    Tcp {
        url: String,
        tls: Option<ClientTls>,
    },
    /// Whichever of several processes leads: it is looked for before each connection.
    Leader {
        find: Find,
        tls: Option<ClientTls>,
    },
}

/// Says where to connect.
pub type Find = Arc<dyn Fn() -> BoxFuture<'static, io::Result<http::Uri>> + Send + Sync>;

/// A connection inside this process.
#[must_use]
pub fn in_process() -> (GrpcListener, GrpcTarget) {
    let (tx, rx) = mpsc::channel(BACKLOG);
    (GrpcListener::InProcess(rx), GrpcTarget::InProcess(tx))
}

impl GrpcListener {
    /// With TLS: managers' certificates are good, no host's is.
    pub async fn tcp(addr: SocketAddr, tls: Option<ServerTls>) -> Result<Self, TransportError> {
        Self::tcp_for(addr, tls, Fleet::default()).await
    }

    /// The certificates of `fleet`'s hosts are good too.
    pub async fn tcp_for(addr: SocketAddr, tls: Option<ServerTls>, fleet: Fleet) -> Result<Self, TransportError> {
        let listener = TcpListener::bind(addr).await.map_err(|source| TransportError::Listen { addr, source })?;
        Ok(Self::Tcp { listener, tls, fleet })
    }

    /// The address it got, when it is TCP.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::InProcess(_) => None,
            Self::Tcp { listener, .. } => listener.local_addr().ok(),
            Self::Many(all) => all.iter().find_map(Self::local_addr),
            Self::Shared(_) => None,
            Self::Advertised(listener, _) => listener.local_addr(),
        }
    }

    /// The URL by which others reach it; empty inside one process.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::InProcess(_) => String::new(),
            Self::Tcp { listener, tls, .. } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                listener.local_addr().map_or_else(|_| String::new(), |addr| format!("{scheme}://{addr}"))
            }
            Self::Many(all) => all.iter().map(Self::address).find(|url| !url.is_empty()).unwrap_or_default(),
            Self::Shared(shared) => shared.address.clone(),
            Self::Advertised(_, url) => url.clone(),
        }
    }

    /// For several who serve one after the other. It accepts connections until `shutdown`, also while nobody serves.
    #[must_use]
    pub fn shared(self, shutdown: &CancellationToken) -> SharedListener {
        let address = self.address();
        SharedListener { incoming: Arc::new(Mutex::new(incoming(self, shutdown))), address }
    }
}

impl GrpcTarget {
    /// A channel that connects at the first call and again whenever the connection is lost.
    pub fn channel(&self) -> Result<Channel, TransportError> {
        match self {
            Self::InProcess(tx) => {
                let tx = tx.clone();
                let connector = tower::service_fn(move |_: http::Uri| {
                    let tx = tx.clone();
                    async move {
                        let (ours, theirs) = tokio::io::duplex(DUPLEX_BYTES);
                        let gone = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "the service has stopped");
                        tx.send(theirs).await.map_err(gone)?;
                        Ok::<_, io::Error>(TokioIo::new(ours))
                    }
                });
                Ok(endpoint("http://in-process")?.connect_with_connector_lazy(connector))
            }
            Self::Tcp { url, tls: None } => Ok(endpoint(url)?.connect_lazy()),
            Self::Tcp { url, tls: Some(tls) } => {
                let tls = tls.clone();
                let connector = tower::service_fn(move |uri: http::Uri| {
                    let tls = tls.clone();
                    async move { connect(&uri, Some(&tls)).await.map(TokioIo::new) }
                });
                Ok(endpoint(url)?.connect_with_connector_lazy(connector))
            }
            Self::Leader { find, tls } => {
                let (find, tls) = (Arc::clone(find), tls.clone());
                let connector = tower::service_fn(move |_: http::Uri| {
                    let (found, tls) = (find(), tls.clone());
                    async move { connect(&found.await?, tls.as_ref()).await.map(TokioIo::new) }
                });
                let endpoint = endpoint("http://leader")?
                    .http2_keep_alive_interval(LEADER_KEEP_ALIVE)
                    .keep_alive_timeout(LEADER_KEEP_ALIVE);
                Ok(endpoint.connect_with_connector_lazy(connector))
            }
        }
    }
}

/// How one address is connected to. The scheme is never https: tonic would refuse it without its own TLS, which [`connect`] does.
pub(crate) fn endpoint(url: &str) -> Result<Endpoint, TransportError> {
    let endpoint = Endpoint::from_shared(url.replacen("https://", "http://", 1))
        .map_err(|source| TransportError::Target { url: url.to_owned(), source })?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(8 * 1024 * 1024))
}

/// What a client's connection is, with TLS or without.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) async fn connect(uri: &http::Uri, tls: Option<&ClientTls>) -> io::Result<Box<dyn Io>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    match tls {
        Some(tls) => Ok(Box::new(tls.connect(&host, stream).await?)),
        None => Ok(Box::new(stream)),
    }
}

/// One accepted connection.
enum Conn {
    InProcess(DuplexStream),
    Plain(TcpStream),
    Tls(Box<TlsConn>),
}

struct TlsConn {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    peer: Peer,
    /// Of a host: cut when it is removed.
    cut: Option<(Pin<Box<WaitForCancellationFutureOwned>>, Entered)>,
}

impl TlsConn {
    /// Knows the peer by its verified certificate. A host that isn't admitted is served all the same: each of its calls is told why it
    /// is refused.
    async fn new(stream: tokio_rustls::server::TlsStream<TcpStream>, fleet: &Fleet) -> Self {
        // The verifier demands a certificate; one that can't be read names nobody.
        let named = tls::peer_name(stream.get_ref().1).unwrap_or(tls::PeerName::Role(String::new()));
        let (peer, cut) = match named {
            tls::PeerName::Role(role) => (Peer::Role { role }, None),
            tls::PeerName::Host { host_id, role, key_hash } => {
                let admitted = fleet.admits_now(host_id, &key_hash).await;
                let cut = admitted.then(|| {
                    let entered = fleet.enter(host_id, &key_hash);
                    (Box::pin(entered.cut.clone().cancelled_owned()), entered)
                });
                (Peer::Host(HostPeer { host_id, role, key_hash, fleet: fleet.clone() }), cut)
            }
        };
        Self { stream, peer, cut }
    }
}

impl AsyncRead for TlsConn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some((cut, _)) = &mut this.cut
            && cut.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the host was removed")));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl tonic::transport::server::Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Self::InProcess(_) => Peer::InProcess,
            Self::Plain(_) => Peer::Loopback,
            Self::Tls(conn) => conn.peer.clone(),
        }
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Conn::InProcess($stream) => $call,
            Conn::Plain($stream) => $call,
            Conn::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

type Incoming = Pin<Box<dyn Stream<Item = io::Result<Conn>> + Send>>;

fn incoming(listener: GrpcListener, shutdown: &CancellationToken) -> Incoming {
    match listener {
        GrpcListener::InProcess(rx) => Box::pin(ReceiverStream::new(rx).map(|s| Ok(Conn::InProcess(s)))),
        GrpcListener::Tcp { listener, tls, fleet } => Box::pin(accept_tcp(listener, tls, fleet, shutdown.clone())),
        GrpcListener::Many(all) => {
            let all = all.into_iter().map(|listener| incoming(listener, shutdown));
            Box::pin(futures::stream::select_all(all.collect::<Vec<_>>()))
        }
        // Never locked across an await: whoever polls last is woken.
        GrpcListener::Shared(shared) => {
            Box::pin(futures::stream::poll_fn(move |cx| shared.incoming.lock().as_mut().poll_next(cx)))
        }
        GrpcListener::Advertised(listener, _) => incoming(*listener, shutdown),
    }
}

/// Serves until `shutdown`, then finishes the calls in progress, for at most `DRAIN`.
pub async fn serve(router: Router, listener: GrpcListener, shutdown: CancellationToken) -> Result<(), TransportError> {
    let incoming = incoming(listener, &shutdown);
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = router.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned()) => served.map_err(TransportError::Serve),
        () = drained => {
            tracing::warn!(seconds = DRAIN.as_secs(), "calls that didn't finish end with their connections");
            Ok(())
        }
    }
}

/// Accepts in a task of its own, so that one slow handshake holds up nobody.
fn accept_tcp(
    listener: TcpListener,
    tls: Option<ServerTls>,
    fleet: Fleet,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Conn>> + Send {
    let (tx, rx) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Without it the p99 of small calls is 40 ms (Nagle against delayed acknowledgements).
            let _ = stream.set_nodelay(true);
            let (tx, tls, fleet) = (tx.clone(), tls.clone(), fleet.clone());
            tokio::spawn(async move {
                let conn = match tls {
                    None => Conn::Plain(stream),
                    Some(tls) => {
                        match tokio::time::timeout(Duration::from_secs(HANDSHAKE_SECS), tls.accept(stream)).await {
                            Ok(Ok(stream)) => Conn::Tls(Box::new(TlsConn::new(stream, &fleet).await)),
                            Ok(Err(error)) => return tracing::info!(%error, "a TLS handshake failed"),
                            Err(_) => return tracing::info!("a TLS handshake took too long"),
                        }
                    }
                };
                let _ = tx.send(Ok(conn)).await;
            });
        }
    });
    ReceiverStream::new(rx)
}
