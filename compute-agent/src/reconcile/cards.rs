//! The steps about network cards: acquiring ports from the host's network-agent, plugging cards in, taking them out, giving ports back.
//!
//! A tap has one holder at a time: while a start is prepared it is this task, then QEMU alone. So a QEMU that ends gives its taps up by
//! ending, and whatever is started next acquires them anew.

use super::{
    act::{Outcome, StepError, fault, passing},
    plan::{CardSeen, Unplugging},
    task::Task,
};
use crate::{
    ledger::{Card, Done, Entry},
    qemu::argv::{VmCard, card_device, card_device_options, card_netdev, card_netdev_options},
};
use proto::port_socket::{PortClient, PortReply, PortRequest, RefusedReason};
use std::{io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

/// How long the network-agent may wait for its own ledger: at first so short that a wait is soon said.
const ACQUIRE_FIRST_MS: u64 = 1_000;
const ACQUIRE_MS: u64 = 5_000;
/// Beyond that, for the answer itself.
const REPLY_PATIENCE: Duration = Duration::from_secs(10);

/// A port that is acquired and not yet in a QEMU.
#[derive(Debug, Clone)]
pub(super) struct Tap {
    pub card: Card,
    pub fd: Arc<OwnedFd>,
    pub mtu: u32,
}

impl Task {
    /// All ports of the next start. Left at once when there is a newer word; what came until then is kept.
    pub(super) async fn acquire_ports(&mut self, entry: &Entry) -> Outcome {
        let wanted = &entry.desired.cards;
        self.live.taps.retain(|tap| wanted.contains(&tap.card));
        if !wanted.iter().all(|card| entry.done.cards.contains(card)) {
            // Noted first, so that whatever becomes of this start, what was acquired is given back.
            let cards = wanted.clone();
            let note = |done: &mut Done| cards.into_iter().for_each(|card| done.note_card(card));
            self.context.ledger.record(self.instance_id, note).await?;
        }
        let timeout_ms = if self.effort.failure.is_some() { ACQUIRE_MS } else { ACQUIRE_FIRST_MS };
        for card in wanted {
            if self.live.taps.iter().any(|tap| tap.card == *card) {
                continue;
            }
            let acquiring = self.acquire(*card, timeout_ms);
            let tap = tokio::select! {
                tap = acquiring => tap?,
                () = self.waker.notified() => return Ok(()),
                () = self.context.shutdown.cancelled() => return Ok(()),
            };
            self.live.taps.push(tap);
        }
        Ok(())
    }

    /// Of all cards, in their order.
    pub(super) fn taps_of(&self, entry: &Entry) -> Result<Vec<Tap>, StepError> {
        let tap = |card: &Card| self.live.taps.iter().find(|tap| tap.card == *card).cloned();
        entry
            .desired
            .cards
            .iter()
            .map(tap)
            .collect::<Option<_>>()
            .ok_or(StepError { reason: "its network ports changed meanwhile".into(), fault: false })
    }

    async fn acquire(&self, card: Card, timeout_ms: u64) -> Result<Tap, StepError> {
        let request = PortRequest::Acquire {
            port_id: card.port_id,
            instance_id: self.instance_id,
            epoch: card.epoch,
            timeout_ms,
        };
        let patience = Duration::from_millis(timeout_ms) + REPLY_PATIENCE;
        match self.ask_network(request, patience).await? {
            (PortReply::Acquired { mac, mtu }, Some(fd)) if mac == card.mac => Ok(Tap { card, fd: Arc::new(fd), mtu }),
            (PortReply::Acquired { mac, .. }, Some(_)) => Err(StepError {
                reason: format!(
                    "network port {} has the MAC address {mac}, not {} as was told",
                    card.port_id, card.mac
                ),
                fault: true,
            }),
            (PortReply::Refused { reason, detail }, _) => Err(StepError {
                reason: format!("network port {} isn't ready on its host: {detail}", card.port_id),
                fault: match reason {
                    RefusedReason::Failed => true,
                    // Our word, or the network-agent's, is old; the newer one is on its way.
                    RefusedReason::NotYet | RefusedReason::Stale | RefusedReason::NotYours => false,
                },
            }),
            (PortReply::Acquired { .. } | PortReply::Released, _) => Err(odd_answer()),
        }
    }

    async fn ask_network(
        &self,
        request: PortRequest,
        patience: Duration,
    ) -> Result<(PortReply, Option<OwnedFd>), StepError> {
        let socket = self.context.config.port_socket.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&socket, &request, patience)).await;
        asked.map_err(|e| passing(&e))?.map_err(|error| StepError {
            reason: format!("the host's network-agent can't be asked: {error}"),
            fault: false,
        })
    }

    pub(super) async fn plug_card(&mut self, entry: &Entry, card: Card, slot: u8) -> Outcome {
        if entry.done.cards.iter().any(|noted| noted.port_id == card.port_id) {
            // Begun before: how far is not known.
            self.clear_backend(card).await?;
        }
        self.context.ledger.record(self.instance_id, |done| done.note_card(card)).await?;
        let timeout_ms = if self.effort.failure.is_some() { ACQUIRE_MS } else { ACQUIRE_FIRST_MS };
        let tap = self.acquire(card, timeout_ms).await?;
        let qmp = self.qmp()?;
        let port_id = card.port_id.0;
        let fd = Arc::try_unwrap(tap.fd).map_err(|_| odd_answer())?;
        let name = card_netdev(port_id);
        qmp.getfd(&name, fd).await?;
        qmp.netdev_add(card_netdev_options(port_id, &name)).await?;
        let device = VmCard { port_id, slot, mac: card.mac, mtu: tap.mtu };
        qmp.device_add(card_device_options(&device)).await?;
        tracing::info!(instance_id = %self.instance_id, port_id = %card.port_id, epoch = card.epoch, slot, "a network card is in");
        Ok(())
    }

    pub(super) async fn unplug_card(&mut self, device: CardSeen) -> Outcome {
        let now = self.context.now_ms();
        let first = self.effort.unplug.filter(|u| u.port_id == device.port_id).map_or(now, |u| u.first);
        self.effort.unplug = Some(Unplugging { port_id: device.port_id, first, last: now });
        match self.qmp()?.device_del(&card_device(device.slot, device.port_id.0)).await {
            // It is asked already, or is out by now: the next look tells.
            Err(error) if error.refused() => {
                tracing::debug!(instance_id = %self.instance_id, port_id = %device.port_id, %error, "asked again too soon");
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    /// What is left of cards that are out of QEMU, or whose QEMU is gone.
    pub(super) async fn free_cards(&mut self, cards: &[Card]) -> Outcome {
        for card in cards {
            self.live.taps.retain(|tap| tap.card.port_id != card.port_id);
            if self.live.qmp.is_some() {
                self.clear_backend(*card).await?;
            }
            let request =
                PortRequest::Release { port_id: card.port_id, instance_id: self.instance_id, epoch: card.epoch };
            match self.ask_network(request, REPLY_PATIENCE).await?.0 {
                PortReply::Released => {}
                PortReply::Refused { detail, .. } => {
                    let reason = format!("network port {} can't be given back: {detail}", card.port_id);
                    return Err(StepError { reason, fault: false });
                }
                PortReply::Acquired { .. } => return Err(odd_answer()),
            }
            tracing::info!(instance_id = %self.instance_id, port_id = %card.port_id, epoch = card.epoch, "a network port is given back");
        }
        let record = self.context.ledger.record(self.instance_id, |done| done.cards.retain(|c| !cards.contains(c)));
        Ok(record.await?)
    }

    /// The back end, and a tap that never became one: neither can be listed, both can be named.
    async fn clear_backend(&self, card: Card) -> Outcome {
        let (qmp, name) = (self.qmp()?, card_netdev(card.port_id.0));
        qmp.netdev_del(&name).await?;
        qmp.closefd(&name).await?;
        Ok(())
    }
}

fn ask(socket: &Path, request: &PortRequest, patience: Duration) -> io::Result<(PortReply, Option<OwnedFd>)> {
    PortClient::connect(socket)?.call(request, patience)
}

fn odd_answer() -> StepError {
    fault(&io::Error::new(
        io::ErrorKind::InvalidData,
        "the host's network-agent answered something else than was asked",
    ))
}
