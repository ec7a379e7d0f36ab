//! Does one step. Dumb: what and whether is [`super::plan`]'s. Every step may be repeated, and cut off anywhere.

use super::{
    launch::{Circumstances, disk_format, limits, vm_spec},
    layout,
    observe::guest_config,
    plan::{CRASH_LOOP, Cause, Effort, Exit, QUICK_CRASH_MS, Step, crash_backoff_ms},
    task::Task,
};
use crate::{
    adopt::{self, Launched},
    console::ConsoleHub,
    disk::{
        config_drive::write_config_drive,
        erase::erase,
        overlay::{DiskError, Owner},
    },
    images::FetchError,
    ledger::{Entry, Halt, HaltCause, LedgerError},
    qemu::{
        argv::DiskFormat,
        launch::{Placement, ReadyError, stderr_tail, wait_ready},
    },
    qmp::{QmpClient, QmpError},
};
use domain::{
    Timestamp,
    image::{ImageKind, ImagePartKind},
    instance::OnCrash,
};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

/// QEMU opens its sockets within milliseconds; a host that swaps takes its time.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long QEMU may take to write out and end before it is killed.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two reports of a download's progress.
const PROGRESS: Duration = Duration::from_secs(2);
/// How much of QEMU's own words a reason carries, bytes.
const STDERR_SHOWN: usize = 600;

/// Why a step failed, for the instance's owner.
#[derive(Debug)]
pub(super) struct StepError {
    pub reason: String,
    /// Needs somebody to do something.
    pub fault: bool,
}

type Outcome = Result<(), StepError>;

/// An error and all its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |e| e.source()).fold(error.to_string(), |text, e| format!("{text}: {e}"))
}

fn fault(error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError { reason: chain(error), fault: true }
}

