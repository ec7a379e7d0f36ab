//! An HTTP/2 answer whose peer reads nothing of it, seen and ended alone.
//!
//! [`super::stall`] ends a connection that takes nothing. On HTTP/2 a peer may read all answers of a connection but one: what is sent keeps
//! flowing, and that one answer waits for its own window for ever, with all it holds. hyper polls no body whose stream has no window, so the body can't
//! notice it. Whoever runs the stream's future can: hyper hands each to an executor ([`StallExecutor`]), and a future that is dropped resets its
//! stream and nothing else.
//!
//! Large parts of a body are cut ([`PART_BYTES`]): hyper takes a part whole as soon as there is any window, and keeps it in memory for as long as the
//! connection lasts.

use bytes::Bytes;
use parking_lot::Mutex;
use std::{pin::pin, sync::Arc, task::Poll, time::Duration};
use tokio::time::{Instant, sleep_until};

/// How long a peer may take nothing of one answer.
const STALLED: Duration = Duration::from_secs(60);
/// What is handed out at once; HTTP/2's frames are no larger by default.
const PART_BYTES: usize = 16 * 1024;

tokio::task_local! {
    static STREAM: Arc<Progress>;
}

/// Since when a part of an answer waits for its stream to take it.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Option<Instant>>);

/// How far an answer on an HTTP/2 stream is; on HTTP/1 it tells nobody.
#[derive(Debug)]
pub struct Sending(Option<Arc<Progress>>);

impl Sending {
    /// Of the stream whose future is being polled.
    #[must_use]
    pub fn of_stream() -> Self {
        Self(STREAM.try_with(Arc::clone).ok())
    }

    /// The stream asks for more: it took what it got.
    pub fn requested(&self) {
        if let Some(progress) = &self.0 {
            *progress.0.lock() = None;
        }
    }

    /// Takes the next part of what is left for the stream.
    pub fn hand_out(&self, rest: &mut Bytes) -> Bytes {
        if let Some(progress) = &self.0 {
            *progress.0.lock() = Some(Instant::now());
        }
        rest.split_to(rest.len().min(PART_BYTES))
    }
}

/// Runs the streams of a connection, each until it ends or its peer takes nothing of it for too long.
#[derive(Debug, Clone)]
pub struct StallExecutor {
    limit: Duration,
}

impl Default for StallExecutor {
    fn default() -> Self {
        Self { limit: STALLED }
    }
}

impl<F> hyper::rt::Executor<F> for StallExecutor
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(run(stream, self.limit));
    }
}

async fn run(stream: impl Future, limit: Duration) {
    let progress = Arc::new(Progress::default());
    let (mut stream, mut timer) = (pin!(stream), pin!(sleep_until(Instant::now())));
    std::future::poll_fn(|cx| {
        if STREAM.sync_scope(Arc::clone(&progress), || stream.as_mut().poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = *progress.0.lock() else { return Poll::Pending };
        if timer.deadline() != since + limit {
            timer.as_mut().reset(since + limit);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        tracing::debug!("an answer is cut off: its peer reads nothing of it");
        metrics::counter!("iaas_http_stalled_answers_total").increment(1);
        Poll::Ready(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::activity::{Activity, Answer, IdleLimits};
    use axum::body::Body;
    use hyper::{Request, Response, body::Incoming};
    use hyper_util::{
        rt::{TokioIo, TokioTimer},
        server::conn::auto,
    };
    use std::convert::Infallible;
    use tokio::{net::TcpListener, sync::Notify};

    const LARGE: usize = 1 << 20;
    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Tells that the body that holds it was dropped.
    struct TellsItsEnd(Arc<Notify>);

    impl Drop for TellsItsEnd {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    fn body_of(path: &str, go: Arc<Notify>, ended: Arc<Notify>) -> Body {
        match path {
            "/large" => Body::from(vec![7; LARGE]),
            "/endless" => {
                let tells = TellsItsEnd(ended);
                Body::from_stream(futures::stream::repeat_with(move || {
                    let _held = &tells;
                    Ok::<_, Infallible>(Bytes::from_static(&[7; 4096]))
                }))
            }
            "/late" => Body::from_stream(futures::stream::once(async move {
                go.notified().await;
                Ok::<_, Infallible>(Bytes::from_static(b"late"))
            })),
            _ => Body::from("quick"),
        }
    }

    /// Serves one connection and no other.
    async fn serve(listener: TcpListener, go: Arc<Notify>, ended: Arc<Notify>) {
        let activity = Activity::new(IdleLimits { first: TIMEOUT, between: TIMEOUT });
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let body = body_of(request.uri().path(), Arc::clone(&go), Arc::clone(&ended));
            let answer = Response::new(body);
            let in_progress = activity.request();
            async move { Ok::<_, Infallible>(answer.map(|body| Answer::new(body, in_progress))) }
        });
        let (stream, _) = listener.accept().await.expect("a connection");
        drop(listener);
        let mut builder = auto::Builder::new(StallExecutor { limit: Duration::from_millis(200) });
        builder.http2().timer(TokioTimer::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_that_is_not_read_ends_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let (go, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        tokio::spawn(serve(listener, Arc::clone(&go), Arc::clone(&ended)));
        // The connection's window is larger than a stream's: an answer that isn't read leaves the others theirs.
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge();
        let client = client.http2_initial_stream_window_size(65_535).http2_initial_connection_window_size(4 << 20);
        let client = client.build().expect("a client");
        let get = async |path: &str| client.get(format!("{base}{path}")).send().await.expect("an answer");
        let whole = get("/large").await;
        assert_eq!(whole.content_length(), Some(LARGE as u64));
        assert_eq!(whole.bytes().await.expect("who reads gets all of it"), vec![7; LARGE]);
        let late = get("/late").await;
        let mut unread = get("/endless").await;
        tokio::time::timeout(TIMEOUT, ended.notified()).await.expect("it is ended");
        let read_on = async {
            while unread.chunk().await?.is_some() {}
            Ok::<_, reqwest::Error>(())
        };
        let cut = tokio::time::timeout(TIMEOUT, read_on).await.expect("its peer sees the end");
        assert!(cut.is_err(), "and that it is none of an endless answer");
        assert_eq!(get("/quick").await.text().await.expect("the connection goes on"), "quick");
        go.notify_one();
        assert_eq!(late.text().await.expect("an answer that has nothing to send may be silent"), "late");
    }
}
