//! What a connection is doing, so that one that does nothing can be closed: before its first request, between two, on HTTP/2 as on HTTP/1.
//!
//! hyper has a limit for an HTTP/1 request's head, which begins with the first byte; a connection that sends none, or less than tells the two
//! protocols apart, or an HTTP/2 client that only answers pings, would stay for ever. A request is in progress until the body of its answer is sent.

use super::stream_stall::Sending;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;

/// How long a connection may be without a request.
#[derive(Debug, Clone, Copy)]
pub struct IdleLimits {
    /// This long it may take until the first one comes.
    pub first: Duration,
    /// This long it may take from the last one to the next.
    pub between: Duration,
}

/// Shared by a connection and its requests.
#[derive(Clone)]
pub struct Activity(Arc<Mutex<State>>);

struct State {
    limits: IdleLimits,
    in_progress: usize,
    idle_until: Instant,
}

impl Activity {
    #[must_use]
    pub fn new(limits: IdleLimits) -> Self {
        Self(Arc::new(Mutex::new(State { limits, in_progress: 0, idle_until: Instant::now() + limits.first })))
    }

    /// A request has come. It is in progress until what this returns is dropped.
    #[must_use]
    pub fn request(&self) -> InProgress {
        self.0.lock().in_progress += 1;
        InProgress(self.clone())
    }

    /// Returns when the connection was idle for too long.
    pub async fn idle(&self) {
        loop {
            let next = {
                let state = self.0.lock();
                let now = Instant::now();
                if state.in_progress > 0 {
                    now + state.limits.between
                } else if state.idle_until <= now {
                    return;
                } else {
                    state.idle_until
                }
            };
            tokio::time::sleep_until(next).await;
        }
    }
}

/// A request that isn't answered to its end.
pub struct InProgress(Activity);

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.in_progress -= 1;
        state.idle_until = Instant::now() + state.limits.between;
    }
}

/// A body whose end is the end of its request, and which its stream may see stalled.
pub struct Answer<B> {
    body: B,
    /// What the body has given and the connection hasn't got yet.
    rest: Bytes,
    sending: Sending,
    _request: InProgress,
}

impl<B> Answer<B> {
    #[must_use]
    pub fn new(body: B, request: InProgress) -> Self {
        Self { body, rest: Bytes::new(), sending: Sending::of_stream(), _request: request }
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        this.sending.requested();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)).transpose()?.map(Frame::into_data) {
                None => return Poll::Ready(None),
                Some(Err(other)) => return Poll::Ready(Some(Ok(other))),
                Some(Ok(data)) => this.rest = data,
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.sending.hand_out(&mut this.rest)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(of_body.lower().saturating_add(rest));
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: IdleLimits = IdleLimits { first: Duration::from_secs(20), between: Duration::from_secs(120) };

    /// How soon from now it is idle, if nothing comes; `None`: a request is in progress.
    fn idle_in(activity: &Activity) -> Option<u64> {
        let state = activity.0.lock();
        let left = state.idle_until.saturating_duration_since(Instant::now()).as_secs_f64().round() as u64;
        (state.in_progress == 0).then_some(left)
    }

    #[test]
    fn a_connection_without_a_request_is_soon_idle_and_one_between_two_later() {
        let activity = Activity::new(LIMITS);
        assert_eq!(idle_in(&activity), Some(20));
        drop(activity.request());
        assert_eq!(idle_in(&activity), Some(120));
    }

    #[test]
    fn a_request_in_progress_is_never_idle() {
        let activity = Activity::new(LIMITS);
        let (stream, short) = (activity.request(), activity.request());
        drop(short);
        assert_eq!(idle_in(&activity), None);
        drop(stream);
        assert_eq!(idle_in(&activity), Some(120));
    }

    #[tokio::test]
    async fn the_time_is_over_when_it_is() {
        let short = Duration::from_millis(20);
        let activity = Activity::new(IdleLimits { first: short, between: short });
        let request = activity.request();
        assert!(tokio::time::timeout(Duration::from_millis(100), activity.idle()).await.is_err(), "in progress");
        drop(request);
        activity.idle().await;
    }
}
