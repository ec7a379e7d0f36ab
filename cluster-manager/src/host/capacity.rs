//! What the cloud still has capacity for.

use crate::{
    manager::Manager,
    scheduler::capacity::{capacity, rooms},
};
use domain::{
    Problem,
    capacity::ZoneCapacity,
    flavor::{Pinning, Size},
};

/// How many more instances of each size every zone takes.
pub async fn read(manager: &Manager, sizes: Vec<(Size, Pinning)>) -> Result<Vec<ZoneCapacity>, Problem> {
    let rooms = rooms(&manager.inventory());
    // Many hosts times many sizes: not on a thread that answers others.
    tokio::task::spawn_blocking(move || capacity(&rooms, &sizes)).await.map_err(|error| {
        tracing::error!(%error, "the computation of free capacity died");
        Problem::internal()
    })
}
