//! Heartbeats on a connection of their own, as often as the manager wants them.
//!
//! Nothing is in front of them: not the session's snapshots and reports, and no disk. The agent keeps by sequence when it sent each, by the clock that
//! counts while the host sleeps: so it can tell of an answer how old the question is, which nobody else can.
//!
//! A heartbeat that can't be sent now isn't kept for later: the next one says the same.

use domain::{HostId, lease::BootInstant};
use proto::sync::v1::{self as pb, host_liveness_client::HostLivenessClient};
use service_kit::backoff::Backoff;
use std::{collections::VecDeque, error::Error, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

/// A connection on which a heartbeat has waited so long for its answer is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// Heartbeats that wait for the connection to take them.
const QUEUE: usize = 2;

/// Why a connection of heartbeats ended.
#[derive(Debug, thiserror::Error)]
enum BeatsEnd {
    #[error("the manager can't be reached")]
    Unreachable(#[source] Box<Status>),
    #[error("the manager ended the stream")]
    Closed,
    #[error("a heartbeat was not answered for {} s", SILENCE.as_secs())]
    Silent,
}

/// Sends heartbeats until `shutdown`. `channel` is for these alone. `every_ms`: as the manager wants them, 0 for none.
pub async fn send_beats(
    host_id: HostId,
    channel: Channel,
    mut every_ms: watch::Receiver<u32>,
    shutdown: CancellationToken,
) {
    let client = HostLivenessClient::new(channel);
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
    let mut logged = false;
    loop {
        let requested = tokio::select! {
            requested = every_ms.wait_for(|ms| *ms > 0) => requested.map(|ms| *ms),
            () = shutdown.cancelled() => return,
        };
        // Whoever says how often is gone.
        let Ok(requested) = requested else { return };
        let mut connection = Connection { host_id, unanswered: Unanswered::default(), answered: false };
        let every = Duration::from_millis(requested.into());
        let end = tokio::select! {
            end = connection.run(client.clone(), every) => end,
            changed = every_ms.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = shutdown.cancelled() => return,
        };
        if connection.answered {
            backoff.reset();
            logged = false;
        }
        // Once per outage.
        if !std::mem::replace(&mut logged, true) {
            tracing::warn!(%host_id, error = &end as &dyn Error, "heartbeats aren't answered; their connection is made anew");
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_delay()) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

struct Connection {
    host_id: HostId,
    unanswered: Unanswered,
    /// Whether any heartbeat was answered on it.
    answered: bool,
}

impl Connection {
    async fn run(&mut self, mut client: HostLivenessClient<Channel>, every: Duration) -> BeatsEnd {
        metrics::counter!("iaas_agent_heartbeat_connections_total").increment(1);
        let (up, queue) = mpsc::channel(QUEUE);
        let mut down = match tokio::time::timeout(SILENCE, client.beat(ReceiverStream::new(queue))).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return BeatsEnd::Unreachable(Box::new(status)),
            Err(_) => return BeatsEnd::Silent,
        };
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let now = boot_now();
                    if self.unanswered.oldest_waits_ms(now) > SILENCE.as_millis() as u64 {
                        return BeatsEnd::Silent;
                    }
                    match up.try_reserve() {
                        Ok(permit) => {
                            let host_id = self.host_id.to_string();
                            permit.send(pb::BeatRequest { host_id, sequence: self.unanswered.send(now) });
                        }
                        Err(mpsc::error::TrySendError::Full(())) => {}
                        Err(mpsc::error::TrySendError::Closed(())) => return BeatsEnd::Closed,
                    }
                }
                answer = down.message() => match answer {
                    Ok(Some(answer)) => self.take(&answer),
                    Ok(None) => return BeatsEnd::Closed,
                    Err(status) => return BeatsEnd::Unreachable(Box::new(status)),
                },
            }
        }
    }

    fn take(&mut self, answer: &pb::BeatAnswer) {
        let now = boot_now();
        if let Some(sent_at) = self.unanswered.take(answer.sequence) {
            self.answered = true;
            let round_trip = Duration::from_nanos(now.0.saturating_sub(sent_at.0));
            metrics::histogram!("iaas_agent_heartbeat_seconds").record(round_trip.as_secs_f64());
        }
    }
}

/// Heartbeats of one connection that wait for their answers, oldest first. Pure.
#[derive(Debug, Default)]
struct Unanswered {
    last: u64,
    sent: VecDeque<(u64, BootInstant)>,
}

impl Unanswered {
    /// The number of the heartbeat that is sent now.
    fn send(&mut self, now: BootInstant) -> u64 {
        self.last += 1;
        self.sent.push_back((self.last, now));
        self.last
    }

    /// When the heartbeat was sent that is answered by this number. None: it waits for no answer. Answers come in order, so those before it are
    /// given up.
    fn take(&mut self, sequence: u64) -> Option<BootInstant> {
        if sequence > self.last {
            return None;
        }
        while let Some((number, sent_at)) = self.sent.pop_front_if(|(number, _)| *number <= sequence) {
            if number == sequence {
                return Some(sent_at);
            }
        }
        None
    }

    fn oldest_waits_ms(&self, now: BootInstant) -> u64 {
        self.sent.front().map_or(0, |(_, sent_at)| now.ms_since(*sent_at))
    }
}

/// Now, by the clock that also counts while the host sleeps.
fn boot_now() -> BootInstant {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    BootInstant(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
