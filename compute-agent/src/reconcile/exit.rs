//! The steps that end a QEMU, record how it ended, and remove what is left of an instance.

use super::{
    attempts::Attempts,
    step::{CRASH_LOOP, Cause, Exit, QUICK_CRASH_MS, crash_backoff_ms},
    step_error::{StepResult, fault, on_path},
    task::Task,
};
use crate::{
    disk::erase::erase,
    ledger::{Entry, Halt, HaltCause},
    qemu::keeper::final_output,
};
use domain::{Timestamp, instance::OnCrash};
use std::{fs, io, time::Duration};

/// How long QEMU may take to write out its data and end before it is killed.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of QEMU's own output a reason contains, bytes.
const STDERR_SHOWN: usize = 600;

impl Task {
    pub(super) async fn kill(&mut self, entry: &Entry, cause: Cause) -> StepResult {
        match cause {
            Cause::Broken(what) => self.attempts.broken = Some(what.to_owned()),
            Cause::Off | Cause::Delete | Cause::Rebuild | Cause::Reboot | Cause::Resize | Cause::Ended => {
                self.attempts.ending = true;
            }
        }
        if let Some(running) = &entry.done.process {
            // QEMU is asked first, so that it writes out what its block layer holds. A disk that is about to be destroyed doesn't need it.
            if cause != Cause::Delete
                && let Some(qmp) = self.live.qmp.take()
            {
                let quit = async {
                    if qmp.quit().await.is_ok() {
                        let _ = running.process.wait_exit().await;
                    }
                };
                let _ = tokio::time::timeout(QUIT_TIMEOUT, quit).await;
            }
            running.process.kill().await.map_err(|e| fault(&e))?;
        }
        let group = self.context.cgroups.group(&self.instance_id.to_string());
        group.kill_all().await.map_err(|e| fault(&e))
    }

    /// Records how the recorded QEMU ended.
    pub(super) async fn settle(&mut self, entry: &Entry, exit: Exit) -> StepResult {
        let now = Timestamp::now();
        let quick = entry.done.started_at.is_some_and(|at| now.millis_since(at) < QUICK_CRASH_MS);
        let quick_crashes = if quick { entry.done.quick_crashes + 1 } else { 1 };
        let crashed = match exit {
            Exit::Expected | Exit::HostRestarted => false,
            Exit::FailedStart | Exit::Crashed => true,
        };
        let mut reason = None;
        let mut halted = None;
        if crashed {
            let text = self.crash_reason(exit).await;
            tracing::warn!(instance_id = %self.instance_id, crash_count = entry.done.crash_count + 1, reason = text, "QEMU ended");
            metrics::counter!("iaas_instance_crashes_total").increment(1);
            if quick_crashes >= CRASH_LOOP {
                let text =
                    format!("it crashed {quick_crashes} times in a row soon after its start; the last time: {text}");
                halted = Some(halt(entry, HaltCause::CrashLoop, text));
            } else if exit == Exit::Crashed && entry.desired.spec.on_crash == OnCrash::Stop {
                halted = Some(halt(entry, HaltCause::Crash, text.clone()));
            }
            reason = Some(text);
        }
        let record = self.context.ledger.record(self.instance_id, |done| {
            done.process = None;
            done.guest_up_at = None;
            if crashed {
                done.crash_count += 1;
                done.quick_crashes = quick_crashes;
            }
            if halted.is_some() {
                done.halt = halted;
            }
        });
        record.await?;
        let start_not_before = if crashed { self.context.now_ms() + crash_backoff_ms(quick_crashes) } else { 0 };
        self.attempts =
            Attempts { start_not_before, broken: reason, shown: self.attempts.shown, ..Attempts::default() };
        Ok(())
    }

    async fn crash_reason(&self, exit: Exit) -> String {
        let what = match (&self.attempts.broken, exit) {
            (Some(what), _) => what.clone(),
            (None, Exit::FailedStart) => "QEMU ended before it was ready".into(),
            (None, _) => "QEMU ended unexpectedly".into(),
        };
        let mut output = final_output(&self.paths.stderr()).await;
        if output.len() > STDERR_SHOWN {
            let from = (output.len() - STDERR_SHOWN..output.len()).find(|at| output.is_char_boundary(*at));
            output.replace_range(..from.unwrap_or(0), "…");
        }
        if output.is_empty() { what } else { format!("{what}; its last output: {output}") }
    }

    pub(super) async fn remove_leftovers(&mut self) -> StepResult {
        let uid = self.context.users.find(&self.paths);
        self.erase_config_drives().await?;
        let log = self.paths.console_log();
        // QEMU could write in that directory, so only a plain file is opened.
        if fs::symlink_metadata(&log).is_ok_and(|meta| meta.is_file()) {
            erase(&log).await?;
        }
        let in_pool = self.paths.disks_dir != self.paths.dir;
        for dir in [&self.paths.run_dir, &self.paths.dir, &self.paths.disks_dir] {
            match fs::remove_dir_all(dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(on_path(dir)(e)),
                Ok(()) | Err(_) => {}
            }
        }
        if let Some(pool) = self.context.pool.as_ref().filter(|_| in_pool) {
            pool.drop_unused_images().map_err(on_path(pool.dir()))?;
        }
        if let Some(uid) = uid {
            self.context.users.release(uid);
        }
        let group = self.context.cgroups.group(&self.instance_id.to_string());
        group.kill_all().await.map_err(|e| fault(&e))?;
        // A process that has ended stays in its group for a moment, so the removal is tried several times.
        let mut tries = 0;
        loop {
            match group.remove() {
                Ok(()) => return Ok(()),
                Err(_) if tries < 20 => tries += 1,
                Err(error) => return Err(fault(&error)),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(super) fn halt(entry: &Entry, cause: HaltCause, reason: String) -> Halt {
    let desired = &entry.desired;
    Halt { cause, boot_seq: desired.spec.boot_seq, version: desired.version, reason, at: Timestamp::now() }
}
