//! The steps that make what a QEMU needs: the cached image, the disks, the config drive.

use super::{
    layout::{self, DiskFile},
    observe::guest_config,
    step::Shown,
    step_error::{StepError, StepResult, fault, on_path, transient},
    task::Task,
};
use crate::{
    disk::{
        config_drive::write_config_drive,
        erase::erase,
        overlay::Owner,
        pool::{Holder, PoolError, SharedPool},
    },
    ledger::{Disk, Entry},
};
use domain::{
    image::{DiskFormat, ImageKind, ImagePartKind},
    instance::InstanceState,
};
use service_kit::error_chain;
use std::{fs, io, path::PathBuf, time::Duration};

/// The time between two reports of a download's progress.
const PROGRESS: Duration = Duration::from_secs(2);

impl Task {
    /// Fetches all parts of the image. The download is shared with every instance that needs the same image. The step ends at once
    /// when a newer command arrives.
    pub(super) async fn fetch_image(&mut self, entry: &Entry) -> StepResult {
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
                    self.attempts.fetched = Some(percent).filter(|p| !p.is_empty());
                    let shown = Shown {
                        state: self.attempts.shown.unwrap_or(InstanceState::Building),
                        step: match &self.attempts.fetched {
                            Some(percent) => format!("fetching the image ({percent})"),
                            None => "fetching the image".into(),
                        },
                        reason: String::new(),
                        converged: false,
                    };
                    self.report(entry, &shown);
                }
            }
        }
    }

    pub(super) fn ensure_user(&self) -> Result<Owner, StepError> {
        match self.context.users.ensure(&self.paths).map_err(on_path(&self.paths.dir))? {
            Some(uid) => Ok(Owner { uid, gid: uid }),
            None => Err(StepError {
                reason: "this host has no free user id for another instance (compute.uid_count)".into(),
                fault: true,
            }),
        }
    }

    /// Makes the disks and the config drive at the same time, because each waits for a child process or for the disk.
    pub(super) async fn prepare(&mut self, entry: &Entry, missing: &[DiskFile], config_drive: bool) -> StepResult {
        let owner = self.ensure_user()?;
        let dest = self.config_drive(&entry.desired);
        let desired = entry.desired.disks.iter().map(|disk| (disk, DiskFile::of(disk, &entry.desired.spec)));
        self.claim_disks(entry, owner).await?;
        let making = desired
            .filter(|(_, file)| missing.contains(file))
            .map(|(disk, file)| self.make_disk(entry, disk, file, owner));
        let making_disks = futures::future::try_join_all(making);
        let making_drive = async {
            if !config_drive {
                return Ok(());
            }
            self.erase_config_drives().await?;
            // The drive has another name until it is complete.
            let half = dest.with_extension("new");
            write_config_drive(&guest_config(&entry.desired), &half, owner).await.map_err(|e| fault(&e))?;
            fs::rename(&half, &dest).map_err(on_path(&dest))
        };
        tokio::try_join!(making_disks, making_drive)?;
        let root_seq = entry.desired.spec.root_seq;
        // The start that follows would write it as well, but there may be none.
        if entry.done.root_seq < root_seq {
            self.context.ledger.record(self.instance_id, |done| done.root_seq = root_seq).await?;
        }
        Ok(())
    }

    /// Makes the root disk on the image, and any other disk blank. A disk has another name until it is complete, so that a file with a
    /// disk's name is always complete.
    async fn make_disk(&self, entry: &Entry, disk: &Disk, file: DiskFile, owner: Owner) -> StepResult {
        let hypervisor = self.context.hypervisor().await.map_err(|e| fault(&e))?;
        let dest = self.paths.disk(&file);
        let half = dest.with_extension("new");
        let size_bytes = entry.desired.disk_size_gib(disk) << 30;
        let image = &entry.desired.image;
        if disk.is_root() && image.kind == ImageKind::Disk {
            let Some(part) = image.part(ImagePartKind::Disk) else {
                return Err(StepError { reason: "the image has no disk".into(), fault: true });
            };
            let base = self.paths.base(&file);
            let named = match self.pool_of(entry)? {
                None => {
                    self.context.images.link_into(&part.sha256, &base).map_err(on_path(&base))?;
                    base.clone()
                }
                Some(pool) => {
                    let (cached, sha256, to) =
                        (self.context.images.path(&part.sha256), part.sha256.clone(), base.clone());
                    blocking(move || pool.link_image(&cached, &sha256, &to)).await.map_err(on_path(&base))?;
                    // Hosts may mount the pool at different places.
                    base.file_name().map(PathBuf::from).unwrap_or_default()
                }
            };
            hypervisor.img.create_overlay(&named, image.format, size_bytes, &half, owner).await?;
        } else {
            hypervisor.img.create_blank(DiskFormat::Qcow2, size_bytes, &half, owner).await?;
        }
        let dir = self.paths.disks_dir.clone();
        let publish = move || fs::rename(&half, &dest).and_then(|()| fs::File::open(dir)?.sync_all());
        blocking(publish).await.map_err(on_path(&self.paths.disks_dir))
    }

    /// User data is the tenant's secret, so a drive that is replaced is erased.
    pub(super) async fn erase_config_drives(&self) -> StepResult {
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

    /// The shared pool, if the instance's disks are in it.
    fn pool_of(&self, entry: &Entry) -> Result<Option<SharedPool>, StepError> {
        if !entry.desired.spec.uses_shared_pool() {
            return Ok(None);
        }
        self.context.pool.clone().map(Some).ok_or_else(|| fault(&PoolError::NotConfigured))
    }

    /// Takes the instance's disks in the shared pool for this host, if that is where they are.
    pub(super) async fn claim_disks(&self, entry: &Entry, owner: Owner) -> StepResult {
        let Some(pool) = self.pool_of(entry)? else { return Ok(()) };
        let host_id = self.context.ledger.host_id();
        let host_name = self.context.host_name();
        let us = Holder { epoch: entry.desired.version.epoch, host_id, host_name, before: String::new() };
        let files: Vec<PathBuf> = fs::read_dir(&self.paths.disks_dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|file| file.file_name().to_str().and_then(DiskFile::parse).is_some())
            .map(|file| file.path())
            .collect();
        let instance_id = self.instance_id;
        let claimed = tokio::task::spawn_blocking(move || pool.claim(instance_id, us, &files, owner.uid)).await;
        claimed.map_err(|e| transient(&e))?.map_err(|e| StepError { reason: error_chain(&e), fault: e.fault() })
    }

    pub(super) async fn grow_disk(&self, entry: &Entry, file: &DiskFile, size_gib: u64) -> StepResult {
        let hypervisor = self.context.hypervisor().await.map_err(|e| fault(&e))?;
        let (base, owner) = (self.paths.base(file), self.ensure_user()?);
        self.claim_disks(entry, owner).await?;
        let backing = base.exists().then_some(base.as_path());
        Ok(hypervisor.img.resize(&self.paths.disk(file), backing, size_gib << 30, owner).await?)
    }

    /// The newest file of a disk's role, or the one that the disk must have where none exists.
    pub(super) fn newest_file(&self, entry: &Entry, disk: &Disk) -> DiskFile {
        let files = fs::read_dir(&self.paths.disks_dir).into_iter().flatten().flatten();
        let parsed = files.filter_map(|file| DiskFile::parse(file.file_name().to_str()?));
        let newest = parsed.filter(|file| file.role == disk.role).max();
        newest.unwrap_or_else(|| DiskFile::of(disk, &entry.desired.spec))
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::Interrupted.into()),
    }
}
