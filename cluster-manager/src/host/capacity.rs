//! What the cloud still has capacity for.

use crate::{
    manager::Manager,
    scheduler::capacity::{host_capacities, zone_capacities},
};
use domain::{
    Problem,
    capacity::ZoneCapacity,
    flavor::{Pinning, Size},
};

/// How many more instances of each size every zone takes.
pub async fn read_capacity(manager: &Manager, sizes: Vec<(Size, Pinning)>) -> Result<Vec<ZoneCapacity>, Problem> {
    let hosts = host_capacities(&manager.inventory());
    // Many hosts times many sizes: not on a thread that answers others.
    tokio::task::spawn_blocking(move || zone_capacities(&hosts, &sizes)).await.map_err(|error| {
        tracing::error!(%error, "the computation of free capacity died");
        Problem::internal()
    })
}
