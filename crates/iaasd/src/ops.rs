//! /metrics, /healthz and /readyz without a token, on an address of the operator. Connections are few and short: this listener is for
//! machines that watch.

use anyhow::Context;
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use service_kit::metrics::MetricsHandle;
use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

/// Whether the role can do its work now, and as what; the error says why not.
pub type Readiness = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// Connections at a time. More are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be idle, and a request take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub async fn serve(
    addr: SocketAddr,
    metrics: MetricsHandle,
    ready: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(addr).await.with_context(|| format!("links.ops_listen: can't listen on {addr}"))?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "an ops connection could not be accepted");
                    continue;
                }
            },
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (metrics, ready) = (metrics.clone(), Arc::clone(&ready));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (metrics, ready) = (metrics.clone(), Arc::clone(&ready));
                async move {
                    let (status, body) = match request.uri().path() {
                        "/metrics" => (200, metrics.render()),
                        "/healthz" => (200, "ok\n".to_owned()),
                        "/readyz" => match ready().await {
                            Ok(what) => (200, format!("{what}\n")),
                            Err(why) => (503, format!("{why}\n")),
                        },
                        _ => (404, "there are /metrics, /healthz and /readyz\n".to_owned()),
                    };
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
                    Ok::<_, Infallible>(response)
                }
            });
            let mut connection = hyper::server::conn::http1::Builder::new();
            connection.timer(TokioTimer::new()).header_read_timeout(TIMEOUT).keep_alive(false);
            let served = connection.serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(TIMEOUT * 2, served).await;
            drop(slot);
        });
    }
}
