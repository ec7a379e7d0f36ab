//! What the cloud still has room for.

use crate::{
    manager::Manager,
    scheduler::capacity::{capacity, rooms},
};
use domain::{
    Problem,
    flavor::{Pinning, Size},
};
use proto::{cluster::v1 as pb, convert::size_from_pb};
use service_kit::context::CallContext;

const SIZES_MAX: usize = 1000;

pub async fn read(
    manager: &Manager,
    _: &CallContext,
    request: pb::ReadCapacityRequest,
) -> Result<pb::ReadCapacityResponse, Problem> {
    if request.sizes.len() > SIZES_MAX {
        return Err(Problem::invalid("sizes", format!("at most {SIZES_MAX}")));
    }
    let pinnings =
        request.pinnings.iter().map(|text| Pinning::parse(text)).chain(std::iter::repeat(Some(Pinning::None)));
    let asked = request.sizes.iter().zip(pinnings);
    let sizes: Vec<(Size, Pinning)> = asked
        .map(|(size, pinning)| Some((size_from_pb(*size), pinning?)))
        .collect::<Option<_>>()
        .ok_or_else(|| Problem::invalid("pinnings", "none or numa is expected"))?;
    let rooms = rooms(&manager.inventory());
    // Many hosts times many sizes: not on a thread that answers others.
    let zones = tokio::task::spawn_blocking(move || capacity(&rooms, &sizes)).await;
    let zones = zones.map_err(|error| {
        tracing::error!(%error, "what fits can't be counted");
        Problem::internal()
    })?;
    let zones_json = serde_json::to_string(&zones).map_err(|error| {
        tracing::error!(%error, "what fits can't be said");
        Problem::internal()
    })?;
    Ok(pb::ReadCapacityResponse { zones_json })
}
