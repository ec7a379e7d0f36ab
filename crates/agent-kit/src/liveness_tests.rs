use super::*;
use proto::sync::v1::host_liveness_server::{HostLiveness, HostLivenessServer};
use service_kit::transport::{in_process, serve};
use std::pin::Pin;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Streaming};

const TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn an_answer_is_of_the_heartbeat_it_names_and_counts_once() {
    let at = BootInstant;
    let mut unanswered = Unanswered::default();
    let sent: Vec<u64> = (1..=4).map(|ms| unanswered.send(at(ms * 1_000_000))).collect();
    assert_eq!(sent, [1, 2, 3, 4]);
    assert_eq!(unanswered.oldest_waits_ms(at(11_000_000)), 10);
    assert_eq!(unanswered.take(9), None, "nobody sent that one, and what waits goes on waiting");
    assert_eq!(unanswered.take(2), Some(at(2_000_000)));
    assert_eq!(unanswered.oldest_waits_ms(at(11_000_000)), 8, "the one before was given up");
    assert_eq!((unanswered.take(2), unanswered.take(1)), (None, None), "a repeat and a late one count for nothing");
    assert_eq!(unanswered.take(4), Some(at(4_000_000)));
    assert_eq!(unanswered.oldest_waits_ms(at(u64::MAX)), 0);
}

/// Hands every stream of heartbeats to the test, which answers by the sender.
#[derive(Clone)]
struct Manager(mpsc::UnboundedSender<Beating>);

struct Beating {
    beats: Streaming<pb::BeatRequest>,
    answers: mpsc::UnboundedSender<Result<pb::BeatAnswer, Status>>,
}

#[tonic::async_trait]
impl HostLiveness for Manager {
    type BeatStream = Pin<Box<dyn Stream<Item = Result<pb::BeatAnswer, Status>> + Send>>;

    async fn beat(&self, request: Request<Streaming<pb::BeatRequest>>) -> Result<Response<Self::BeatStream>, Status> {
        let (answers, outgoing) = mpsc::unbounded_channel();
        let _ = self.0.send(Beating { beats: request.into_inner(), answers });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::UnboundedReceiverStream::new(outgoing))))
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.expect("in time")
}

impl Beating {
    async fn answered(&mut self) -> pb::BeatRequest {
        let beat = within(self.beats.next()).await.expect("a heartbeat").expect("no error");
        self.answers.send(Ok(pb::BeatAnswer { sequence: beat.sequence })).expect("open");
        beat
    }
}

#[tokio::test]
async fn heartbeats_begin_and_end_as_the_manager_wants_and_outlive_a_connection() {
    let shutdown = CancellationToken::new();
    let (streams, mut opened) = mpsc::unbounded_channel();
    let (listener, target) = in_process();
    let router = tonic::transport::Server::builder().add_service(HostLivenessServer::new(Manager(streams)));
    tokio::spawn(serve(router, listener, shutdown.clone()));
    let (host_id, every_ms) = (HostId::new(), watch::Sender::new(0));
    let channel = target.channel().expect("a channel");
    let sending = tokio::spawn(send_beats(host_id, channel, every_ms.subscribe(), shutdown.clone()));

    every_ms.send_replace(20);
    let mut first = within(opened.recv()).await.expect("a stream");
    for sequence in 1..=3 {
        assert_eq!(first.answered().await, pb::BeatRequest { host_id: host_id.to_string(), sequence });
    }
    // A heartbeat that isn't answered stops none of the next ones.
    for sequence in 4..=6 {
        assert_eq!(within(first.beats.next()).await.expect("a heartbeat").expect("no error").sequence, sequence);
    }
    // The connection breaks: there is another one, with its own numbers.
    first.answers.send(Err(Status::unavailable("as the test wants it"))).expect("open");
    drop(first);
    let mut second = within(opened.recv()).await.expect("another stream");
    assert_eq!(second.answered().await.sequence, 1);
    // The manager wants no more: the stream ends.
    every_ms.send_replace(0);
    within(async { while let Some(Ok(_)) = second.beats.next().await {} }).await;
    // And again.
    every_ms.send_replace(20);
    let mut third = within(opened.recv()).await.expect("a third stream");
    assert_eq!(third.answered().await.sequence, 1);
    shutdown.cancel();
    within(sending).await.expect("it ends without a panic");
    assert!(opened.try_recv().is_err(), "no stream was opened that wasn't wanted");
}
