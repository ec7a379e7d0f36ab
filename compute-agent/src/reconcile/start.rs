//! The steps that start a QEMU and connect to it.

use super::{
    launch::{LaunchParameters, limits, vm_spec},
    step_error::{StepError, StepResult, fault, on_path, transient},
    task::{Tap, Task},
};
use crate::{
    adopt,
    console::ConsoleHub,
    disk::overlay::Owner,
    host::cgroup::{Group, Limits},
    ledger::{Entry, Launched, Running},
    qemu::{
        argv::Accel,
        isolate::Isolation,
        launch::{Confinement, ReadyError, wait_ready},
        socket::QemuSocket,
        throttle::limit_disks,
    },
};
use domain::{Timestamp, image::ImagePartKind};
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::Path,
    time::Duration,
};

/// QEMU opens its sockets within milliseconds; a host that swaps may take much longer.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

impl Task {
    pub(super) async fn launch(&mut self, entry: &Entry) -> StepResult {
        let hypervisor = self.context.hypervisor().await.map_err(|e| fault(&e))?;
        let group = self.context.cgroups.group(&self.instance_id.to_string());
        if self.adopt_interrupted_launch(&group).await? {
            return Ok(());
        }
        self.take_threads(entry).await?;
        let owner = self.ensure_user()?;
        self.claim_disks(entry, owner).await?;
        let taps = self.taps_of(entry)?;
        let with = self.launch_parameters(entry, hypervisor.accel.accel.clone(), &taps);
        let spec = vm_spec(entry, &self.paths, &with).map_err(|e| fault(&e))?;
        let root_file = with.disks.iter().zip(&entry.desired.disks).find(|(_, disk)| disk.is_root());
        let launched = Launched {
            version: entry.desired.version,
            boot_seq: entry.desired.spec.boot_seq,
            root_seq: root_file.map_or(entry.desired.spec.root_seq, |((file, _), _)| file.seq),
            size: entry.desired.spec.size,
            console_offset: self.console_end(),
            started_at: Timestamp::now(),
            disks: with.disks.iter().map(|(file, _)| file.clone()).collect(),
        };
        self.prepare_launch(owner, &group, limits(&entry.desired, &with.accel), &launched).await?;
        let confinement = Confinement {
            uid: owner.uid,
            gid: owner.gid,
            supplementary_gids: hypervisor.gids.iter().copied().chain(self.image_groups(&with)).collect(),
            cgroup_procs: group.procs_files(),
            pid_namespace: self.context.config.pid_namespace.clone(),
            isolation: self.isolation(entry, &with),
            stderr: self.paths.stderr(),
            console_max_bytes: self.context.config.console_log_kib << 10,
        };
        let fds = taps.into_iter().map(|tap| tap.fd).collect();
        let process = match hypervisor.launcher.launch(&spec, &confinement, fds).await {
            Ok(process) => process,
            Err(error) => {
                // QEMU may have started in the instant before.
                if let Err(error) = group.kill_all().await {
                    tracing::error!(instance_id = %self.instance_id, %error, "what a failed launch left behind still runs");
                }
                return Err(fault(&error));
            }
        };
        let received_at = self.context.received_at(self.instance_id, entry.desired.version);
        let first = entry.done.process.is_none() && self.attempts.broken.is_none();
        let exec_ms = received_at.filter(|_| first).and_then(|at| i64::try_from(at.elapsed().as_millis()).ok());
        if let Some(ms) = exec_ms {
            metrics::histogram!("iaas_instance_exec_seconds").record(ms as f64 / 1000.0);
        }
        metrics::counter!("iaas_instance_starts_total").increment(1);
        tracing::info!(instance_id = %self.instance_id, epoch = launched.version.epoch, generation = launched.version.generation,
            request_id = entry.desired.request_id, pid = process.pid, exec_ms, "QEMU started");
        self.live.unrecorded = Some(Running { process, launched, exec_ms });
        self.live.guest_up_at = None;
        self.attempts.fresh = true;
        self.attempts.ending = false;
        self.attempts.powerdown = None;
        self.attempts.broken = None;
        Ok(())
    }

    /// The ledger knows of no QEMU. If one runs nevertheless, a launch was interrupted: its QEMU is taken over, never doubled. Returns
    /// whether there was one.
    async fn adopt_interrupted_launch(&mut self, group: &Group) -> Result<bool, StepError> {
        if group.members().is_empty() {
            return Ok(false);
        }
        let found = adopt::running_qemus(&self.context.config.run_dir);
        if let Some(found) = found.into_iter().find(|found| found.instance_id == self.instance_id) {
            self.context.found.lock().insert(self.instance_id, found);
            self.adopt();
            return Ok(true);
        }
        group.kill_all().await.map_err(|e| fault(&e))?;
        Ok(false)
    }

