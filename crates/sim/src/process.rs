//! An agent's process: it connects, takes commands, does them to the ledger, reports, and repeats what wasn't acknowledged. What it has in
//! memory is gone when it crashes; the ledger and what runs are the host's.

use crate::{
    console,
    fault::{CrashPoint, Fault},
    host::{Phase, Shared, Status},
    ledger::{Taken, instance_of, report_of},
};
use domain::{InstanceId, Timestamp};
use proto::{
    agent::v1::{ComputeHost, ComputeStatistics, InstanceObservation, console_relay_client::ConsoleRelayClient},
    cluster::v1::{InstanceState, Power as DesiredPower},
    sync::v1::{
        self as pb, agent_message::Message as Up, heartbeat::Statistics, host_sync_client::HostSyncClient,
        manager_message::Message as Down, report::Observation,
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often the outbox is looked through, and how long a report waits for its acknowledgement.
const REPEAT_EVERY: Duration = Duration::from_millis(100);
const REPEAT_AFTER: Duration = Duration::from_millis(300);
/// What a supervisor takes to start a process that died.
const RESTART_AFTER: Duration = Duration::from_millis(20);
const RECONNECT_AFTER: Duration = Duration::from_millis(20);
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Starts the agent's process again whenever it dies, unless it was told to stay down.
pub(crate) async fn supervise(shared: Arc<Shared>, channel: Channel, mut ended: mpsc::UnboundedReceiver<InstanceId>) {
    let mut phase = shared.phase.subscribe();
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Stopped => return,
            Phase::Crashed | Phase::Cut => {
                if phase.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Phase::Up => {}
        }
        shared.ledger().start += 1;
        let mut process = Process::new(Arc::clone(&shared), channel.clone());
        // One process may connect several times.
        loop {
            let over = process.connection(&mut ended).await;
            shared.status.send_replace(Status { connected: false });
            match over {
                Over::Crashed => break,
                Over::Disconnected => {
                    let cut = *phase.borrow() == Phase::Cut;
                    if cut && phase.wait_for(|p| *p != Phase::Cut).await.is_err() {
                        return;
                    }
                    if *phase.borrow() != Phase::Up {
                        break;
                    }
                    tokio::time::sleep(RECONNECT_AFTER).await;
                }
            }
        }
        if *phase.borrow() == Phase::Up {
            tokio::time::sleep(RESTART_AFTER).await;
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Crashed,
    Disconnected,
}

struct Sent {
    report: pb::Report,
    at: Instant,
}

/// What an agent's process has in memory: gone when it crashes.
struct Process {
    shared: Arc<Shared>,
    client: HostSyncClient<Channel>,
    consoles: ConsoleRelayClient<Channel>,
    start: i64,
    counter: i64,
    /// Not acknowledged yet, the newest of each.
    outbox: BTreeMap<InstanceId, Sent>,
    /// Held back, to come after the next.
    late: Vec<pb::Report>,
    /// What the simulated host does later.
    due: Vec<(Instant, InstanceId)>,
    /// Its manager lets it start nothing.
    withheld: bool,
}

impl Process {
    fn new(shared: Arc<Shared>, channel: Channel) -> Self {
        let start = shared.ledger().start;
        let consoles = ConsoleRelayClient::new(channel.clone());
        let client = HostSyncClient::new(channel)
            .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(proto::MESSAGE_BYTES_MAX);
        Self {
            shared,
            client,
            consoles,
            start,
            counter: 0,
            outbox: BTreeMap::new(),
            late: vec![],
            due: vec![],
            withheld: true,
        }
    }

    fn hello(&self) -> pb::Hello {
        let (config, ledger) = (&self.shared.config, self.shared.ledger());
        pb::Hello {
            host_id: config.host_id.to_string(),
            name: config.name.clone(),
            start: self.start,
            revision: ledger.revision,
            ledger_id: ledger.id.clone(),
            holdings: ledger.holdings(),
            host: Some(pb::hello::Host::Compute(ComputeHost {
                disk_full: self.shared.disk_full.load(Ordering::Relaxed),
                ..config.description()
            })),
        }
    }

    async fn connection(&mut self, ended: &mut mpsc::UnboundedReceiver<InstanceId>) -> Over {
        let mut phase = self.shared.phase.subscribe();
        if *phase.borrow_and_update() != Phase::Up {
            return self.over(*phase.borrow());
        }
        let (tx, rx) = mpsc::channel(1024);
        let up = |message| pb::AgentMessage { message: Some(message) };
        // The channel is fresh and has room.
        let _ = tx.send(up(Up::Hello(self.hello()))).await;
        let mut client = self.client.clone();
        let attached = tokio::select! {
            attached = client.attach(ReceiverStream::new(rx)) => attached,
            _ = phase.changed() => return self.over(*phase.borrow()),
        };
        let mut down = match attached {
            Ok(response) => response.into_inner(),
            Err(status) => {
                tracing::debug!(host = self.shared.config.name, %status, "not attached");
                return Over::Disconnected;
            }
        };
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        let mut repeat = tokio::time::interval(REPEAT_EVERY);
        repeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut out: Vec<pb::Report> = Vec::new();
            let next_due = self.due.iter().map(|(at, _)| *at).min();
            let flow = tokio::select! {
                biased;
                changed = phase.changed() => match changed {
                    Ok(()) if *phase.borrow() == Phase::Up => Flow::GoOn,
                    Ok(()) | Err(_) => return self.over(*phase.borrow()),
                },
                message = down.message() => match message {
                    Ok(Some(message)) => self.take(message, &mut out),
                    Ok(None) | Err(_) => return Over::Disconnected,
                },
                Some(id) = ended.recv() => {
                    if self.shared.ledger().ends_by_itself(id, self.shared.config.host_id, &self.shared.world) {
                        self.act(id, None, &mut out)
                    } else {
                        Flow::GoOn
                    }
                }
                () = sleep_until(next_due), if next_due.is_some() => self.do_due(&mut out),
                _ = heartbeat.tick() => {
                    let statistics = ComputeStatistics {
                        instances_running: self.shared.ledger().machines.len() as u32,
                        disk_full: self.shared.disk_full.load(Ordering::Relaxed),
                        ..ComputeStatistics::default()
                    };
                    let beat = pb::Heartbeat { statistics: Some(Statistics::Compute(statistics)) };
                    if tx.send(up(Up::Heartbeat(beat))).await.is_err() {
                        return Over::Disconnected;
                    }
                    Flow::GoOn
                }
                _ = repeat.tick() => self.repeat(&mut out),
            };
            for report in out {
                if tx.send(up(Up::Report(report))).await.is_err() {
                    return Over::Disconnected;
                }
            }
            match flow {
                Flow::GoOn => {}
                Flow::Crash => return Over::Crashed,
                Flow::Disconnect => return Over::Disconnected,
            }
        }
    }

    fn over(&self, phase: Phase) -> Over {
        match phase {
            Phase::Up | Phase::Cut => Over::Disconnected,
            Phase::Crashed | Phase::Stopped => Over::Crashed,
        }
    }

    fn take(&mut self, message: pb::ManagerMessage, out: &mut Vec<pb::Report>) -> Flow {
        match message.message {
            Some(Down::Registered(registered)) => {
                if self.start < registered.start_floor {
                    self.start = registered.start_floor;
                    self.shared.ledger().start = self.start;
                    return Flow::Disconnect;
                }
                self.shared.status.send_replace(Status { connected: true });
                self.withheld = registered.starts_withheld;
                if !self.withheld && !self.shared.deaf.load(Ordering::Relaxed) {
                    // As an agent that was started does; what it holds is its own, by its ledger.
                    let living = self.shared.ledger().living();
                    self.due.extend(living.into_iter().map(|id| (Instant::now(), id)));
                }
            }
            Some(Down::Snapshot(snapshot)) => {
                self.shared.ledger().revision = snapshot.revision;
                return self.take_all(snapshot.objects, out);
            }
            Some(Down::Delta(delta)) => {
                let known = self.shared.ledger().revision;
                if delta.previous != known {
                    let (name, previous) = (&self.shared.config.name, delta.previous);
                    self.shared.world.violated(format!("{name}: a delta from {previous} came after revision {known}"));
                }
                self.shared.ledger().revision = delta.revision;
                return self.take_all(delta.objects, out);
            }
            Some(Down::OpenSession(session)) => {
                let id = session.open.as_ref().and_then(|o| o.instance_id.parse::<InstanceId>().ok());
                let known = id.is_some_and(|id| self.shared.ledger().entries.contains_key(&id));
                if !self.shared.deaf.load(Ordering::Relaxed) {
                    tokio::spawn(console::serve(self.consoles.clone(), session, known));
                }
            }
            Some(Down::ReportAck(ack)) => {
                if ack.forgotten
                    && let Ok(id) = ack.id.parse()
                {
                    self.shared.ledger().forgotten.insert(id);
                }
                if let Ok(id) = ack.id.parse::<InstanceId>()
                    && let Some(sent) = self.outbox.get(&id)
                    && (sent.report.start, sent.report.counter) <= (ack.start, ack.counter)
                {
                    self.outbox.remove(&id);
                }
            }
            Some(Down::HeartbeatAck(_)) | None => {}
        }
        Flow::GoOn
    }

    fn take_all(&mut self, objects: Vec<pb::DesiredObject>, out: &mut Vec<pb::Report>) -> Flow {
        if self.shared.deaf.load(Ordering::Relaxed) {
            return Flow::GoOn;
        }
        for desired in objects {
            match self.take_one(desired, out) {
                Flow::GoOn => {}
                flow @ (Flow::Crash | Flow::Disconnect) => return flow,
            }
        }
        Flow::GoOn
    }

    fn take_one(&mut self, desired: pb::DesiredObject, out: &mut Vec<pb::Report>) -> Flow {
        let Ok(id) = desired.id.parse::<InstanceId>() else {
            self.shared.world.violated(format!("a command for `{}`, which is no id", desired.id));
            return Flow::GoOn;
        };
        let fault = self.shared.plan().draw();
        if fault == Some(Fault::Crash(CrashPoint::BeforeLedger)) {
            return Flow::Crash;
        }
        let taken = self.shared.ledger().take(id, desired);
        match (taken, fault) {
            (Taken::Refused, _) => Flow::GoOn,
            (Taken::New | Taken::Again, Some(Fault::Crash(CrashPoint::AfterLedger))) => Flow::Crash,
            (Taken::New | Taken::Again, Some(Fault::Refuse)) => {
                self.due.push((Instant::now() + RETRY_AFTER, id));
                self.not_yet(id, "", "a simulated refusal; tried again", out);
                Flow::GoOn
            }
            (Taken::New | Taken::Again, Some(Fault::Delay(time))) => {
                self.due.push((Instant::now() + time, id));
                self.not_yet(id, "a simulated delay", "", out);
                Flow::GoOn
            }
            (Taken::New | Taken::Again, fault) => {
                if taken == Taken::New && self.shared.config.report_building {
                    self.not_yet(id, "starting", "", out);
                }
                self.act(id, fault, out)
            }
        }
    }

    /// Something that isn't done yet, told as it is.
    fn not_yet(&mut self, id: InstanceId, step: &str, reason: &str, out: &mut Vec<pb::Report>) {
        let (state, desired) = {
            let ledger = self.shared.ledger();
            let Some(entry) = ledger.entries.get(&id) else { return };
            let spec = instance_of(&entry.desired).and_then(|instance| instance.spec.as_ref());
            let on = spec.is_some_and(|spec| spec.power() != DesiredPower::Off);
            let state = match (entry.tombstone, ledger.machines.get(&id)) {
                (true, _) => InstanceState::Deleting,
                (false, Some(machine)) if machine.power == crate::Power::Paused => InstanceState::Paused,
                (false, Some(_)) => InstanceState::Running,
                (false, None) if on => InstanceState::Building,
                (false, None) => InstanceState::Stopped,
            };
            (state, entry.desired.clone())
        };
        let mut observed =
            InstanceObservation { step: step.to_owned(), reason: reason.to_owned(), ..InstanceObservation::default() };
        observed.set_state(state);
        let report = self.number(report_of(&desired, observed));
        self.outbox.insert(id, Sent { report: report.clone(), at: Instant::now() });
        out.push(report);
    }

    fn number(&mut self, mut report: pb::Report) -> pb::Report {
        self.counter += 1;
        (report.start, report.counter) = (self.start, self.counter);
        report
    }

    /// Does what the ledger says of one instance, and tells.
    fn act(&mut self, id: InstanceId, fault: Option<Fault>, out: &mut Vec<pb::Report>) -> Flow {
        let settled = {
            let (config, world) = (&self.shared.config, &self.shared.world);
            let mut ledger = self.shared.ledger();
            if self.withheld && ledger.would_start(id) {
                return Flow::GoOn;
            }
            ledger.settle(id, config.host_id, world, Timestamp::now())
        };
        let Some(report) = settled else { return Flow::GoOn };
        if fault == Some(Fault::Crash(CrashPoint::AfterDoing)) {
            return Flow::Crash;
        }
        let report = self.number(report);
        self.outbox.insert(id, Sent { report: report.clone(), at: Instant::now() });
        let mut flow = Flow::GoOn;
        match fault {
            Some(Fault::LoseReply) => return Flow::GoOn,
            Some(Fault::Disconnect) => flow = Flow::Disconnect,
            Some(Fault::ReorderReports) => {
                self.late.push(report);
                return Flow::GoOn;
            }
            Some(Fault::DuplicateReport) => out.extend([report.clone(), report]),
            Some(Fault::StaleReport) => {
                let mut stale = report.clone();
                stale.counter -= 1;
                stale.generation -= 1;
                if let Some(Observation::Instance(observed)) = &mut stale.observation {
                    observed.set_state(InstanceState::Building);
                }
                out.extend([report, stale]);
            }
            Some(Fault::Refuse | Fault::Delay(_) | Fault::Crash(_)) | None => out.push(report),
        }
        out.append(&mut self.late);
        flow
    }

    fn do_due(&mut self, out: &mut Vec<pb::Report>) -> Flow {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(Instant, InstanceId)> = due;
        for (_, id) in due {
            self.act(id, None, out);
        }
        Flow::GoOn
    }

    /// What wasn't acknowledged is said again, unchanged.
    fn repeat(&mut self, out: &mut Vec<pb::Report>) -> Flow {
        out.append(&mut self.late);
        for sent in self.outbox.values_mut().filter(|s| s.at.elapsed() >= REPEAT_AFTER) {
            sent.at = Instant::now();
            out.push(sent.report.clone());
        }
        Flow::GoOn
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoOn,
    Crash,
    Disconnect,
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}
