//! Takes one step. It decides nothing: [`super::plan`] has decided. Every step may be repeated, and cut off at any point.

use super::{
    attempts::Requests,
    exit::halt,
    step::Step,
    step_error::{StepError, StepResult, on_path},
    task::Task,
};
use crate::{disk::erase::erase, ledger::Entry, qmp::QmpClient};
use std::{fs, io, path::Path};

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
            Step::GrowDisk { file, size_gib } => self.grow_disk(entry, file, *size_gib).await,
            Step::AcquirePorts => self.acquire_ports(entry).await,
            Step::Launch => self.launch(entry).await,
            Step::PlugNic { nic, slot } => self.plug_nic(entry, *nic, *slot).await,
            Step::UnplugNic(device) => self.unplug_nic(*device).await,
            Step::ReleaseNics(nics) => self.release_nics(nics).await,
            Step::Cont => Ok(self.qmp()?.cont().await?),
            Step::RetryIo => {
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
