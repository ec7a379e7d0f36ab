//! What uploads in progress have reserved of their projects' quota for images.
//!
//! **The problem.** The quota must refuse an upload before its bytes are on the disk, and the size is known for certain only afterwards. So an
//! upload reserves what was announced (or, step by step, what came), and the part that is added takes the reservation's place in the same
//! transaction. Whatever else becomes of the upload releases it: a refusal, a caller that goes away, a kill in the middle.
//!
//! **What holds.**
//! 1. `image.reserved_gib` is what all uploads of the image have reserved, and `storage_usage.image_gib` the sum of it and of what images take.
//!    Both change in one transaction.
//! 2. A reservation is released once. When the image is gone, its deletion has released it.
//! 3. What no upload of this process holds is a leftover: of a process that was killed, or of a release that failed. [`sweep`] releases it. The
//!    lock decides between a sweep and an upload that begins: what is counted in `uploads` is never swept.
//!
//! **Rejected.** A row per upload: it is a second truth beside the image's row, which a deletion would have to find as well.
//!
//! [`sweep`]: ImageReservations::sweep

use crate::plan::gib;
use domain::{ImageId, Problem, ProjectId, image::Image, quota::QuotaAmounts};
use operation::{commit_problem, quota_refusal};
use std::{collections::HashMap, sync::Arc};
use store::{CommitError, Guard, ImageReserve, ReadError, StorageUsageAdd, Store, Unit};
use tokio::sync::RwLock;

/// Why leftovers stay for now.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    #[error("what uploads have reserved can't be read")]
    Read(#[source] ReadError),
    #[error("what uploads have reserved can't be released")]
    Commit(#[source] CommitError),
}

/// All reservations of this process. Clones share them.
#[derive(Clone)]
pub struct ImageReservations {
    store: Store,
    /// How many uploads each image has. Uploads begin and end with the lock shared, and a sweep holds it alone.
    uploads: Arc<RwLock<parking_lot::Mutex<HashMap<ImageId, usize>>>>,
}

impl ImageReservations {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, uploads: Arc::default() }
    }

    /// An upload begins; nothing is reserved yet.
    pub async fn begin(&self, image: &Image) -> ImageReservation {
        *self.uploads.read().await.lock().entry(image.id).or_insert(0) += 1;
        ImageReservation { all: self.clone(), image_id: image.id, project_id: image.project_id, gib: 0, ended: false }
    }

    async fn end(&self, image_id: ImageId) {
        let uploads = self.uploads.read().await;
        let mut uploads = uploads.lock();
        if let Some(count) = uploads.get_mut(&image_id) {
            *count -= 1;
            if *count == 0 {
                uploads.remove(&image_id);
            }
        }
    }

    /// Releases what no upload holds. The number of images.
    pub async fn sweep(&self) -> Result<u64, LeftoverError> {
        let mut swept = 0;
        for found in self.store.image_reservation_list().await.map_err(LeftoverError::Read)? {
            let uploads = self.uploads.write().await;
            if uploads.lock().contains_key(&found.id) {
                continue;
            }
            // Read again, under the lock.
            let row = self.store.image_reservation_find(found.id).await.map_err(LeftoverError::Read)?;
            let Some(row) = row.filter(|row| row.reserved_gib > 0) else { continue };
            match self.store.commit(reservation(row.id, row.project_id, -gib(row.reserved_gib))).await {
                Ok(()) => {
                    tracing::info!(image_id = %row.id, gib = row.reserved_gib, "released what a lost upload had reserved");
                    swept += 1;
                }
                // The image was deleted meanwhile.
                Err(CommitError::Guard(Guard::ImageReservation)) => {}
                Err(error) => return Err(LeftoverError::Commit(error)),
            }
        }
        Ok(swept)
    }
}

/// Takes (or with a negative amount releases) it of the image's row and of the project's quota.
fn reservation(image_id: ImageId, project_id: ProjectId, gib: i64) -> Unit {
    Unit::new().op(ImageReserve { id: image_id, gib }).op(StorageUsageAdd::image(project_id, 0, gib))
}

/// What was given to a unit that adds a part.
pub struct ExchangedGib(u64);

/// What one upload has reserved. Dropped, it is released.
pub struct ImageReservation {
    all: ImageReservations,
    image_id: ImageId,
    project_id: ProjectId,
    gib: u64,
    ended: bool,
}

impl ImageReservation {
    /// Reserves more until it is `gib`. It never falls.
    pub async fn raise_to(&mut self, gib_in_all: u64) -> Result<(), Problem> {
        let Some(more) = gib_in_all.checked_sub(self.gib).filter(|more| *more > 0) else { return Ok(()) };
        let more = gib(more);
        match self.all.store.commit(reservation(self.image_id, self.project_id, more)).await {
            Ok(()) => {
                self.gib = gib_in_all;
                Ok(())
            }
            Err(CommitError::Guard(Guard::StorageQuota)) => {
                let requested = QuotaAmounts { image_gib: more, ..QuotaAmounts::NONE };
                Err(quota_refusal(&self.all.store, self.project_id, &requested).await)
            }
            Err(CommitError::Guard(Guard::ImageReservation)) => Err(Problem::invalid_state(
                "the image was completed or deleted meanwhile; nothing of the upload was kept",
            )),
            Err(error) => Err(commit_problem(error)),
        }
    }

    /// Turns it into what a part takes, in the unit that adds the part, which grows the image by `grown_gib`. It is out of this hand then: when
    /// the unit fails for certain, [`Self::restore`] takes it back.
    #[must_use]
    pub fn exchange(&mut self, unit: &mut Unit, grown_gib: u64) -> ExchangedGib {
        unit.push(ImageReserve { id: self.image_id, gib: -gib(self.gib) });
        unit.push(StorageUsageAdd::image(self.project_id, 0, gib(grown_gib) - gib(self.gib)));
        ExchangedGib(std::mem::take(&mut self.gib))
    }

    pub fn restore(&mut self, exchanged: ExchangedGib) {
        self.gib += exchanged.0;
    }

    /// The upload is over.
    pub async fn release(mut self) {
        self.release_now().await;
    }

    async fn release_now(&mut self) {
        self.ended = true;
        let released = std::mem::take(&mut self.gib);
        if released > 0 {
            match self.all.store.commit(reservation(self.image_id, self.project_id, -gib(released))).await {
                // With the image its reservations went.
                Ok(()) | Err(CommitError::Guard(Guard::ImageReservation)) => {}
                Err(error) => {
                    tracing::warn!(%error, image_id = %self.image_id, "a sweep releases what an upload had reserved")
                }
            }
        }
        self.all.end(self.image_id).await;
    }
}

impl Drop for ImageReservation {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The caller went away. Outside a runtime the process ends, and the next one's sweep does it.
        let mut rest = Self {
            all: self.all.clone(),
            image_id: self.image_id,
            project_id: self.project_id,
            gib: self.gib,
            ended: true,
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { rest.release_now().await });
        }
    }
}
