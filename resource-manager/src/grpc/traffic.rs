//! What passed through a port and what was dropped at it, as its host's network-agent last said.

use crate::{Manager, network::topology::bound_to};
use domain::{ErrorKind, PortId, Problem};
use proto::{convert::parse, resource::v1 as pb};

pub(super) fn read(manager: &Manager, request: &pb::ReadTrafficRequest) -> Result<pb::ReadTrafficResponse, Problem> {
    let id: PortId = parse("port_id", &request.port_id)?;
    let host_id = {
        let topology = manager.topology();
        let port = topology.port(id).ok_or_else(|| Problem::not_found("port", id))?;
        bound_to(port)
    };
    let host_id = host_id.ok_or_else(|| {
        Problem::new(ErrorKind::InvalidState, "port_not_bound", format!("the port {id} is on no host: nothing passes"))
            .with_hint("give it to an instance that runs")
    })?;
    let stream = manager.streams.find(host_id).ok_or_else(|| {
        Problem::new(
            ErrorKind::Unavailable,
            "host_disconnected",
            "the port's host isn't connected: what it counts can't be read now",
        )
    })?;
    let statistics = stream.statistics.lock();
    let age_ms = u64::try_from(statistics.at.elapsed().as_millis()).unwrap_or(u64::MAX);
    // Agents report nothing of a port that nothing has passed.
    let counted = statistics.traffic.get(&id).cloned().unwrap_or_default();
    Ok(pb::ReadTrafficResponse {
        age_ms,
        rx_bytes: counted.rx_bytes,
        rx_packets: counted.rx_packets,
        tx_bytes: counted.tx_bytes,
        tx_packets: counted.tx_packets,
        drops: counted.drops.into_iter().map(|drop| (drop.reason, drop.packets)).collect(),
    })
}