    fn launch_parameters(&mut self, entry: &Entry, accel: Accel, taps: &[Tap]) -> LaunchParameters {
        let config_drive = self.config_drive(&entry.desired);
        let cached = |kind| entry.desired.image.part(kind).map(|part| self.context.images.path(&part.sha256));
        let files = entry.desired.disks.iter().map(|disk| self.newest_file(entry, disk));
        LaunchParameters {
            accel,
            disks: files.map(|file| (file.clone(), self.paths.base(&file).exists())).collect(),
            // A page of the pool in a host's cache would outlive the host's claim to it.
            direct: self.context.direct || entry.desired.spec.uses_shared_pool(),
            config_drive,
            kernel: cached(ImagePartKind::Kernel),
            initrd: cached(ImagePartKind::Initrd),
            mtus: taps.iter().map(|tap| tap.mtu).collect(),
        }
    }

    /// The groups of the images that QEMU reads.
    fn image_groups(&self, with: &LaunchParameters) -> BTreeSet<u32> {
        let bases = with.disks.iter().filter(|(_, backed)| *backed).map(|(file, _)| self.paths.base(file));
        let read = with.kernel.iter().chain(&with.initrd).cloned().chain(bases);
        let groups = read.filter_map(|path| fs::metadata(path).ok().map(|meta| meta.gid()));
        groups.filter(|gid| *gid != 0).collect()
    }

    /// What QEMU sees of the agent's directories and of the shared pool: its own files, and the kernel that it boots.
    fn isolation(&self, entry: &Entry, with: &LaunchParameters) -> Option<Isolation> {
        let config = &self.context.config;
        let kernel = with.kernel.iter().chain(&with.initrd).cloned();
        let own = [self.paths.dir.clone(), self.paths.run_dir.clone()];
        let uses_pool = entry.desired.spec.uses_shared_pool();
        let in_pool = uses_pool.then(|| self.paths.disks_dir.clone());
        let pool = self.context.pool.as_ref().map(|pool| pool.dir().to_path_buf());
        // A pool that isn't there can't be hidden, and has nothing to hide.
        let pool = pool.filter(|dir| uses_pool || dir.is_dir());
        config.isolate.then(|| Isolation {
            hidden: [config.state_dir.clone(), config.run_dir.clone()].into_iter().chain(pool).collect(),
            visible: own.into_iter().chain(in_pool).chain(kernel).collect(),
        })
    }

    /// Makes the directory of the sockets and the control group, and writes what QEMU is about to be started as.
    async fn prepare_launch(&self, owner: Owner, group: &Group, limits: Limits, launched: &Launched) -> StepResult {
        let (paths, group, launched) = (self.paths.clone(), group.clone(), launched.clone());
        let prepare = move || -> StepResult {
            make_run_dir(&paths.run_dir, owner).map_err(on_path(&paths.run_dir))?;
            group.ensure(&limits).map_err(|e| fault(&e))?;
            launched.write(&paths.launch()).map_err(|e| fault(&e))
        };
        tokio::task::spawn_blocking(prepare).await.map_err(|e| transient(&e))?
    }

    pub(super) async fn attach(&mut self, entry: &Entry) -> StepResult {
        let Some(running) = &entry.done.process else { return Ok(()) };
        let Some(uid) = self.context.users.find(&self.paths) else {
            return Err(StepError { reason: "the instance's user isn't known".into(), fault: true });
        };
        let socket = |path| QemuSocket::new(path, uid);
        let monitor = socket(self.paths.qmp_socket());
        let ready = wait_ready(&running.process, &monitor, &self.paths.stderr(), ATTACH_TIMEOUT).await;
        let qmp = match ready {
            Ok(qmp) => qmp,
            // The next observation shows that it ended, and how it ended is settled then.
            Err(ReadyError::Ended { .. }) => return Ok(()),
            Err(error) => return Err(transient(&error)),
        };
        self.bind_threads(entry, running.process.pid)?;
        match limit_disks(&qmp, self.context.config.disk_limits()).await {
            Ok(_) => {}
            // A guest without limits harms its neighbours less than one that is ended harms its owner.
            Err(error) if error.refused() => {
                tracing::error!(instance_id = %self.instance_id, %error, "QEMU refuses the limits of its disks: they are without any");
            }
            Err(error) => return Err(transient(&error)),
        }
        self.live.events = Some(qmp.events());
        self.live.qmp = Some(qmp);
        let log = self.context.console_log(self.instance_id);
        let hub = self.context.console(self.instance_id).unwrap_or_else(|| {
            let max = self.context.config.console_log_kib << 10;
            let hub = ConsoleHub::start(socket(self.paths.serial_socket()), log.clone(), max);
            self.context.put_console(self.instance_id, hub.clone());
            hub
        });
        self.live.guest_up = Some(hub.guest_up());
        self.live.guest_up_at = self.live.guest_up_at.or(entry.done.guest_up_at);
        if !self.attempts.fresh && self.live.guest_up_at.is_none() {
            // The line may have come while no agent was there.
            let offset = running.launched.console_offset;
            let found = tokio::task::spawn_blocking(move || log.find_guest_up(offset)).await;
            if let Ok(Ok(Some(_))) = found {
                self.live.guest_up_at = Some(Timestamp::now());
            }
        }
        self.attempts.fresh = false;
        Ok(())
    }
}

/// Makes the directory, emptied: what was in it belongs to a QEMU that is gone.
fn make_run_dir(dir: &Path, owner: Owner) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    chown(dir, Some(owner.uid), Some(owner.gid))
}
