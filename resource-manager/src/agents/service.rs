//! The gRPC service that network-agents connect to.

use super::{
    Link, lock,
    number::{Introduction, Numbers},
    report,
    session::{Session, Word},
};
use crate::{
    Manager,
    network::topology::{Learned, Told, bound_to},
};
use domain::{HostId, Problem, host::AgentRole};
use proto::{
    convert::parse,
    network::v1::{
        self as pb, agent_message::Message as Up, manager_message::Message as Down, network_link_server::NetworkLink,
    },
    status::to_status,
};
use service_kit::peer::require_agent;
use std::{collections::HashMap, net::IpAddr, pin::Pin, sync::Arc, time::Duration, time::Instant};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

/// How long an agent may take for its first message.
const HELLO: Duration = Duration::from_secs(10);
/// An agent speaks each second; one that is silent this long is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// Reports that wait to be stored; the agent's stream waits when there are more.
const REPORTS: usize = 4096;

#[derive(Clone)]
pub struct NetworkLinkService(pub Arc<Manager>);

#[tonic::async_trait]
impl NetworkLink for NetworkLinkService {
    type AttachStream = Pin<Box<dyn futures::Stream<Item = Result<pb::ManagerMessage, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let speaks_for = require_agent(&request, AgentRole::NetworkAgent)?;
        let manager = Arc::clone(&self.0);
        let mut incoming = request.into_inner();
        let hello = first_message(&mut incoming).await?;
        speaks_for.check(&hello.host_id)?;
        let (link, session) = register(&manager, hello).await.map_err(|p| to_status(&p))?;
        let (sender, reports) = mpsc::channel(REPORTS);
        let (storing, stored) = (Arc::clone(&manager), Arc::clone(&link));
        manager.tasks.spawn(async move { report::store(&storing, &stored, reports).await });
        let reader = Arc::clone(&link);
        manager.tasks.clone().spawn(async move {
            read(&manager, &reader, incoming, sender).await;
            manager.links.leave(&reader);
            tracing::info!(host_id = %reader.host_id, host = reader.host_name, "the network-agent's stream ended");
        });
        Ok(Response::new(Box::pin(session.outgoing())))
    }
}

async fn first_message(incoming: &mut Streaming<pb::AgentMessage>) -> Result<pb::Hello, Status> {
    match tokio::time::timeout(HELLO, incoming.message()).await {
        Ok(Ok(Some(pb::AgentMessage { message: Some(Up::Hello(hello)) }))) => Ok(hello),
        Ok(Err(status)) => Err(status),
        Ok(Ok(_)) => Err(Status::invalid_argument("an agent's first message is Hello")),
        Err(_) => Err(Status::deadline_exceeded("no Hello came")),
    }
}

async fn register(manager: &Arc<Manager>, hello: pb::Hello) -> Result<(Arc<Link>, Session), Problem> {
    let host_id: HostId = parse("hello.host_id", &hello.host_id)?;
    let underlay_address: IpAddr = parse("hello.underlay_address", &hello.underlay_address)?;
    let told: HashMap<Told, Word> = hello.holdings.iter().filter_map(holding).collect();
    let highest = hello.holdings.iter().filter_map(|held| Some(held.version?.generation)).max().unwrap_or(0);
    let highest = highest.max(hello.revision);
    let known_limit = manager.topology().host(host_id).map_or(0, |row| row.revision_limit);
    if highest > known_limit {
        tracing::warn!(
            %host_id, highest, known_limit,
            "a host was told more than this database remembers (a backup was restored?): going on above that"
        );
    }
    let who = Introduction {
        host_id,
        name: hello.name.clone(),
        underlay_address,
        underlay_mtu: hello.underlay_mtu,
        external_networks: hello.external_networks,
        highest,
    };
    let numbers = Numbers::begin(&manager.store, who, known_limit).await.map_err(|error| {
        tracing::warn!(%host_id, error = &error as &dyn std::error::Error, "a host can't be registered");
        Problem::unavailable("the database doesn't answer now")
    })?;
    let link = manager.links.connect(host_id, hello.name, manager.shutdown.child_token());
    manager.learn([Learned::Host(numbers.row().clone())]);
    tracing::info!(
        %host_id, host = link.host_name, agent_start = hello.start, agent_revision = hello.revision, holdings = told.len(),
        "a host's network-agent connected"
    );
    let session = Session::new(Arc::clone(manager), Arc::clone(&link), numbers, told);
    Ok((link, session))
}

/// An object of the agent's ledger, as if we had told it.
fn holding(held: &pb::Holding) -> Option<(Told, Word)> {
    let told = match pb::ObjectKind::try_from(held.kind).ok()? {
        pb::ObjectKind::Network => Told::Network(held.id.parse().ok()?),
        pb::ObjectKind::SecurityGroup => Told::SecurityGroup(held.id.parse().ok()?),
        pb::ObjectKind::Port => Told::Port(held.id.parse().ok()?),
        pb::ObjectKind::FloatingIp => Told::FloatingIp(held.id.parse().ok()?),
        pb::ObjectKind::Unspecified => return None,
    };
    Some((told, Word { epoch: held.version.unwrap_or_default().epoch, digest: None, buried: held.tombstone }))
}

/// Takes what the agent sends until its stream ends, it falls silent, or another connection replaces it.
async fn read(
    manager: &Manager,
    link: &Arc<Link>,
    mut incoming: Streaming<pb::AgentMessage>,
    reports: mpsc::Sender<pb::Report>,
) {
    loop {
        let message = tokio::select! {
            () = link.closed.cancelled() => return,
            message = tokio::time::timeout(SILENCE, incoming.message()) => message,
        };
        let message = match message {
            Ok(Ok(Some(message))) => message.message,
            Ok(Ok(None)) => return,
            Ok(Err(status)) => {
                tracing::debug!(host_id = %link.host_id, %status, "the network-agent's stream broke");
                return;
            }
            Err(_) => {
                tracing::info!(host_id = %link.host_id, host = link.host_name, "the network-agent fell silent");
                return;
            }
        };
        match message {
            Some(Up::Heartbeat(beat)) => {
                hear(manager, link, beat);
                link.reply(Down::HeartbeatAck(pb::HeartbeatAck {}));
            }
            Some(Up::Report(report)) => {
                // Waits when reports come faster than they can be stored: the agent's stream waits with it.
                if reports.send(report).await.is_err() {
                    return;
                }
            }
            Some(Up::Resync(resync)) => {
                tracing::info!(host_id = %link.host_id, reason = resync.reason, "the network-agent asks for a snapshot");
                link.want_snapshot();
            }
            Some(Up::Hello(_)) | None => {
                tracing::warn!(host_id = %link.host_id, "a message that makes no sense here; the stream is closed");
                return;
            }
        }
    }
}

fn hear(manager: &Manager, link: &Link, beat: pb::Heartbeat) {
    let mut vitals = lock(&link.vitals);
    vitals.heard_at = Instant::now();
    (vitals.networks, vitals.ports, vitals.pending) = (beat.networks, beat.ports, beat.pending);
    for traffic in beat.traffic {
        if let Ok(id) = traffic.port_id.parse() {
            vitals.traffic.insert(id, traffic);
        }
    }
    // Of ports that left, nothing is said any more.
    let topology = manager.topology();
    vitals.traffic.retain(|id, _| topology.port(*id).and_then(bound_to) == Some(link.host_id));
}
