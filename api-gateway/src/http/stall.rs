//! A connection whose peer reads nothing, seen and ended.
//!
//! An answer that isn't read isn't polled either, so neither its own deadlines nor the loss of the right to it are noticed: it would stay, with
//! what it holds, for as long as the peer keeps the connection open. So writes fail once one of them has waited for too long. Only waiting
//! counts: a connection that has nothing to send may be silent for as long as it likes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// How long a peer may take nothing of what is sent to it.
const STALLED: Duration = Duration::from_secs(60);

pub struct StallGuard<I> {
    io: I,
    limit: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<I> StallGuard<I> {
    #[must_use]
    pub fn new(io: I) -> Self {
        Self::with_limit(io, STALLED)
    }

    fn with_limit(io: I, limit: Duration) -> Self {
        Self { io, limit, waiting: None }
    }

    /// What became of an attempt to write. One that waits for longer than the limit fails.
    fn watch(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if attempt.is_ready() {
            self.waiting = None;
            return attempt;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        if waiting.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer reads nothing")));
        }
        Poll::Pending
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for StallGuard<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for StallGuard<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.io).poll_write(cx, buf);
        this.watch(cx, attempt)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let attempt = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.watch(cx, attempt)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_write_that_nobody_reads_fails_after_its_limit() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut guarded = StallGuard::with_limit(ours, Duration::from_millis(1));
        let error = guarded.write_all(&[0; 9]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn waiting_ends_with_each_part_that_is_read() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut guarded = StallGuard::with_limit(ours, STALLED);
        let writing = async {
            guarded.write_all(&[0; 32]).await.expect("each part is read in time");
            guarded
        };
        let reading = async {
            let mut all = [0; 32];
            theirs.read_exact(&mut all).await.expect("it is there");
            theirs
        };
        let (guarded, _theirs) = tokio::join!(writing, reading);
        assert!(guarded.waiting.is_none(), "a connection that has nothing to send may be silent");
    }
}
