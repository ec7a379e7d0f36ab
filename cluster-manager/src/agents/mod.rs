//! The hosts' compute-agents: what each must run, and what it reports. The streams are [`service_kit::host_streams`]'.
//!
//! What goes to an agent is rendered when it is known ([`desired`]) and pushed to its stream. A host's revision is raised in the
//! transaction that changes its desired state, so a stream that begins reads the revision first and then the rows: what is committed
//! meanwhile comes again as a delta. What comes from agents becomes one read and one commit for many instances ([`ingest`]).

pub mod consoles;
pub mod desired;
pub mod ingest;
pub mod liveness;
pub mod register;
mod restored;

use crate::{manager::Manager, recovery::returning};
use desired::HostInstances;
use domain::{
    InstanceId, Problem,
    host::{AgentRole, HostState},
};
use proto::sync::v1::{self as pb, heartbeat::Statistics};
use service_kit::{
    host_streams::{self, HostManager, HostStreams},
    peer::HostPeer,
};
use std::sync::Arc;

pub type HostStream = host_streams::HostStream<Manager>;

/// What the agent last reported of its machine; for people and deadlines, never for placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostStatistics {
    pub disk_free_bytes: u64,
    pub memory_available_mib: u64,
    pub instances_running: u32,
    pub starts_in_progress: u32,
    pub disk_full: bool,
}

impl HostManager for Manager {
    const ROLE: AgentRole = AgentRole::ComputeAgent;
    type Key = InstanceId;
    type Update = pb::DesiredObject;
    type Statistics = HostStatistics;
    type Desired = HostInstances;

    fn streams(&self) -> &HostStreams<Self> {
        &self.agents
    }

    async fn register(
        self: &Arc<Self>,
        hello: &mut pb::Hello,
        certified: Option<HostPeer>,
    ) -> Result<(String, HostInstances), Problem> {
        let host = register::register_host(self, hello, certified).await?;
        let instances = HostInstances::new(Arc::clone(self), &host);
        Ok((host.name, instances))
    }

    async fn connected(self: &Arc<Self>, stream: &Arc<HostStream>, hello: pb::Hello) -> Result<(), Problem> {
        if let Some(pb::hello::Host::Compute(machine)) = &hello.host {
            stream.statistics.lock().disk_full = machine.disk_full;
        }
        match self.host_state(stream.host_id) {
            // What a held host says comes from a ledger that may never count: no row follows it.
            Some(HostState::Held) => {}
            // What a lost host holds counts for nothing but the proof that it holds no more of what was taken from it.
            Some(HostState::Lost) => {
                let host = self.store.host_find(stream.host_id).await.map_err(operation::read_problem)?;
                if let Some(host) = host {
                    returning::host_returned(self, stream, &host, &hello.holdings).await?;
                }
            }
            Some(HostState::Up | HostState::Disconnected | HostState::DiskFull) | None => {
                restored::lift_rows(self, stream, &hello.holdings).await?;
            }
        }
        register::review_holdings(self, stream, &hello.holdings).await?;
        // Instances that waited for this host say so no longer once they are reconciled.
        let ids = self.store.instance_list_of_host(stream.host_id).await;
        self.signal.wake(ids.map_err(operation::read_problem)?, None);
        Ok(())
    }

    fn take_statistics(&self, stream: &HostStream, statistics: Statistics) {
        let Statistics::Compute(news) = statistics else { return };
        *stream.statistics.lock() = HostStatistics {
            disk_free_bytes: news.disk_free_bytes,
            memory_available_mib: news.memory_available_mib,
            instances_running: news.instances_running,
            starts_in_progress: news.starts_in_progress,
            disk_full: news.disk_full,
        };
    }
}
