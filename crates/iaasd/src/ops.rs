//! /metrics, /healthz and /readyz for a role that doesn't serve the API.

use anyhow::Context;
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;
use service_kit::metrics::MetricsHandle;
use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin, sync::Arc};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Whether the role can do its work now; the text says why not.
pub type Readiness = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

pub async fn serve(
    addr: SocketAddr,
    metrics: MetricsHandle,
    ready: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(addr).await.with_context(|| format!("links.ops_listen: can't listen on {addr}"))?;
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
        let (metrics, ready) = (metrics.clone(), Arc::clone(&ready));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (metrics, ready) = (metrics.clone(), Arc::clone(&ready));
                async move {
                    let (status, body) = match request.uri().path() {
                        "/metrics" => (200, metrics.render()),
                        "/healthz" => (200, "ok\n".to_owned()),
                        "/readyz" => match ready().await {
                            Ok(()) => (200, "ready\n".to_owned()),
                            Err(why) => (503, format!("{why}\n")),
                        },
                        _ => (404, "there are /metrics, /healthz and /readyz\n".to_owned()),
                    };
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
                    Ok::<_, Infallible>(response)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
