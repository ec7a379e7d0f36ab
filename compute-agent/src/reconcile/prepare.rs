//! The steps that make what a QEMU needs: the image, the disk, the config drive.

use super::{
    act::{StepError, StepResult, fault, on_path},
    launch::disk_format,
    layout,
    observe::guest_config,
    plan::Shown,
    task::Task,
};
use crate::{
    disk::{config_drive::write_config_drive, erase::erase, overlay::Owner},
    ledger::Entry,
    qemu::argv::DiskFormat,
};
use domain::{
    image::{ImageKind, ImagePartKind},
    instance::InstanceState,
};
use std::{fs, io, path::PathBuf, time::Duration};

/// Between two reports of a download's progress.
const PROGRESS: Duration = Duration::from_secs(2);

impl Task {
    /// Shared with all who need the same image; left at once when there is a newer word.
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
                    let observed = Shown {
                        state: self.attempts.shown.unwrap_or(InstanceState::Building),
                        step: match &self.attempts.fetched {
                            Some(percent) => format!("fetching the image ({percent})"),
                            None => "fetching the image".into(),
                        },
                        reason: String::new(),
                        converged: false,
                    };
                    self.report(entry, &observed);
                }
            }
        }
    }

    pub(super) fn ensure_user(&self) -> Result<Owner, StepError> {
        match self.context.users.ensure(&self.paths).map_err(on_path(&self.paths.dir))? {
            Some(uid) => Ok(Owner { uid, gid: uid }),
            None => Err(StepError {
                reason: "this host has no user id left for another instance (compute.uid_count)".into(),
                fault: true,
            }),
        }
    }

    /// The disk and the config drive side by side: each is a child process or a sync to disk.
    pub(super) async fn prepare(&mut self, entry: &Entry, disk: bool, config_drive: bool) -> StepResult {
        let owner = self.ensure_user()?;
        let sum = self.config_sum(&entry.desired);
        let making_disk = async { if disk { self.make_disk(entry, owner).await } else { Ok(()) } };
        let making_drive = async {
            if !config_drive {
                return Ok(());
            }
            self.erase_config_drives().await?;
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
    pub(super) async fn make_disk(&self, entry: &Entry, owner: Owner) -> StepResult {
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

    pub(super) async fn grow_disk(&self, entry: &Entry) -> StepResult {
        let hypervisor = self.context.hypervisor().await.map_err(|e| fault(&e))?;
        let Some(root_seq) = self.newest_disk() else { return Ok(()) };
        let size_bytes = entry.desired.spec.size.disk_gib << 30;
        Ok(hypervisor.img.resize(&self.paths.root_disk(root_seq), DiskFormat::Qcow2, size_bytes).await?)
    }

    pub(super) fn newest_disk(&self) -> Option<u64> {
        let entries = fs::read_dir(&self.paths.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str().and_then(layout::root_seq_of)).max()
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::Interrupted.into()),
    }
}
