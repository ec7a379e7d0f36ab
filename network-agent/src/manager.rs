//! The stream to the resource-manager: what is wanted comes down, what was observed goes up. It may be gone for hours; nothing here
//! waits for it.

use crate::{
    drops,
    host::Host,
    ledger::LedgerError,
    link::observe::{self, LinkCounters},
    model::{names, object::Key},
    observation::report_to_pb,
};
use agent_kit::Numbered;
use domain::NetworkId;
use proto::network::v1::{
    self as pb, AgentMessage, agent_message::Message as Up, manager_message::Message as Down,
    network_link_client::NetworkLinkClient,
};
use service_kit::{
    backoff::Backoff,
    transport::{GrpcTarget, TransportError},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Heartbeats are answered; a manager that is silent this long is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// A host that was removed asks again this rarely: it must join anew first.
const NOT_ADMITTED_RETRY: Duration = Duration::from_secs(15);
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Counters are read once in so many heartbeats.
const TRAFFIC_EVERY: u64 = 5;
const QUEUE: usize = 256;

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the resource-manager can't be reached")]
    Transport(#[source] TransportError),
    #[error("the resource-manager ended the stream")]
    Stream(#[source] Box<tonic::Status>),
    #[error("the resource-manager closed the stream")]
    Closed,
    #[error("the resource-manager has been silent for {SILENCE:?}")]
    Silent,
    #[error("the resource-manager takes this host for another")]
    Mistaken,
    #[error("the ledger failed")]
    Ledger(#[source] LedgerError),
}

impl SessionError {
    fn says_not_admitted(&self) -> bool {
        matches!(self, Self::Stream(status) if service_kit::peer::says_not_admitted(status))
    }
}

/// Keeps a session until `shutdown`.
pub async fn run(host: Arc<Host>, manager: GrpcTarget, shutdown: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        let began = Instant::now();
        let error = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = session(&host, &manager) => match ended {
                Ok(()) => SessionError::Closed,
                Err(error) => error,
            },
        };
        if began.elapsed() > SILENCE {
            backoff.reset();
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let wait = if error.says_not_admitted() {
            tracing::error!(cause, "this host isn't part of the fleet; its networks go on, nothing is reported");
            NOT_ADMITTED_RETRY
        } else {
            tracing::warn!(error = %error, cause, "no session");
            backoff.next_delay()
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn up(message: Up) -> AgentMessage {
    AgentMessage { message: Some(message) }
}

async fn session(host: &Arc<Host>, manager: &GrpcTarget) -> Result<(), SessionError> {
    let channel = manager.channel().map_err(SessionError::Transport)?;
    let mut client = NetworkLinkClient::new(channel)
        .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
    let (sender, outbound) = mpsc::channel(QUEUE);
    sender.send(up(Up::Hello(hello(host)))).await.map_err(|_| SessionError::Closed)?;
    let attached = client.attach(ReceiverStream::new(outbound)).await;
    let mut inbound = attached.map_err(|status| SessionError::Stream(Box::new(status)))?.into_inner();
    host.outbox.start_session();
    let mut heard = Instant::now();
    let mut tick = tokio::time::interval(HEARTBEAT);
    let mut traffic = Traffic::default();
    let mut beats = 0;
    loop {
        let message = tokio::select! {
            message = inbound.message() => {
                message.map_err(|status| SessionError::Stream(Box::new(status)))?.ok_or(SessionError::Closed)?
            }
            () = host.outbox.filled() => {
                send_reports(host, &sender).await?;
                continue;
            }
            _ = tick.tick() => {
                if heard.elapsed() > SILENCE {
                    return Err(SessionError::Silent);
                }
                beats += 1;
                let changed = if beats % TRAFFIC_EVERY == 1 { traffic.changed(host).await } else { Vec::new() };
                let beat = up(Up::Heartbeat(heartbeat(host, changed)));
                sender.send(beat).await.map_err(|_| SessionError::Closed)?;
                send_reports(host, &sender).await?;
                continue;
            }
        };
        heard = Instant::now();
        match message.message {
            Some(Down::Welcome(welcome)) if welcome.host_id != host.ledger.host_id().to_string() => {
                return Err(SessionError::Mistaken);
            }
            Some(Down::Snapshot(snapshot)) => {
                host.accept(snapshot.objects, snapshot.revision).await.map_err(SessionError::Ledger)?;
            }
            Some(Down::Delta(delta)) => {
                let known = host.ledger.host().revision;
                if delta.revision <= known {
                    continue;
                }
                if delta.previous == known {
                    host.accept(delta.objects, delta.revision).await.map_err(SessionError::Ledger)?;
                } else {
                    let reason = format!("a delta from {} came to a ledger at {known}", delta.previous);
                    tracing::info!(reason, "asking for a snapshot");
                    sender.send(up(Up::Resync(pb::Resync { reason }))).await.map_err(|_| SessionError::Closed)?;
                }
            }
            Some(Down::ReportAck(ack)) => {
                if ack.start == host.ledger.host().start
                    && let Ok(key) = Key::parse(ack.kind, &ack.id)
                {
                    host.outbox.acknowledge(key, ack.counter);
                }
            }
            Some(Down::Welcome(_) | Down::HeartbeatAck(_)) | None => {}
        }
    }
}

async fn send_reports(host: &Host, sender: &mpsc::Sender<AgentMessage>) -> Result<(), SessionError> {
    for Numbered { counter, observation } in host.outbox.take_due(std::time::Instant::now()) {
        let report = report_to_pb(host.ledger.host().start, counter, observation);
        sender.send(up(Up::Report(report))).await.map_err(|_| SessionError::Closed)?;
    }
    Ok(())
}

/// Who this is, what it has, and everything in its ledger.
#[must_use]
pub fn hello(host: &Host) -> pb::Hello {
    let holdings = host.ledger.all().into_iter().map(|(key, record)| pb::Holding {
        kind: key.kind().into(),
        id: key.id(),
        version: record.desired.version,
        tombstone: record.desired.deleted,
        acquired_epoch: record.acquired_epoch,
    });
    let name = if host.config.host_name.is_empty() {
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
    } else {
        host.config.host_name.clone()
    };
    pb::Hello {
        host_id: host.ledger.host_id().to_string(),
        name,
        start: host.ledger.host().start,
        revision: host.ledger.host().revision,
        underlay_address: host.config.underlay_address.to_string(),
        underlay_mtu: host.config.underlay_mtu,
        external_networks: host.config.external.keys().cloned().collect(),
        holdings: holdings.collect(),
    }
}

fn heartbeat(host: &Host, traffic: Vec<pb::PortTraffic>) -> pb::Heartbeat {
    let wishes = host.wishes();
    pb::Heartbeat {
        networks: wishes.networks.len() as u32,
        ports: wishes.acquired.len() as u32,
        pending: host.signal.pending() as u32,
        traffic,
    }
}

/// Remembers what was sent, so that only what moved is sent again.
#[derive(Default)]
struct Traffic {
    sent: BTreeMap<String, pb::PortTraffic>,
    /// By network: what its links had counted when its drops were last read.
    read_at: BTreeMap<NetworkId, BTreeMap<String, LinkCounters>>,
}

impl Traffic {
    async fn changed(&mut self, host: &Host) -> Vec<pb::PortTraffic> {
        let wishes = host.wishes();
        let mut changed = Vec::new();
        for id in wishes.networks.keys() {
            let Some(worker) = host.worker_of(*id) else { continue };
            let counted = worker.run(|inside| observe::links(&mut inside.netlink).map(|found| found.counters)).await;
            let Ok(Ok(counters)) = counted else { continue };
            // Where nothing passed, nothing was dropped.
            if self.read_at.get(id) == Some(&counters) {
                continue;
            }
            let dropped = match drops::read(&worker).await {
                Ok(Ok(dropped)) => dropped,
                Ok(Err(error)) => {
                    tracing::warn!(network_id = %id, error = &error as &dyn std::error::Error, "drops can't be read");
                    continue;
                }
                // The namespace goes.
                Err(_) => continue,
            };
            for port in wishes.ports_of(*id).filter(|port| port.instance().is_some()) {
                let link = names::port_link(port.id);
                let Some(count) = counters.get(&link) else { continue };
                let drops = dropped.iter().filter(|((l, _), _)| *l == link);
                let drops = drops
                    .map(|((_, reason), packets)| pb::PortDrops { reason: reason.as_str().into(), packets: *packets });
                // The link's view is the other way around than its instance's.
                let traffic = pb::PortTraffic {
                    port_id: port.id.to_string(),
                    rx_bytes: count.tx_bytes,
                    rx_packets: count.tx_packets,
                    tx_bytes: count.rx_bytes,
                    tx_packets: count.rx_packets,
                    drops: drops.collect(),
                };
                if self.sent.get(&traffic.port_id) != Some(&traffic) {
                    self.sent.insert(traffic.port_id.clone(), traffic.clone());
                    changed.push(traffic);
                }
            }
            self.read_at.insert(*id, counters);
        }
        self.read_at.retain(|id, _| wishes.networks.contains_key(id));
        self.sent.retain(|id, _| id.parse().is_ok_and(|id| wishes.ports.contains_key(&id)));
        changed
    }
}
