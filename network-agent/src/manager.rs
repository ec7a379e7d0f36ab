//! What the agent says and takes in its session with the resource-manager, which [`agent_kit::session`] keeps.

use crate::{
    drops,
    host::Host,
    link::observe::{self, LinkCounters},
    model::{names, object::Key},
    observation::{Observation, report_to_pb},
};
use agent_kit::{Agent, HelloError, HostRecord, LedgerError, Outbox};
use domain::NetworkId;
use proto::{
    network::v1::{NetworkHost, NetworkStatistics, PortDrops, PortTraffic},
    sync::v1::{self as pb, heartbeat::Statistics},
};
use std::{collections::BTreeMap, path::Path, time::Instant};

/// Counters are read once in so many heartbeats.
const TRAFFIC_EVERY: u64 = 5;

/// What a session remembers from heartbeat to heartbeat.
#[derive(Default)]
pub struct Beats {
    count: u64,
    traffic: Traffic,
}

impl Agent for Host {
    type Observation = Observation;
    type Beats = Beats;
    const MANAGER: &'static str = "resource-manager";

    fn host(&self) -> HostRecord {
        self.ledger.host()
    }

    fn state_dir(&self) -> &Path {
        &self.config.state_dir
    }

    fn outbox(&self) -> &Outbox<Observation> {
        &self.outbox
    }

    fn forgotten(&self, key: Key) {
        self.ledger.release_tombstone(key);
    }

    fn key_of(kind: i32, id: &str) -> Option<Key> {
        Key::parse(kind, id).ok()
    }

    fn report(&self, observation: Observation) -> pb::Report {
        report_to_pb(observation)
    }

    async fn hello(&self) -> Result<pb::Hello, HelloError> {
        Ok(hello(self))
    }

    async fn statistics(&self, beats: &mut Beats) -> Statistics {
        beats.count += 1;
        let traffic = if beats.count % TRAFFIC_EVERY == 1 { beats.traffic.changed(self).await } else { Vec::new() };
        let desired_state = self.desired_state();
        Statistics::Network(NetworkStatistics {
            networks: desired_state.networks.len() as u32,
            ports: desired_state.acquired.len() as u32,
            pending: self.signal.pending() as u32,
            traffic,
        })
    }

    /// The host's addresses are what others protect.
    async fn changed(&self) {
        self.addresses_changed().await;
    }

    async fn accept(&self, objects: Vec<pb::DesiredObject>, revision: i64, _: Instant) -> Result<(), LedgerError> {
        self.accept(objects, revision).await
    }
}

/// Who this is, what it has, and everything in its ledger.
#[must_use]
pub fn hello(host: &Host) -> pb::Hello {
    let desired_state = host.desired_state();
    let holdings = host.ledger.all().into_iter().map(|(key, record)| {
        let held = pb::Holding {
            kind: key.kind().into(),
            id: key.id(),
            epoch: record.desired.epoch,
            generation: record.desired.generation,
            tombstone: record.desired.deleted,
            acquired_epoch: record.acquired_epoch,
            ..pb::Holding::default()
        };
        let port = if let Key::Port(id) = key { desired_state.ports.get(&id) } else { None };
        match port.filter(|port| desired_state.in_use(port)) {
            Some(port) => pb::Holding {
                instance_id: port.instance().map(|id| id.to_string()).unwrap_or_default(),
                network_id: port.network_id.to_string(),
                security_group_ids: port.groups.iter().map(ToString::to_string).collect(),
                ..held
            },
            None => held,
        }
    });
    let name = if host.config.host_name.is_empty() {
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
    } else {
        host.config.host_name.clone()
    };
    let HostRecord { host_id, start, revision } = host.ledger.host();
    pb::Hello {
        // What it lost is given again: nothing is held back for that.
        ledger_id: String::new(),
        host_id: host_id.to_string(),
        name,
        start,
        revision,
        holdings: holdings.collect(),
        host: Some(pb::hello::Host::Network(NetworkHost {
            underlay_address: host.config.underlay_address.to_string(),
            underlay_mtu: host.config.underlay_mtu,
            external_networks: host.config.external.keys().cloned().collect(),
            addresses: host.tell_addresses().iter().map(ToString::to_string).collect(),
        })),
    }
}

/// Remembers what was sent, so that only what moved is sent again.
#[derive(Default)]
struct Traffic {
    sent: BTreeMap<String, PortTraffic>,
    /// By network: what its links had counted when its drops were last read.
    read_at: BTreeMap<NetworkId, BTreeMap<String, LinkCounters>>,
}

impl Traffic {
    async fn changed(&mut self, host: &Host) -> Vec<PortTraffic> {
        let desired_state = host.desired_state();
        let mut changed = Vec::new();
        for id in desired_state.networks.keys() {
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
            for port in desired_state.ports_of(*id).filter(|port| port.instance().is_some()) {
                let link = names::port_link(port.id);
                let Some(count) = counters.get(&link) else { continue };
                let drops = dropped.iter().filter(|((l, _), _)| *l == link);
                let drops =
                    drops.map(|((_, reason), packets)| PortDrops { reason: reason.as_str().into(), packets: *packets });
                // The link's view is the other way around than its instance's.
                let traffic = PortTraffic {
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
        self.read_at.retain(|id, _| desired_state.networks.contains_key(id));
        self.sent.retain(|id, _| id.parse().is_ok_and(|id| desired_state.ports.contains_key(&id)));
        changed
    }
}