fn passing(error: &(dyn std::error::Error + 'static)) -> StepError {
    StepError { reason: chain(error), fault: false }
}

impl From<LedgerError> for StepError {
    fn from(error: LedgerError) -> Self {
        fault(&error)
    }
}

impl From<QmpError> for StepError {
    fn from(error: QmpError) -> Self {
        passing(&error)
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

fn on_path(path: &Path) -> impl Fn(io::Error) -> StepError + '_ {
    move |source| fault(&DiskError::io(path, source))
}

impl Task {
    pub(super) async fn act(&mut self, entry: &Entry, step: &Step) -> Outcome {
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
            Step::Prepare { disk, config_drive } => self.prepare(entry, *disk, *config_drive).await,
            Step::GrowDisk => self.grow_disk(entry).await,
            Step::Launch => self.launch(entry).await,
            Step::Cont => {
                self.effort.io_retried = Some(self.context.now_ms());
                Ok(self.qmp()?.cont().await?)
            }
            Step::Pause => Ok(self.qmp()?.stop().await?),
            Step::Powerdown => {
                self.qmp()?.system_powerdown().await?;
                let now = self.context.now_ms();
                let first = self.effort.asked.map_or(now, |(first, _)| first);
                self.effort.asked = Some((first, now));
                Ok(())
            }
            Step::Reset => {
                self.guest_boots().await;
                self.qmp()?.system_reset().await?;
                self.booted(entry).await
            }
            Step::Booted => self.booted(entry).await,
            Step::Kill(cause) => self.kill(entry, *cause).await,
            Step::DestroyDisk { root_seq } => {
                let base = self.paths.base(*root_seq);
                erase(&self.paths.root_disk(*root_seq)).await?;
                remove_file(&base).map_err(on_path(&base))
            }
            Step::RemoveLeftovers => self.remove_leftovers().await,
            Step::Bury => Ok(self.context.ledger.bury(self.instance_id, entry.desired.version).await?),
        }
    }

    fn qmp(&self) -> Result<QmpClient, StepError> {
        self.live.qmp.clone().ok_or(StepError { reason: "QEMU's monitor is not connected".into(), fault: false })
    }

    async fn booted(&self, entry: &Entry) -> Outcome {
        let boot_seq = entry.desired.spec.boot_seq;
        let record = self.context.ledger.record(self.instance_id, |done| done.boot_seq = done.boot_seq.max(boot_seq));
        Ok(record.await?)
    }

    /// Shared with all who need the same image; left at once when there is a newer word.
    async fn fetch_image(&mut self, entry: &Entry) -> Outcome {
        let images = self.context.images.clone();
        let largest = entry.desired.image.parts.iter().max_by_key(|part| part.size_bytes);
        let (sender, mut progress) = tokio::sync::watch::channel(String::new());
        let fetches = entry.desired.image.parts.iter().map(|part| {
            let (images, sender, shown) = (&images, &sender, Some(part) == largest);
            async move {
                images
                    .ensure(part, |percent| {
                        if shown {
                            sender.send_replace(percent);
                        }
                    })
                    .await
            }
        });
        let fetched = futures::future::try_join_all(fetches);
        tokio::pin!(fetched);
        let (waker, shutdown) = (self.waker.clone(), self.context.shutdown.clone());
        loop {
            tokio::select! {
                fetched = &mut fetched => return fetched.map(drop).map_err(StepError::from),
                () = waker.notified() => return Ok(()),
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(PROGRESS) => {
                    let percent = progress.borrow_and_update().clone();
                    self.effort.fetched = Some(percent).filter(|p| !p.is_empty());
                    let seen = super::plan::Shown {
                        state: self.effort.shown.unwrap_or(domain::instance::InstanceState::Building),
                        step: match &self.effort.fetched {
                            Some(percent) => format!("fetching the image ({percent})"),
                            None => "fetching the image".into(),
                        },
                        reason: String::new(),
                        converged: false,
                    };
                    self.report(entry, &seen);
                }
            }
        }
    }

    fn ensure_user(&self) -> Result<Owner, StepError> {
        match self.context.users.ensure(&self.paths).map_err(on_path(&self.paths.dir))? {
            Some(uid) => Ok(Owner { uid, gid: uid }),
            None => Err(StepError {
                reason: "this host has no user id left for another instance (compute.uid_count)".into(),
                fault: true,
            }),
        }
    }

    /// The disk and the config drive side by side: each is a child process or a sync to disk.
    async fn prepare(&mut self, entry: &Entry, disk: bool, config_drive: bool) -> Outcome {
        let owner = self.ensure_user()?;
        let sum = self.config_sum(&entry.desired);
        let making_disk = async { if disk { self.make_disk(entry, owner).await } else { Ok(()) } };
        let making_drive = async {
            if !config_drive {
                return Ok(());
            }
            self.forget_config_drives().await?;
            let dest = self.paths.config_drive(&sum);
            // Under another name until it is whole.
            let half = dest.with_extension("new");
            write_config_drive(&guest_config(&entry.desired), &half, owner).await.map_err(|e| fault(&e))?;
            fs::rename(&half, &dest).map_err(on_path(&dest))
        };
        tokio::try_join!(making_disk, making_drive)?;
        let root_seq = entry.desired.spec.root_seq;
        // Written with the start that follows, unless none does.
        if entry.done.root_seq < root_seq {
            let record = self.context.ledger.record(self.instance_id, |done| done.root_seq = root_seq);
            record.await?;
        }
        Ok(())
    }

    /// Made under another name, so that a disk with its number is always whole.
    async fn make_disk(&self, entry: &Entry, owner: Owner) -> Outcome {
        let hypervisor = self.context.hypervisor().await.map_err(|e| fault(&e))?;
        let spec = &entry.desired.spec;
        let (dest, base) = (self.paths.root_disk(spec.root_seq), self.paths.base(spec.root_seq));
        let half = dest.with_extension("new");
        let size_bytes = spec.size.disk_gib << 30;
        match (entry.desired.image.kind, entry.desired.image.part(ImagePartKind::Disk)) {
            (ImageKind::Disk, Some(part)) => {
                self.context.images.link_into(&part.sha256, &base).map_err(on_path(&base))?;
                let format = disk_format(entry.desired.image.format);
                hypervisor.img.create_overlay(&base, format, size_bytes, &half, owner).await?;
            }
            (ImageKind::Disk, None) => {
                return Err(StepError { reason: "the image has no disk".into(), fault: true });
            }
            (ImageKind::Kernel, _) => {
                hypervisor.img.create_blank(DiskFormat::Qcow2, size_bytes, &half, owner).await?;
            }
        }
        let dir = self.paths.dir.clone();
        let land = move || fs::rename(&half, &dest).and_then(|()| fs::File::open(dir)?.sync_all());
        blocking(land).await.map_err(on_path(&self.paths.dir))
    }

    /// User data is the tenant's secret: a drive that is replaced is erased.
    async fn forget_config_drives(&self) -> Outcome {
        let entries = fs::read_dir(&self.paths.dir).into_iter().flatten().flatten();
        let drives: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_str().is_some_and(layout::config_drive_name))
            .map(|entry| entry.path())
            .collect();
        for drive in drives {
            erase(&drive).await?;
        }
        Ok(())
    }

    async fn grow_disk(&self, entry: &Entry) -> Outcome {
        let hypervisor = self.context.hypervisor().await.map_err(|e| fault(&e))?;
        let Some(root_seq) = self.newest_disk() else { return Ok(()) };
        let size_bytes = entry.desired.spec.size.disk_gib << 30;
        Ok(hypervisor.img.resize(&self.paths.root_disk(root_seq), DiskFormat::Qcow2, size_bytes).await?)
    }

    fn newest_disk(&self) -> Option<u64> {
        let entries = fs::read_dir(&self.paths.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str().and_then(layout::root_seq_of)).max()
    }

    async fn launch(&mut self, entry: &Entry) -> Outcome {
        let hypervisor = self.context.hypervisor().await.map_err(|e| fault(&e))?;
        let group = self.context.cgroups.group(&self.instance_id.to_string());
        if !group.members().is_empty() {
            // The ledger knows of none, and yet one runs: a launch that was cut. It is taken over, never doubled.
            let found = adopt::running_qemus(&self.context.config.run_dir);
            if let Some(found) = found.into_iter().find(|found| found.instance_id == self.instance_id) {
                self.context
                    .found
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .insert(self.instance_id, found);
                self.adopt();
                return Ok(());
            }
            group.kill_all().await.map_err(|e| fault(&e))?;
        }
        let owner = self.ensure_user()?;
        let root_seq = self.newest_disk().unwrap_or(entry.desired.spec.root_seq);
        let sum = self.config_sum(&entry.desired);
        let cached = |kind| entry.desired.image.part(kind).map(|part| self.context.images.path(&part.sha256));
        let with = Circumstances {
            accel: hypervisor.accel.accel.clone(),
            root_seq,
            backed: self.paths.base(root_seq).exists(),
            direct: self.context.direct,
            config_drive: self.paths.config_drive(&sum),
            kernel: cached(ImagePartKind::Kernel),
            initrd: cached(ImagePartKind::Initrd),
        };
        let spec = vm_spec(entry, &self.paths, &with).map_err(|e| fault(&e))?;
        let (limits, procs) = (limits(&entry.desired, &with.accel), group.procs_files());
        let size = entry.desired.spec.size;
        let launched = Launched {
            version: entry.desired.version,
            boot_seq: entry.desired.spec.boot_seq,
            root_seq,
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            disk_gib: size.disk_gib,
            console_offset: self.console_end(),
            started_at: Timestamp::now(),
        };
        let (paths, note, ensure) = (self.paths.clone(), launched.clone(), group.clone());
        let room = move || -> Result<(), StepError> {
            make_run_dir(&paths.run_dir, owner).map_err(on_path(&paths.run_dir))?;
            ensure.ensure(&limits).map_err(|e| fault(&e))?;
            note.write(&paths.launch()).map_err(|e| fault(&e))
        };
        tokio::task::spawn_blocking(room).await.map_err(|e| passing(&e))??;
        let placement = Placement {
            uid: owner.uid,
            gid: owner.gid,
            supplementary_gids: hypervisor.gids.clone(),
            cgroup_procs: procs,
            pid_namespace: self.context.config.pid_namespace.clone(),
            stderr: self.paths.stderr(),
        };
        let process = match hypervisor.launcher.launch(&spec, &placement).await {
            Ok(process) => process,
            Err(error) => {
                // It may have come to life in the instant before.
                if let Err(error) = group.kill_all().await {
                    tracing::error!(instance_id = %self.instance_id, %error, "what a failed launch left runs on");
                }
                return Err(fault(&error));
            }
        };
        let learned_at = self.context.learned_at(self.instance_id, entry.desired.version);
        let first = entry.done.process.is_none() && self.effort.broken.is_none();
        let exec_ms = learned_at.filter(|_| first).and_then(|at| i64::try_from(at.elapsed().as_millis()).ok());
        if let Some(ms) = exec_ms {
            metrics::histogram!("iaas_instance_exec_seconds").record(ms as f64 / 1000.0);
        }
        metrics::counter!("iaas_instance_starts_total").increment(1);
        tracing::info!(instance_id = %self.instance_id, epoch = launched.version.epoch, generation = launched.version.generation,
            request_id = entry.desired.request_id, pid = process.pid, exec_ms, "QEMU started");
        self.live.unrecorded = Some((launched.running(process, exec_ms), launched.boot_seq));
        self.live.guest_up_at = None;
        self.effort.fresh = true;
        self.effort.ending = false;
        self.effort.asked = None;
        self.effort.broken = None;
        Ok(())
    }

    async fn attach(&mut self, entry: &Entry) -> Outcome {
        let Some(running) = &entry.done.process else { return Ok(()) };
        let ready = wait_ready(&running.process, &self.paths.qmp_socket(), &self.paths.stderr(), ATTACH_TIMEOUT).await;
        let qmp = match ready {
            Ok(qmp) => qmp,
            // The next look sees it, and settles what that was.
            Err(ReadyError::Ended { .. }) => return Ok(()),
            Err(error) => return Err(passing(&error)),
        };
        self.live.events = Some(qmp.events());
        self.live.qmp = Some(qmp);
        let log = self.context.console_log(self.instance_id);
        let hub = self.context.console(self.instance_id).unwrap_or_else(|| {
            let max = self.context.config.console_log_kib << 10;
            let hub = ConsoleHub::start(self.paths.serial_socket(), log.clone(), max);
            self.context.put_console(self.instance_id, hub.clone());
            hub
        });
        self.live.guest_up = Some(hub.guest_up());
        self.live.guest_up_at = self.live.guest_up_at.or(entry.done.guest_up_at);
        if !self.effort.fresh && self.live.guest_up_at.is_none() {
            // The line may have come while no agent was there.
            let offset = running.console_offset;
            let found = tokio::task::spawn_blocking(move || log.find_guest_up(offset)).await;
            if let Ok(Ok(Some(_))) = found {
                self.live.guest_up_at = Some(Timestamp::now());
            }
        }
        self.effort.fresh = false;
        Ok(())
    }

    async fn kill(&mut self, entry: &Entry, cause: Cause) -> Outcome {
        match cause {
            Cause::Broken(what) => self.effort.broken = Some(what.to_owned()),
            Cause::Off | Cause::Delete | Cause::Rebuild | Cause::Reboot | Cause::Resize | Cause::Ended => {
                self.effort.ending = true;
            }
        }
        if let Some(running) = &entry.done.process {
            // Asked first, so that it writes out what its block layer holds; a disk that is about to be destroyed needs none.
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

    /// Writes down what the end of the recorded QEMU was.
    async fn settle(&mut self, entry: &Entry, exit: Exit) -> Outcome {
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
            let text = self.crash_reason(exit);
            tracing::warn!(instance_id = %self.instance_id, crash_count = entry.done.crash_count + 1, reason = text, "QEMU ended");
            metrics::counter!("iaas_instance_crashes_total").increment(1);
            if quick_crashes >= CRASH_LOOP {
                let text = format!("it crashed {quick_crashes} times in a row soon after its start; last: {text}");
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
        self.effort = Effort { start_not_before, broken: reason, shown: self.effort.shown, ..Effort::default() };
        Ok(())
    }

    fn crash_reason(&self, exit: Exit) -> String {
        let what = match (&self.effort.broken, exit) {
            (Some(what), _) => what.clone(),
            (None, Exit::FailedStart) => "QEMU ended before it was ready".into(),
            (None, _) => "QEMU ended unexpectedly".into(),
        };
        let mut said = stderr_tail(&self.paths.stderr());
        if said.len() > STDERR_SHOWN {
            let from = (said.len() - STDERR_SHOWN..said.len()).find(|at| said.is_char_boundary(*at));
            said.replace_range(..from.unwrap_or(0), "…");
        }
        if said.is_empty() { what } else { format!("{what}; it said: {said}") }
    }

    async fn remove_leftovers(&mut self) -> Outcome {
        let uid = self.context.users.find(&self.paths);
        self.forget_config_drives().await?;
        let log = self.paths.console_log();
        // QEMU could write in that directory: only a plain file is opened.
        if fs::symlink_metadata(&log).is_ok_and(|meta| meta.is_file()) {
            erase(&log).await?;
        }
        for dir in [&self.paths.run_dir, &self.paths.dir] {
            match fs::remove_dir_all(dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(on_path(dir)(e)),
                Ok(()) | Err(_) => {}
            }
        }
        if let Some(uid) = uid {
            self.context.users.release(uid);
        }
        let group = self.context.cgroups.group(&self.instance_id.to_string());
        group.kill_all().await.map_err(|e| fault(&e))?;
        // A process that has ended stays in its group for a moment.
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

fn halt(entry: &Entry, cause: HaltCause, reason: String) -> Halt {
    let desired = &entry.desired;
    Halt { cause, boot_seq: desired.spec.boot_seq, version: desired.version, reason, at: Timestamp::now() }
}

/// Emptied: what is in it is of a QEMU that is gone.
fn make_run_dir(dir: &Path, owner: Owner) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    chown(dir, Some(owner.uid), Some(owner.gid))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::Interrupted.into()),
    }
}
