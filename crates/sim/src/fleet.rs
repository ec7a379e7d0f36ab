//! Many hosts that answer at once: for benches.

use crate::{
    host::{SimConfig, SimHost},
    world::World,
};
use domain::flavor::Size;
use service_kit::transport::{GrpcTarget, TransportError};

/// Hosts that share one connection. A real fleet has one each; a hundred HTTP/2 connections in one process would measure HTTP/2.
const HOSTS_PER_CONNECTION: usize = 32;

pub struct SimFleet {
    pub hosts: Vec<SimHost>,
    pub world: World,
}

impl SimFleet {
    /// `count` hosts of `capacity` each, named `sim-001` and on.
    pub fn start(target: &GrpcTarget, count: usize, capacity: Size) -> Result<Self, TransportError> {
        let world = World::default();
        let mut hosts = Vec::with_capacity(count);
        let mut channel = target.channel()?;
        for n in 0..count {
            if n > 0 && n % HOSTS_PER_CONNECTION == 0 {
                channel = target.channel()?;
            }
            let config =
                SimConfig { capacity, report_building: false, ..SimConfig::named(&format!("sim-{:03}", n + 1)) };
            hosts.push(SimHost::start_on(channel.clone(), config, world.clone()));
        }
        Ok(Self { hosts, world })
    }

    /// Waits until every host was welcomed.
    pub async fn connected(&self) {
        for host in &self.hosts {
            host.connected().await;
        }
    }

    pub async fn stop(self) {
        futures::future::join_all(self.hosts.into_iter().map(SimHost::stop)).await;
    }
}
