//! The steps for NICs: acquiring ports from the host's network-agent, plugging NICs in, unplugging them, releasing ports.
//!
//! A tap has one holder at a time: while a start is prepared it is this task, then QEMU alone. So a QEMU that ends releases its taps by
//! ending, and whatever is started next acquires them anew.

use super::{
    attempts::Requests,
    observed::ObservedNic,
    step_error::{StepError, StepResult, fault, transient},
    task::{Tap, Task},
};
use crate::{
    ledger::{Done, Entry, Nic},
    qemu::argv::{VmNic, nic_device, nic_device_options, nic_netdev, nic_netdev_options},
};
use proto::port_socket::{PortClient, PortReply, PortRequest, RefusedReason};
use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

/// How long the network-agent may wait for its own ledger. The first time is so short that the wait is soon reported.
const ACQUIRE_FIRST_MS: u64 = 1_000;
const ACQUIRE_MS: u64 = 5_000;
/// How much longer the agent waits for the reply itself.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

impl Task {
    /// Acquires all ports of the next start. It stops at once when a newer command arrives; what was acquired until then is kept.
    pub(super) async fn acquire_ports(&mut self, entry: &Entry) -> StepResult {
        let desired = &entry.desired.nics;
        self.live.taps.retain(|tap| desired.contains(&tap.nic));
        if !desired.iter().all(|nic| entry.done.nics.contains(nic)) {
            // The NICs are noted first, so that whatever becomes of this start, the acquired ports are released.
            let nics = desired.clone();
            let note = |done: &mut Done| nics.into_iter().for_each(|nic| done.note_nic(nic));
            self.context.ledger.record(self.instance_id, note).await?;
        }
        for nic in desired {
            if self.live.taps.iter().any(|tap| tap.nic == *nic) {
                continue;
            }
            let tap = tokio::select! {
                tap = self.acquire(*nic) => tap?,
                () = self.waker.notified() => return Ok(()),
                () = self.context.shutdown.cancelled() => return Ok(()),
            };
            self.live.taps.push(tap);
        }
        Ok(())
    }

    /// The taps of all NICs, in the NICs' order.
    pub(super) fn taps_of(&self, entry: &Entry) -> Result<Vec<Tap>, StepError> {
        let tap = |nic: &Nic| self.live.taps.iter().find(|tap| tap.nic == *nic).cloned();
        let taps: Option<_> = entry.desired.nics.iter().map(tap).collect();
        taps.ok_or_else(|| StepError { reason: "its network ports changed in the meantime".into(), fault: false })
    }

    async fn acquire(&self, nic: Nic) -> Result<Tap, StepError> {
        let timeout_ms = if self.attempts.last_failure.is_some() { ACQUIRE_MS } else { ACQUIRE_FIRST_MS };
        let (port_id, instance_id) = (nic.port_id, self.instance_id);
        let request = PortRequest::Acquire { port_id, instance_id, epoch: nic.epoch, timeout_ms };
        match self.call_network_agent(request, Duration::from_millis(timeout_ms) + REPLY_TIMEOUT).await? {
            (PortReply::Acquired { mac, mtu }, Some(fd)) if mac == nic.mac => Ok(Tap { nic, fd: Arc::new(fd), mtu }),
            (PortReply::Acquired { mac, .. }, Some(_)) => Err(StepError {
                reason: format!("network port {port_id} has the MAC address {mac} instead of {}", nic.mac),
                fault: true,
            }),
            (PortReply::Refused { reason, detail }, _) => Err(StepError {
                reason: format!("network port {port_id} isn't ready on its host: {detail}"),
                fault: match reason {
                    RefusedReason::Failed => true,
                    // Our command, or the network-agent's, is outdated; the newer one is on its way.
                    RefusedReason::NotYet | RefusedReason::Stale | RefusedReason::NotYours => false,
                },
            }),
            (PortReply::Acquired { .. } | PortReply::Released | PortReply::Confirmed | PortReply::Attending, _) => {
                Err(unexpected_reply())
            }
        }
    }

