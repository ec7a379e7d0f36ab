//! Observes what exists of one instance on this host. It only reads.

use super::{
    layout::{DiskFile, Paths},
    observed::{Machine, Observed, ObservedDisk, ObservedNic, ObservedProcess},
    step::{SILENT_ATTEMPTS, StepKind},
    task::{Live, Task},
};
use crate::{
    disk::{config_drive::GuestConfig, header::Header, pool::PoolError},
    ledger::{Desired, Entry, Held, Launched, Running},
    qemu::argv::nic_of_device,
    qmp::{QmpError, RunState},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use domain::PortId;
use service_kit::error_chain;
use std::{fs, path::PathBuf};

impl Task {
    /// At the start of the task, takes over a QEMU that was found running and isn't the recorded one.
    pub(super) fn adopt(&mut self) {
        let Some(found) = self.context.take_found(self.instance_id) else { return };
        let held = self.context.ledger.held(self.instance_id);
        let Some(Held::Live(entry)) = held.as_deref() else { return };
        // Whether the pool can be used says the first observation.
        let _ = self.locate_disks(entry);
        tracing::info!(instance_id = %self.instance_id, pid = found.process.pid, "adopting a running QEMU");
        if entry.done.process.as_ref().is_some_and(|running| running.process == found.process) {
            return;
        }
        let launched = Launched::read(&self.paths.launch()).unwrap_or_else(|error| {
            tracing::warn!(instance_id = %self.instance_id, %error, "what this QEMU was started as isn't known; it is assumed to be as desired");
            let spec = &entry.desired.spec;
            Launched {
                version: entry.desired.version,
                boot_seq: entry.done.boot_seq,
                root_seq: spec.root_seq,
                size: spec.size,
                console_offset: 0,
                started_at: domain::Timestamp::now(),
                disks: disks(&self.paths).into_iter().map(|disk| disk.file).collect(),
            }
        });
        self.live.unrecorded = Some(Running { process: found.process, launched, exec_ms: None });
    }

    /// Sets where the instance's disks are. An error says why the shared pool that they are in can't be used.
    ///
    /// A host from which an instance was taken has nothing in the pool any more: only a deletion that ends the instance everywhere removes files there,
    /// also on a host that never had them.
    fn locate_disks(&mut self, entry: &Entry) -> Result<(), String> {
        let Desired { spec, erase_shared, version, .. } = &entry.desired;
        self.paths.disks_dir = self.paths.dir.clone();
        let uses = spec.uses_shared_pool();
        let in_pool = if spec.deleted { *erase_shared } else { uses };
        if !in_pool {
            return Ok(());
        }
        let pool = self.context.pool.as_ref().ok_or(PoolError::NotConfigured);
        let pool = match pool.and_then(|pool| pool.id().map(|_| pool)) {
            Ok(pool) => pool,
            Err(error) if uses => return Err(error_chain(&error)),
            Err(_) => return Ok(()),
        };
        let dir = pool.instance_dir(self.instance_id);
        if spec.deleted {
            match pool.may_erase(self.instance_id, version.epoch) {
                Ok(true) if dir.exists() => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(format!("the shared pool can't be read: {error}")),
            }
        }
        self.paths.disks_dir = dir;
        Ok(())
    }

    pub(super) async fn observe(&mut self, entry: &Entry) -> Observed {
        let pool_problem = self.locate_disks(entry).err();
        let mut process = self.observe_process(entry).await;
        let mut nics = Vec::new();
        if matches!(process, ObservedProcess::Speaking(_)) && has_nics(entry) {
            match self.observe_nics().await {
                Ok(observed) => nics = observed,
                Err(error) => process = self.monitor_lost(&error),
            }
        }
        let config_drive = self.config_drive(&entry.desired);
        let group = self.context.cgroups.group(&self.instance_id.to_string());
        let anything = self.paths.dir.exists()
            || self.paths.disks_dir.exists()
            || self.paths.run_dir.exists()
            || group.procs_files().iter().any(|file| file.exists());
        Observed {
            process,
            disks: if pool_problem.is_none() { disks(&self.paths) } else { Vec::new() },
            pool_problem,
            image: entry.desired.image.parts.iter().all(|part| self.context.images.has(part)),
            config_drive: config_drive.exists(),
            nics,
            taps: self.live.taps.iter().map(|tap| tap.nic).collect(),
            anything,
            boot_id: self.context.boot_id.clone(),
            permit: self.context.starts_permit.permits(entry.desired.spec.on_host_loss, self.context.now_ms()),
        }
    }

    async fn observe_process(&mut self, entry: &Entry) -> ObservedProcess {
        let alive = match &entry.done.process {
            Some(running) => {
                if self.live.handle.is_none() {
                    self.live.handle = match running.process.open() {
                        Ok(handle) => handle,
                        Err(error) => {
                            tracing::warn!(instance_id = %self.instance_id, %error, "its end will be noticed late");
                            None
                        }
                    };
                }
                running.process.alive()
            }
            None => false,
        };
        if !alive {
            let (unrecorded, taps) = (self.live.unrecorded.take(), std::mem::take(&mut self.live.taps));
            self.live = Live { unrecorded, taps, ..Live::default() };
            self.context.drop_console(self.instance_id);
            return ObservedProcess::None;
        }
        let Some(qmp) = &self.live.qmp else { return self.silence() };
        match qmp.query_status().await {
            Ok(state) => {
                self.live.silent_since = None;
                ObservedProcess::Speaking(machine(&state))
            }
            Err(error) => self.monitor_lost(&error),
        }
    }

    /// A monitor that isn't connected is no more than that for a while.
    fn silence(&mut self) -> ObservedProcess {
        let now = self.context.now_ms();
        let silent_ms = now.saturating_sub(*self.live.silent_since.get_or_insert(now));
        let most_ms = 1000 * self.context.config.qemu_silence_secs;
        // The agent itself may have been stopped meanwhile: it must have tried, too.
        let tried = self.attempts.failed(StepKind::Attach, SILENT_ATTEMPTS);
        if most_ms > 0 && silent_ms >= most_ms && tried {
            ObservedProcess::Unresponsive
        } else {
            ObservedProcess::Silent
        }
    }

    fn monitor_lost(&mut self, error: &QmpError) -> ObservedProcess {
        tracing::debug!(instance_id = %self.instance_id, %error, "the connection to its monitor is lost");
        self.live.qmp = None;
        self.live.events = None;
        self.silence()
    }

    async fn observe_nics(&self) -> Result<Vec<ObservedNic>, QmpError> {
        let Some(qmp) = &self.live.qmp else { return Err(QmpError::Closed) };
        let names = qmp.device_names().await?;
        let mut nics: Vec<ObservedNic> = names
            .iter()
            .filter_map(|name| nic_of_device(name))
            .map(|(slot, port_id)| ObservedNic { slot, port_id: PortId(port_id) })
            .collect();
        nics.sort_unstable_by_key(|nic| nic.slot);
        Ok(nics)
    }

    /// The path of the config drive with the desired content.
    pub(super) fn config_drive(&mut self, desired: &Desired) -> PathBuf {
        let cached = self.config_digest.take().filter(|(version, _)| *version == desired.version);
        let (version, digest) = cached.unwrap_or_else(|| (desired.version, guest_config(desired).digest()));
        let path = self.paths.config_drive(&digest);
        self.config_digest = Some((version, digest));
        path
    }
}

/// Whether QEMU may have NICs at all: every NIC is noted before it is plugged in.
fn has_nics(entry: &Entry) -> bool {
    !entry.desired.nics.is_empty() || !entry.done.nics.is_empty()
}

/// What the guest may read about itself on its config drive.
pub(super) fn guest_config(desired: &Desired) -> GuestConfig {
    GuestConfig {
        instance_id: desired.instance_id.to_string(),
        hostname: desired.name.clone(),
        ssh_keys: desired.spec.ssh_keys.clone(),
        // The gateway checked it; anything but base64 is no user data.
        user_data: BASE64.decode(&desired.spec.user_data_base64).unwrap_or_default(),
    }
}

fn machine(state: &RunState) -> Machine {
    match state {
        RunState::Running | RunState::Suspended => Machine::Running,
        RunState::Paused => Machine::Paused,
        RunState::Prelaunch => Machine::Prelaunch,
        RunState::Shutdown => Machine::PoweredOff,
        RunState::GuestPanicked => Machine::Panicked,
        RunState::Watchdog => Machine::Hung,
        RunState::IoError => Machine::IoError,
        RunState::InternalError => Machine::Broken,
        RunState::Other(_) => Machine::Between,
    }
}

/// The disks in an instance's directory, by role and ascending sequence number.
fn disks(paths: &Paths) -> Vec<ObservedDisk> {
    let entries = fs::read_dir(&paths.disks_dir).into_iter().flatten().flatten();
    let disk = |entry: fs::DirEntry| {
        let file = DiskFile::parse(entry.file_name().to_str()?)?;
        // What can't be read is damaged: it is there, and starting from it says what is wrong.
        let header = Header::read(&entry.path()).ok().flatten();
        let base_gone = header.as_ref().is_some_and(|h| h.backing.is_some()) && !paths.base(&file).exists();
        Some(ObservedDisk { file, size_gib: header.map_or(0, |h| h.size_bytes) >> 30, base_gone })
    };
    let mut disks: Vec<ObservedDisk> = entries.filter_map(disk).collect();
    disks.sort_by(|a, b| a.file.cmp(&b.file));
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_read_from_names_and_headers() {
        let dir = tempfile::tempdir().expect("dir");
        let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
        header.resize(24, 0);
        header.extend((5_u64 << 30).to_be_bytes());
        header.resize(104, 0);
        let mut backed = header.clone();
        (backed[15], backed[19]) = (4, 1);
        let paths = Paths { dir: dir.path().into(), run_dir: dir.path().into(), disks_dir: dir.path().into() };
        fs::write(dir.path().join("root-10.qcow2"), &backed).expect("written");
        fs::write(dir.path().join("root-2.qcow2"), b"short").expect("written");
        fs::write(dir.path().join("root-3.qcow2.new"), &header).expect("written");
        fs::write(dir.path().join("data-0.qcow2"), &header).expect("written");
        let disk = |role: &str, seq, size_gib, base_gone| ObservedDisk {
            file: DiskFile { role: role.into(), seq },
            size_gib,
            base_gone,
        };
        let expected = [disk("data", 0, 5, false), disk("root", 2, 0, false), disk("root", 10, 5, true)];
        assert_eq!(disks(&paths), expected, "one lies on an image that isn't there");
        fs::write(dir.path().join("base-root-10.img"), "").expect("written");
        assert_eq!(disks(&paths)[2], disk("root", 10, 5, false));
        let none = Paths { disks_dir: dir.path().join("none"), ..paths };
        assert_eq!(disks(&none), []);
    }
}
