//! How roles reach each other: the same gRPC over in-process duplex streams (`iaasd all`: no port, no TLS), or over TCP with mutual
//! TLS. A server is handed a [`GrpcListener`], a client a [`GrpcTarget`]; neither knows which it has.
//!
//! tonic's own TLS is not used: its configuration is read once, and certificates here renew themselves while connections come and go.
//! So TLS is done before tonic sees the stream, with a configuration that is read anew for each connection.
//!
//! **The end of a connection.** The call of a peer that reads nothing isn't polled once its window is full, so it notices neither a shutdown nor
//! the loss of its right. Whoever must end such a call ends its connection: reads and writes of it fail (`Conn`), and with them everything on it.

use crate::{
    fleet::{Entered, Fleet},
    loopback,
    peer::{HostPeer, Peer},
    tls::{self, ClientTls, ServerTls},
};
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
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
/// How long calls in progress may take to finish after a shutdown; then their connections end.
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

/// One accepted connection, until it is cut: at the end of its server's drain, or with the removal of its host.
struct Conn {
    stream: AcceptedStream,
    peer: Peer,
    removed: Option<Removal>,
    /// Whoever serves it sets this, and may cut it.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

enum AcceptedStream {
    InProcess(DuplexStream),
    Plain(TcpStream),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Tells that the connection's host was removed.
struct Removal {
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _entered: Entered,
}

impl Conn {
    fn new(stream: AcceptedStream, peer: Peer, removed: Option<Removal>) -> Self {
        Self { stream, peer, removed, cut: None }
    }

    /// Whoever serves it may cut it.
    fn until(self, cut: &CancellationToken) -> Self {
        Self { cut: Some(Box::pin(cut.clone().cancelled_owned())), ..self }
    }

    /// Knows the peer by its verified certificate. A host that isn't admitted is served all the same: each of its calls is told why it
    /// is refused.
    async fn tls(stream: tokio_rustls::server::TlsStream<TcpStream>, fleet: &Fleet) -> Self {
        // The verifier demands a certificate; one that can't be read names nobody.
        let named = tls::peer_name(stream.get_ref().1).unwrap_or(tls::PeerName::Role(String::new()));
        let (peer, removed) = match named {
            tls::PeerName::Role(role) => (Peer::Role { role }, None),
            tls::PeerName::Host { host_id, role, key_hash } => {
                let admitted = fleet.admits_now(host_id, &key_hash).await;
                let removed = admitted.then(|| {
                    let entered = fleet.enter(host_id, &key_hash);
                    Removal { cut: Box::pin(entered.cut.clone().cancelled_owned()), _entered: entered }
                });
                (Peer::Host(HostPeer { host_id, role, key_hash, fleet: fleet.clone() }), removed)
            }
        };
        Self::new(AcceptedStream::Tls(Box::new(stream)), peer, removed)
    }

    /// Fails once the connection is cut. Asked by reads and by writes alike: a peer that reads nothing leaves writes pending, and a server whose
    /// writes are pending doesn't always read.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let aborted = |reason| Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason));
        if let Some(removed) = &mut self.removed
            && removed.cut.as_mut().poll(cx).is_ready()
        {
            return aborted("the host was removed");
        }
        if let Some(cut) = &mut self.cut
            && cut.as_mut().poll(cx).is_ready()
        {
            return aborted("the server has stopped");
        }
        Ok(())
    }
}

impl tonic::transport::server::Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

macro_rules! unless_cut {
    ($self:ident, $cx:ident, $stream:ident => $call:expr) => {{
        let this = $self.get_mut();
        this.check($cx)?;
        match &mut this.stream {
            AcceptedStream::InProcess($stream) => $call,
            AcceptedStream::Plain($stream) => $call,
            AcceptedStream::Tls($stream) => $call,
        }
    }};
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        unless_cut!(self, cx, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        unless_cut!(self, cx, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        unless_cut!(self, cx, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        unless_cut!(self, cx, s => Pin::new(s).poll_shutdown(cx))
    }
}

type Incoming = Pin<Box<dyn Stream<Item = io::Result<Conn>> + Send>>;

fn incoming(listener: GrpcListener, shutdown: &CancellationToken) -> Incoming {
    match listener {
        GrpcListener::InProcess(rx) => {
            let accept = |stream| Ok(Conn::new(AcceptedStream::InProcess(stream), Peer::InProcess, None));
            Box::pin(ReceiverStream::new(rx).map(accept))
        }
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
    serve_with_drain(router, listener, shutdown, DRAIN).await
}

/// Serves until `shutdown`, then finishes the calls in progress, for at most `drain`. Whatever isn't finished then ends with its connection, and
/// so does everything when this future is dropped: no call outlives its server.
pub async fn serve_with_drain(
    router: Router,
    listener: GrpcListener,
    shutdown: CancellationToken,
    drain: Duration,
) -> Result<(), TransportError> {
    let cut = CancellationToken::new();
    let _cut_when_dropped = cut.clone().drop_guard();
    let accepted = cut.clone();
    let incoming = incoming(listener, &shutdown).map(move |conn| conn.map(|conn| conn.until(&accepted)));
    let mut serving = pin!(router.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned()));
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain).await;
    };
    tokio::select! {
        served = &mut serving => return served.map_err(TransportError::Serve),
        () = drained => {}
    }
    tracing::warn!(?drain, "calls that didn't finish end with their connections");
    cut.cancel();
    serving.await.map_err(TransportError::Serve)
}

/// Whether a connection without TLS is of this machine's administrator, as whom its calls count.
fn trusted(stream: &TcpStream, peer: SocketAddr) -> bool {
    match stream.local_addr().and_then(|own| loopback::trusts(peer, own)) {
        Ok(true) => true,
        Ok(false) => {
            tracing::warn!(%peer, "a connection of another user was refused: without links.tls_dir only root and this process's user may connect");
            false
        }
        Err(error) => {
            tracing::error!(%error, %peer, "a connection was refused: the kernel's table of sockets can't be read");
            false
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
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
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
                    None if trusted(&stream, peer) => Conn::new(AcceptedStream::Plain(stream), Peer::Loopback, None),
                    None => return,
                    Some(tls) => {
                        match tokio::time::timeout(Duration::from_secs(HANDSHAKE_SECS), tls.accept(stream)).await {
                            Ok(Ok(stream)) => Conn::tls(stream, &fleet).await,
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
