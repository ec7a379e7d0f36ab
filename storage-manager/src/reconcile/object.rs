//! Bytes that no image names.

use super::SweepError;
use crate::object::ObjectDir;
use std::time::SystemTime;
use store::Store;

/// Removes objects that were published before `cutoff` and that no row names. The number that went.
///
/// The order matters: objects are listed before the rows are read, so a row that commits in between is seen. One whose row commits later
/// was published within the grace, and [`ObjectDir::remove_older`] looks at that again under its lock.
pub async fn sweep_objects(store: &Store, objects: &ObjectDir, cutoff: SystemTime) -> Result<u64, SweepError> {
    let listed = objects.list().await.map_err(SweepError::Object)?;
    let named = store.image_hashes().await.map_err(SweepError::Read)?;
    metrics::gauge!("iaas_storage_objects").set(listed.len() as f64);
    metrics::gauge!("iaas_storage_object_bytes").set(listed.iter().map(|o| o.size_bytes).sum::<u64>() as f64);
    let mut gone = 0;
    for object in listed.iter().filter(|o| o.published_at < cutoff && !named.contains(&o.sha256)) {
        if objects.remove_older(&object.sha256, cutoff).await.map_err(SweepError::Object)? {
            tracing::info!(sha256 = object.sha256, bytes = object.size_bytes, "removed an object that no image names");
            gone += 1;
        }
    }
    Ok(gone)
}
