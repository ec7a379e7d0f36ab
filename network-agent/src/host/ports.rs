//! Which ports are acquired by their instances: handed over with their taps under their epochs, confirmed where only this ledger doesn't know
//! it, and taken back.

use super::{Host, lock};
use crate::{
    link::{netns::Worker, tap},
    model::{
        names,
        object::{Binding, Key},
        state::Wiring,
    },
};
use domain::{InstanceId, NetworkId, PortId, network::MacAddr};
use proto::{network::v1::ObjectState, port_socket::RefusedReason};
use std::{os::fd::OwnedFd, time::Duration};

/// Between two tries to open a tap that another still holds.
const HELD_TAP_PAUSE: Duration = Duration::from_millis(20);

/// A port that its instance has acquired.
#[derive(Debug)]
pub struct Acquired {
    /// None with ports that are wired as veths.
    pub tap: Option<OwnedFd>,
    pub mac: MacAddr,
    pub mtu: u32,
}

/// Why a port isn't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RefusedReason,
    pub detail: String,
}

impl Refusal {
    fn new(reason: RefusedReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl Host {
    /// Hands a port to its instance, once it is programmed and answers.
    pub async fn acquire(
        &self,
        port_id: PortId,
        instance_id: InstanceId,
        epoch: i64,
        timeout: Duration,
    ) -> Result<Acquired, Refusal> {
        let deadline = tokio::time::Instant::now() + timeout;
        let network_id = self.hand_over(port_id, instance_id, epoch, deadline).await?;
        let round = self.signal.mark([network_id]);
        let done = tokio::time::timeout_at(deadline, self.signal.done(network_id, round)).await;
        if done.is_err() {
            return Err(Refusal::new(RefusedReason::NotYet, "the port is not programmed yet"));
        }
        let last = self.outbox.last(Key::Port(port_id));
        if let Some(observation) = last
            && observation.state == ObjectState::Error
        {
            return Err(Refusal::new(RefusedReason::Failed, observation.reason));
        }
        let acquired = self.open_port(port_id, network_id, deadline).await?;
        if self.is_handed_over(port_id, epoch) { Ok(acquired) } else { Err(over(port_id, epoch)) }
    }
    /// Notes that an instance which runs has the port: its tap is open, and only this ledger may not know it.
    pub async fn confirm(
        &self,
        port_id: PortId,
        instance_id: InstanceId,
        epoch: i64,
        timeout: Duration,
    ) -> Result<(), Refusal> {
        if self.is_handed_over(port_id, epoch) && self.may_acquire(port_id, instance_id, epoch).is_ok() {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + timeout;
        let network_id = self.hand_over(port_id, instance_id, epoch, deadline).await?;
        self.signal.mark([network_id]);
        Ok(())
    }

    /// Whether the port is acquired under this epoch, as far as is durable.
    fn is_handed_over(&self, port_id: PortId, epoch: i64) -> bool {
        let held = self.ledger.held(Key::Port(port_id));
        held.is_some_and(|(held, _, acquired_epoch)| held.epoch == epoch && acquired_epoch == epoch)
    }

    /// Durably; what is programmed follows.
    async fn hand_over(
        &self,
        port_id: PortId,
        instance_id: InstanceId,
        epoch: i64,
        deadline: tokio::time::Instant,
    ) -> Result<NetworkId, Refusal> {
        let mut changes = self.signal.changes();
        let network_id = loop {
            match self.may_acquire(port_id, instance_id, epoch) {
                Ok(network_id) => break network_id,
                Err(refusal) if refusal.reason == RefusedReason::NotYet => {
                    if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                        return Err(refusal);
                    }
                }
                Err(refusal) => return Err(refusal),
            }
        };
        let current = self.ledger.set_acquired(port_id, epoch, true).await;
        if !current.map_err(|e| Refusal::new(RefusedReason::Failed, e.to_string()))? {
            return Err(over(port_id, epoch));
        }
        let mut tracked = lock(&self.tracked);
        // A higher epoch may have become durable since; whoever takes it in does so after us, or we see it here.
        if !self.is_handed_over(port_id, epoch) {
            return Err(over(port_id, epoch));
        }
        tracked.set_acquired(port_id, true);
        Ok(network_id)
    }

    async fn open_port(
        &self,
        port_id: PortId,
        network_id: NetworkId,
        deadline: tokio::time::Instant,
    ) -> Result<Acquired, Refusal> {
        let failed = |detail: String| Refusal::new(RefusedReason::Failed, detail);
        let (port, network) = {
            let desired_state = self.desired_state();
            (desired_state.ports.get(&port_id).cloned(), desired_state.networks.get(&network_id).cloned())
        };
        let (Some(port), Some(network)) = (port, network) else {
            return Err(Refusal::new(RefusedReason::Stale, "the port was deleted meanwhile"));
        };
        let tap = match self.config.wiring {
            Wiring::Veth => None,
            Wiring::Tap => {
                let worker = lock(&self.workers).get(&network_id).cloned();
                let worker = worker.ok_or_else(|| failed("the network's namespace is gone".into()))?;
                Some(open_tap(&worker, port_id, deadline).await?)
            }
        };
        Ok(Acquired { tap, mac: port.mac, mtu: network.mtu })
    }

    /// The network, if this instance may have the port under this epoch now.
    fn may_acquire(&self, port_id: PortId, instance_id: InstanceId, epoch: i64) -> Result<NetworkId, Refusal> {
        let not_yet = |detail: &str| Refusal::new(RefusedReason::NotYet, detail);
        let Some((held, tombstone, _)) = self.ledger.held(Key::Port(port_id)) else {
            return Err(not_yet("this host doesn't know the port yet"));
        };
        if held.epoch > epoch || (tombstone && held.epoch == epoch) {
            return Err(Refusal::new(
                RefusedReason::Stale,
                format!("the epoch {epoch} of port {port_id} is over: {} is known here", held.epoch),
            ));
        }
        if held.epoch < epoch {
            return Err(not_yet("this host doesn't know that epoch of the port yet"));
        }
        let desired_state = self.desired_state();
        let Some(port) = desired_state.ports.get(&port_id) else { return Err(not_yet("the port is being taken in")) };
        match &port.binding {
            Binding::Local { instance_id: bound, .. } if *bound == instance_id => {}
            Binding::Local { .. } => {
                return Err(Refusal::new(RefusedReason::NotYours, "the port is bound to another instance"));
            }
            Binding::Remote { .. } | Binding::Unbound => {
                return Err(Refusal::new(RefusedReason::NotYours, "the port is not bound to this host"));
            }
        }
        if !desired_state.networks.contains_key(&port.network_id) {
            return Err(not_yet("this host doesn't know the port's network yet"));
        }
        Ok(port.network_id)
    }

    /// Takes a port back from its instance: it no longer answers when this returns.
    pub async fn release(&self, port_id: PortId, instance_id: InstanceId, epoch: i64) -> Result<(), Refusal> {
        let port = self.desired_state().ports.get(&port_id).cloned();
        let Some(port) = port else { return Ok(()) };
        if port.version.epoch == epoch && port.instance().is_some_and(|bound| bound != instance_id) {
            return Err(Refusal::new(RefusedReason::NotYours, "the port is bound to another instance"));
        }
        let released = self.ledger.set_acquired(port_id, epoch, false).await;
        let mine = released.map_err(|e| Refusal::new(RefusedReason::Failed, e.to_string()))?;
        if mine {
            lock(&self.tracked).set_acquired(port_id, false);
            let round = self.signal.mark([port.network_id]);
            self.signal.done(port.network_id, round).await;
        }
        Ok(())
    }
}

fn over(port_id: PortId, epoch: i64) -> Refusal {
    Refusal::new(RefusedReason::Stale, format!("the epoch {epoch} of port {port_id} is over"))
}

/// A tap has one descriptor at a time. Its last holder may still be going: a QEMU that the kernel is ending, or an acquisition whose
/// caller gave up while the answer was on its way. The kernel reports nothing when a tap is released, so it is tried again.
async fn open_tap(worker: &Worker, port_id: PortId, deadline: tokio::time::Instant) -> Result<OwnedFd, Refusal> {
    let failed = |detail: String| Refusal::new(RefusedReason::Failed, detail);
    loop {
        let opened = worker.run(move |_| tap::open(&names::port_link(port_id))).await;
        match opened.map_err(|e| failed(e.to_string()))? {
            Ok(tap) => return Ok(tap),
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                if tokio::time::Instant::now() >= deadline {
                    return Err(Refusal::new(RefusedReason::NotYet, "whoever had its tap before still holds it"));
                }
                tokio::time::sleep(HELD_TAP_PAUSE).await;
            }
            Err(error) => return Err(failed(format!("the tap: {error}"))),
        }
    }
}
