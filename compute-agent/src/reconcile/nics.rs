//! The steps about network cards: acquiring ports from the host's network-agent, plugging NICs in, taking them out, giving ports back.
//!
//! A tap has one holder at a time: while a start is prepared it is this task, then QEMU alone. So a QEMU that ends gives its taps up by
//! ending, and whatever is started next acquires them anew.

use super::{
    act::{StepError, StepResult, fault, transient},
    plan::{ObservedNic, Unplugging},
    task::Task,
};
use crate::{
    ledger::{Done, Entry, Nic},
    qemu::argv::{VmNic, nic_device, nic_device_options, nic_netdev, nic_netdev_options},
};
use proto::port_socket::{PortClient, PortReply, PortRequest, RefusedReason};
use std::{io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

/// How long the network-agent may wait for its own ledger: at first so short that a wait is soon said.
const ACQUIRE_FIRST_MS: u64 = 1_000;
const ACQUIRE_MS: u64 = 5_000;
/// Beyond that, for the answer itself.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// A port that is acquired and not yet in a QEMU.
#[derive(Debug, Clone)]
pub(super) struct Tap {
    pub nic: Nic,
    pub fd: Arc<OwnedFd>,
    pub mtu: u32,
}

impl Task {
    /// All ports of the next start. Left at once when there is a newer word; what came until then is kept.
    pub(super) async fn acquire_ports(&mut self, entry: &Entry) -> StepResult {
        let wanted = &entry.desired.nics;
        self.live.taps.retain(|tap| wanted.contains(&tap.nic));
        if !wanted.iter().all(|nic| entry.done.nics.contains(nic)) {
            // Noted first, so that whatever becomes of this start, what was acquired is given back.
            let nics = wanted.clone();
            let note = |done: &mut Done| nics.into_iter().for_each(|nic| done.note_nic(nic));
            self.context.ledger.record(self.instance_id, note).await?;
        }
        let timeout_ms = if self.attempts.failure.is_some() { ACQUIRE_MS } else { ACQUIRE_FIRST_MS };
        for nic in wanted {
            if self.live.taps.iter().any(|tap| tap.nic == *nic) {
                continue;
            }
            let acquiring = self.acquire(*nic, timeout_ms);
            let tap = tokio::select! {
                tap = acquiring => tap?,
                () = self.waker.notified() => return Ok(()),
                () = self.context.shutdown.cancelled() => return Ok(()),
            };
            self.live.taps.push(tap);
        }
        Ok(())
    }

    /// Of all NICs, in their order.
    pub(super) fn taps_of(&self, entry: &Entry) -> Result<Vec<Tap>, StepError> {
        let tap = |nic: &Nic| self.live.taps.iter().find(|tap| tap.nic == *nic).cloned();
        entry
            .desired
            .nics
            .iter()
            .map(tap)
            .collect::<Option<_>>()
            .ok_or(StepError { reason: "its network ports changed meanwhile".into(), fault: false })
    }

    async fn acquire(&self, nic: Nic, timeout_ms: u64) -> Result<Tap, StepError> {
        let request =
            PortRequest::Acquire { port_id: nic.port_id, instance_id: self.instance_id, epoch: nic.epoch, timeout_ms };
        let timeout = Duration::from_millis(timeout_ms) + REPLY_TIMEOUT;
        match self.call_network_agent(request, timeout).await? {
            (PortReply::Acquired { mac, mtu }, Some(fd)) if mac == nic.mac => Ok(Tap { nic, fd: Arc::new(fd), mtu }),
            (PortReply::Acquired { mac, .. }, Some(_)) => Err(StepError {
                reason: format!("network port {} has the MAC address {mac}, not {} as was told", nic.port_id, nic.mac),
                fault: true,
            }),
            (PortReply::Refused { reason, detail }, _) => Err(StepError {
                reason: format!("network port {} isn't ready on its host: {detail}", nic.port_id),
                fault: match reason {
                    RefusedReason::Failed => true,
                    // Our word, or the network-agent's, is old; the newer one is on its way.
                    RefusedReason::NotYet | RefusedReason::Stale | RefusedReason::NotYours => false,
                },
            }),
            (PortReply::Acquired { .. } | PortReply::Released, _) => Err(unexpected_reply()),
        }
    }

    async fn call_network_agent(
        &self,
        request: PortRequest,
        timeout: Duration,
    ) -> Result<(PortReply, Option<OwnedFd>), StepError> {
        let socket = self.context.config.port_socket.clone();
        let asked = tokio::task::spawn_blocking(move || call(&socket, &request, timeout)).await;
        asked.map_err(|e| transient(&e))?.map_err(|error| StepError {
            reason: format!("the host's network-agent can't be asked: {error}"),
            fault: false,
        })
    }

    pub(super) async fn plug_nic(&mut self, entry: &Entry, nic: Nic, slot: u8) -> StepResult {
        if entry.done.nics.iter().any(|noted| noted.port_id == nic.port_id) {
            // Begun before: how far is not known.
            self.clear_backend(nic).await?;
        }
        self.context.ledger.record(self.instance_id, |done| done.note_nic(nic)).await?;
        let timeout_ms = if self.attempts.failure.is_some() { ACQUIRE_MS } else { ACQUIRE_FIRST_MS };
        let tap = self.acquire(nic, timeout_ms).await?;
        let qmp = self.qmp()?;
        let port_id = nic.port_id.0;
        let fd = Arc::try_unwrap(tap.fd).map_err(|_| unexpected_reply())?;
        let name = nic_netdev(port_id);
        qmp.getfd(&name, fd).await?;
        qmp.netdev_add(nic_netdev_options(port_id, &name)).await?;
        let device = VmNic { port_id, slot, mac: nic.mac, mtu: tap.mtu };
        qmp.device_add(nic_device_options(&device)).await?;
        tracing::info!(instance_id = %self.instance_id, port_id = %nic.port_id, epoch = nic.epoch, slot, "a network card is in");
        Ok(())
    }

    pub(super) async fn unplug_nic(&mut self, device: ObservedNic) -> StepResult {
        let now = self.context.now_ms();
        let first = self.attempts.unplug.filter(|u| u.port_id == device.port_id).map_or(now, |u| u.first);
        self.attempts.unplug = Some(Unplugging { port_id: device.port_id, first, last: now });
        match self.qmp()?.device_del(&nic_device(device.slot, device.port_id.0)).await {
            // It is asked already, or is out by now: the next look tells.
            Err(error) if error.refused() => {
                tracing::debug!(instance_id = %self.instance_id, port_id = %device.port_id, %error, "asked again too soon");
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// What is left of NICs that are out of QEMU, or whose QEMU is gone.
    pub(super) async fn free_nics(&mut self, nics: &[Nic]) -> StepResult {
        for nic in nics {
            self.live.taps.retain(|tap| tap.nic.port_id != nic.port_id);
            if self.live.qmp.is_some() {
                self.clear_backend(*nic).await?;
            }
            let request =
                PortRequest::Release { port_id: nic.port_id, instance_id: self.instance_id, epoch: nic.epoch };
            match self.call_network_agent(request, REPLY_TIMEOUT).await?.0 {
                PortReply::Released => {}
                PortReply::Refused { detail, .. } => {
                    let reason = format!("network port {} can't be given back: {detail}", nic.port_id);
                    return Err(StepError { reason, fault: false });
                }
                PortReply::Acquired { .. } => return Err(unexpected_reply()),
            }
            tracing::info!(instance_id = %self.instance_id, port_id = %nic.port_id, epoch = nic.epoch, "a network port is given back");
        }
        let record = self.context.ledger.record(self.instance_id, |done| done.nics.retain(|c| !nics.contains(c)));
        Ok(record.await?)
    }

    /// The back end, and a tap that never became one: neither can be listed, both can be named.
    async fn clear_backend(&self, nic: Nic) -> StepResult {
        let (qmp, name) = (self.qmp()?, nic_netdev(nic.port_id.0));
        qmp.netdev_del(&name).await?;
        qmp.closefd(&name).await?;
        Ok(())
    }
}

fn call(socket: &Path, request: &PortRequest, timeout: Duration) -> io::Result<(PortReply, Option<OwnedFd>)> {
    PortClient::connect(socket)?.call(request, timeout)
}

fn unexpected_reply() -> StepError {
    fault(&io::Error::new(
        io::ErrorKind::InvalidData,
        "the host's network-agent answered something else than was asked",
    ))
}