    async fn call_network_agent(
        &self,
        request: PortRequest,
        timeout: Duration,
    ) -> Result<(PortReply, Option<OwnedFd>), StepError> {
        let socket = self.context.config.port_socket.clone();
        let call = move || PortClient::connect(&socket)?.call(&request, timeout);
        let reply = tokio::task::spawn_blocking(call).await.map_err(|e| transient(&e))?;
        let unreachable = |error| format!("the host's network-agent can't be reached: {error}");
        reply.map_err(|error: io::Error| StepError { reason: unreachable(error), fault: false })
    }

    pub(super) async fn plug_nic(&mut self, entry: &Entry, nic: Nic, slot: u8) -> StepResult {
        if entry.done.nics.iter().any(|noted| noted.port_id == nic.port_id) {
            // This was begun before, and how far it came isn't known.
            self.clear_backend(nic).await?;
        }
        self.context.ledger.record(self.instance_id, |done| done.note_nic(nic)).await?;
        let tap = self.acquire(nic).await?;
        let qmp = self.qmp()?;
        let port_id = nic.port_id.0;
        let fd = Arc::try_unwrap(tap.fd).map_err(|_| unexpected_reply())?;
        let name = nic_netdev(port_id);
        qmp.getfd(&name, fd).await?;
        qmp.netdev_add(nic_netdev_options(port_id, &name)).await?;
        let device = VmNic { port_id, slot, mac: nic.mac, mtu: tap.mtu };
        qmp.device_add(nic_device_options(&device)).await?;
        tracing::info!(instance_id = %self.instance_id, port_id = %nic.port_id, epoch = nic.epoch, slot, "a NIC is plugged in");
        Ok(())
    }

    pub(super) async fn unplug_nic(&mut self, device: ObservedNic) -> StepResult {
        let before =
            self.attempts.unplug.filter(|(port_id, _)| *port_id == device.port_id).map(|(_, requests)| requests);
        self.attempts.unplug = Some((device.port_id, Requests::after(before, self.context.now_ms())));
        match self.qmp()?.device_del(&nic_device(device.slot, device.port_id.0)).await {
            // The guest was asked already, or the NIC is unplugged by now: the next observation shows it.
            Err(error) if error.refused() => {
                tracing::debug!(instance_id = %self.instance_id, port_id = %device.port_id, %error, "the guest was asked again too soon");
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// Removes what is left of NICs that are unplugged, or whose QEMU is gone, and releases their ports.
    pub(super) async fn release_nics(&mut self, nics: &[Nic]) -> StepResult {
        for nic in nics {
            self.live.taps.retain(|tap| tap.nic.port_id != nic.port_id);
            if self.live.qmp.is_some() {
                self.clear_backend(*nic).await?;
            }
            let (port_id, instance_id) = (nic.port_id, self.instance_id);
            let request = PortRequest::Release { port_id, instance_id, epoch: nic.epoch };
            match self.call_network_agent(request, REPLY_TIMEOUT).await?.0 {
                PortReply::Released => {}
                PortReply::Refused { detail, .. } => {
                    let reason = format!("network port {port_id} can't be released: {detail}");
                    return Err(StepError { reason, fault: false });
                }
                PortReply::Acquired { .. } | PortReply::Confirmed | PortReply::Attending => {
                    return Err(unexpected_reply());
                }
            }
            tracing::info!(%instance_id, %port_id, epoch = nic.epoch, "a network port is released");
        }
        let record = self.context.ledger.record(self.instance_id, |done| done.nics.retain(|nic| !nics.contains(nic)));
        Ok(record.await?)
    }

    /// Removes the back end, and a tap that never became one: neither can be listed, both can be named.
    async fn clear_backend(&self, nic: Nic) -> StepResult {
        let (qmp, name) = (self.qmp()?, nic_netdev(nic.port_id.0));
        qmp.netdev_del(&name).await?;
        qmp.closefd(&name).await?;
        Ok(())
    }
}

fn unexpected_reply() -> StepError {
    fault(&io::Error::new(
        io::ErrorKind::InvalidData,
        "the host's network-agent sent a reply that doesn't belong to the request",
    ))
}
