//! One agent's stream, seen from the sending side: a queue that coalesces, and the stream that drains it.

use domain::{HostId, InstanceId};
use parking_lot::{Mutex, MutexGuard};
use proto::agent::v1 as pb;
use std::{collections::HashMap, time::Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Instances in one message; a larger delta is sent as several.
pub const DELTA_MAX: usize = 256;

#[derive(Default)]
struct Queue {
    desired: HashMap<InstanceId, pb::DesiredInstance>,
    acks: Vec<pb::ReportAck>,
    sessions: Vec<pb::OpenSession>,
    heartbeat_ack: bool,
    snapshot: bool,
}

/// What is to be sent next.
#[derive(Debug)]
pub enum Next {
    /// All of the host's instances, to be loaded by the sender.
    Snapshot,
    Desired(Vec<pb::DesiredInstance>),
    Message(pb::ManagerMessage),
}

/// What the agent last said of its machine; for people and deadlines, never for placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    pub disk_free_bytes: u64,
    pub memory_available_mib: u64,
    pub instances_running: u32,
    pub starts_in_progress: u32,
}

pub struct Link {
    pub host_id: HostId,
    pub host_name: String,
    /// Tells two connections of one host apart.
    pub connection: u64,
    /// Ends both directions.
    pub closed: CancellationToken,
    queue: Mutex<Queue>,
    wake: Notify,
    heard: Mutex<(Instant, Vitals)>,
    queue_max: usize,
}

impl Link {
    #[must_use]
    pub fn new(
        host_id: HostId,
        host_name: String,
        connection: u64,
        queue_max: usize,
        closed: CancellationToken,
    ) -> Self {
        Self {
            host_id,
            host_name,
            connection,
            closed,
            // The first thing that an agent gets.
            queue: Mutex::new(Queue { snapshot: true, ..Queue::default() }),
            wake: Notify::new(),
            heard: Mutex::new((Instant::now(), Vitals::default())),
            queue_max,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    fn change(&self, f: impl FnOnce(&mut Queue)) {
        f(&mut self.queue());
        self.wake.notify_one();
    }

    /// What instances must be; the newest of each counts.
    pub fn deliver(&self, desired: impl IntoIterator<Item = (InstanceId, pb::DesiredInstance)>) {
        self.change(|queue| {
            for (id, instance) in desired {
                let newer =
                    |old: &pb::DesiredInstance| (old.epoch, old.generation) <= (instance.epoch, instance.generation);
                if queue.desired.get(&id).is_none_or(newer) {
                    queue.desired.insert(id, instance);
                }
            }
            if queue.desired.len() > self.queue_max {
                metrics::counter!("iaas_agent_queue_overflows_total").increment(1);
                queue.desired.clear();
                queue.snapshot = true;
            }
        });
    }

    pub fn acknowledge(&self, acks: impl IntoIterator<Item = pb::ReportAck>) {
        self.change(|queue| queue.acks.extend(acks));
    }

    pub fn open_session(&self, session: pb::OpenSession) {
        self.change(|queue| queue.sessions.push(session));
    }

    pub fn acknowledge_heartbeat(&self) {
        self.change(|queue| queue.heartbeat_ack = true);
    }

    pub fn want_snapshot(&self) {
        self.change(|queue| queue.snapshot = true);
    }

    pub fn heard(&self, vitals: Option<Vitals>) {
        let mut heard = self.heard.lock();
        heard.0 = Instant::now();
        heard.1 = vitals.unwrap_or(heard.1);
    }

    #[must_use]
    pub fn last_heard(&self) -> (Instant, Vitals) {
        *self.heard.lock()
    }

    /// Waits for what is to be sent next. Small answers come before large news, and a snapshot before deltas.
    pub async fn next(&self) -> Vec<Next> {
        loop {
            let taken = self.take();
            if !taken.is_empty() {
                return taken;
            }
            // A permit is kept when the change came between the look and the wait.
            self.wake.notified().await;
        }
    }

    fn take(&self) -> Vec<Next> {
        use pb::manager_message::Message as M;
        let (acks, sessions, heartbeat_ack, snapshot, desired) = {
            let mut queue = self.queue();
            (
                std::mem::take(&mut queue.acks),
                std::mem::take(&mut queue.sessions),
                std::mem::take(&mut queue.heartbeat_ack),
                std::mem::take(&mut queue.snapshot),
                std::mem::take(&mut queue.desired),
            )
        };
        let message = |m| Next::Message(pb::ManagerMessage { message: Some(m) });
        let mut out = Vec::new();
        if heartbeat_ack {
            out.push(message(M::HeartbeatAck(pb::HeartbeatAck {})));
        }
        out.extend(acks.into_iter().map(|a| message(M::ReportAck(a))));
        out.extend(sessions.into_iter().map(|s| message(M::OpenSession(s))));
        if snapshot {
            out.push(Next::Snapshot);
        }
        let mut desired = desired.into_values().collect::<Vec<_>>();
        while !desired.is_empty() {
            let rest = desired.split_off(desired.len().min(DELTA_MAX));
            out.push(Next::Desired(std::mem::replace(&mut desired, rest)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(queue_max: usize) -> Link {
        let link = Link::new(HostId::new(), "h".into(), 1, queue_max, CancellationToken::new());
        assert!(matches!(link.take().as_slice(), [Next::Snapshot]), "an agent begins with a snapshot");
        link
    }

    fn desired(id: InstanceId, generation: i64) -> (InstanceId, pb::DesiredInstance) {
        (id, pb::DesiredInstance { instance_id: id.to_string(), epoch: 1, generation, ..Default::default() })
    }

    #[test]
    fn the_newest_of_each_instance_is_sent_once() {
        let (link, id) = (link(10), InstanceId::new());
        link.deliver([desired(id, 3)]);
        link.deliver([desired(id, 2), desired(InstanceId::new(), 1)]);
        let taken = link.take();
        let [Next::Desired(instances)] = taken.as_slice() else { panic!("{taken:?}") };
        assert_eq!(instances.len(), 2);
        assert!(instances.iter().any(|i| i.instance_id == id.to_string() && i.generation == 3));
        assert!(link.take().is_empty());
    }

    #[test]
    fn an_agent_that_falls_behind_gets_a_snapshot_instead_of_a_growing_queue() {
        let link = link(10);
        link.deliver((0..11).map(|_| desired(InstanceId::new(), 1)));
        assert!(matches!(link.take().as_slice(), [Next::Snapshot]));
    }
}
