//! Takes one step. It decides nothing: [`super::plan`] has decided. Every step may be repeated, and cut off at any point.

use super::{exit::halt, observed::Requests, step::Step, task::Task};
use crate::{
    disk::{erase::erase, overlay::DiskError},
    images::FetchError,
    ledger::{Entry, LedgerError},
    qmp::{QmpClient, QmpError},
};
use std::{fs, io, path::Path};

/// Why a step failed, in words for the instance's owner.
#[derive(Debug)]
pub(super) struct StepError {
    pub reason: String,
    /// Somebody has to act before the step can succeed.
    pub fault: bool,
}

pub(super) type StepResult = Result<(), StepError>;

/// The error and all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |e| e.source()).fold(error.to_string(), |text, e| format!("{text}: {e}"))
}

pub(super) fn fault(error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError { reason: chain(error), fault: true }
}

pub(super) fn transient(error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError { reason: chain(error), fault: false }
}

impl From<LedgerError> for StepError {
    fn from(error: LedgerError) -> Self {
        fault(&error)
    }
}

impl From<QmpError> for StepError {
    fn from(error: QmpError) -> Self {
        transient(&error)
    }
}

impl From<DiskError> for StepError {
    fn from(error: DiskError) -> Self {
        fault(&error)
    }
}

impl From<FetchError> for StepError {
    fn from(error: FetchError) -> Self {
        Self { reason: error.to_string(), fault: error.fault() }
    }
}

pub(super) fn on_path(path: &Path) -> impl Fn(io::Error) -> StepError + '_ {
    move |source| fault(&DiskError::io(path, source))
}

impl Task {
    pub(super) async fn act(&mut self, entry: &Entry, step: &Step) -> StepResult {
        match step {
            Step::Wait => Ok(()),
            Step::Settle(exit) => self.settle(entry, *exit).await,
            Step::Halt { cause, reason } => {
                let halt = halt(entry, *cause, reason.clone());
                Ok(self.context.ledger.record(self.instance_id, |done| done.halt = Some(halt)).await?)
            }
            Step::LiftHalt => {
                let lift = self.context.ledger.record(self.instance_id, |done| {
                    done.halt = None;
                    done.quick_crashes = 0;
                });
                Ok(lift.await?)
            }
            Step::Attach => self.attach(entry).await,
            Step::FetchImage => self.fetch_image(entry).await,
            Step::Prepare { disks, config_drive } => self.prepare(entry, disks, *config_drive).await,
            Step::GrowDisk { file, size_gib } => self.grow_disk(file, *size_gib).await,
            Step::AcquirePorts => self.acquire_ports(entry).await,
            Step::Launch => self.launch(entry).await,
            Step::PlugNic { nic, slot } => self.plug_nic(entry, *nic, *slot).await,
            Step::UnplugNic(device) => self.unplug_nic(*device).await,
            Step::ReleaseNics(nics) => self.release_nics(nics).await,
            Step::Cont => {
                self.attempts.io_retried = Some(self.context.now_ms());
                Ok(self.qmp()?.cont().await?)
            }
            Step::Pause => Ok(self.qmp()?.stop().await?),
            Step::Powerdown => {
                self.qmp()?.system_powerdown().await?;
                self.attempts.powerdown = Some(Requests::after(self.attempts.powerdown, self.context.now_ms()));
                Ok(())
            }
            Step::Reset => {
                self.await_guest_up_again().await;
                self.qmp()?.system_reset().await?;
                self.booted(entry).await
            }
            Step::Booted => self.booted(entry).await,
            Step::Kill(cause) => self.kill(entry, *cause).await,
            Step::DestroyDisk(file) => {
                let base = self.paths.base(file);
                erase(&self.paths.disk(file)).await?;
                remove_file(&base).map_err(on_path(&base))
            }
            Step::RemoveLeftovers => self.remove_leftovers().await,
            Step::WriteTombstone => {
                self.context.ledger.set_tombstone(self.instance_id, entry.desired.version).await?;
                if !entry.done.pins.is_empty() {
                    self.context.confine_others();
                }
                Ok(())
            }
        }
    }

    pub(super) fn qmp(&self) -> Result<QmpClient, StepError> {
        self.live.qmp.clone().ok_or(StepError { reason: "QEMU's monitor is not connected".into(), fault: false })
    }

    async fn booted(&self, entry: &Entry) -> StepResult {
        let boot_seq = entry.desired.spec.boot_seq;
        let record = self.context.ledger.record(self.instance_id, |done| done.boot_seq = done.boot_seq.max(boot_seq));
        Ok(record.await?)
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}
