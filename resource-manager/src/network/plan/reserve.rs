//! Ports that are reserved for an instance that isn't committed yet. All or none; what stands already is a repeat.

use super::{Decision, Plan, Planner, port::PortOrigin};
use crate::network::topology::{NamedRow as _, RowChange};
use domain::{
    ErrorKind, NetworkId, Problem, Timestamp,
    instance::{PortRequest, PortReservation},
    network::{Network, Port, PortOwner, PortState},
    validate,
};
use store::PortTake;

fn port_attached(port: &Port, why: &str) -> Problem {
    Problem::new(ErrorKind::InvalidState, "port_attached", format!("the {} {why}", port.describe()))
        .with_hint("choose another port, or detach it there first")
}

impl Planner<'_> {
    /// The ports, in the order of the requests.
    pub fn reserve(self, requests: &[PortReservation], ttl_secs: u32) -> Decision<(Plan, Vec<Port>)> {
        let expires_at = self.context.now.plus_secs(u64::from(ttl_secs));
        self.finish_with(|planner| requests.iter().map(|request| planner.reserve_port(request, expires_at)).collect())
    }

    fn reserve_port(&mut self, request: &PortReservation, expires_at: Timestamp) -> Decision<Port> {
        self.context.project_id = Some(request.project_id);
        // This very call may name a port twice.
        let twice = self.plan.changes.iter().find_map(|change| {
            let RowChange::Port(port) = change else { return None };
            (port.id == request.nic.port_id).then(|| port.clone())
        });
        if let Some(port) = twice {
            return Ok(port);
        }
        let PortRequest::New { network_id, fixed_ips, security_group_ids, mac } = &request.nic.port else {
            return self.take_port(request, expires_at);
        };
        self.reads::<Port>(request.nic.port_id);
        if let Some(existing) = self.topology.port(request.nic.port_id) {
            return repeated(existing, request, *network_id);
        }
        let group_count = security_group_ids.as_ref().map_or(0, Vec::len);
        validate::check(|violations| validate::network::new_port(violations, fixed_ips.len(), group_count, *mac))?;
        let network: Network = self.fetch(*network_id)?;
        let group_ids = self.groups_or_default(request.project_id, security_group_ids.as_deref())?;
        let mac = self.mac(*mac)?;
        let fixed_ips = self.fixed_ips(&network, fixed_ips)?;
        let origin = PortOrigin {
            name: None,
            hostname: request.hostname.to_lowercase(),
            instance_id: Some(request.instance_id),
            expires_at: Some(expires_at),
        };
        let port = self.new_port(request.nic.port_id, &network, mac, fixed_ips, group_ids, origin);
        self.insert_port(&port);
        Ok(port)
    }

    fn take_port(&mut self, request: &PortReservation, expires_at: Timestamp) -> Decision<Port> {
        let port: Port = self.fetch(request.nic.port_id)?;
        if port.state != PortState::Active {
            return Err(port_attached(&port, "goes with its instance"));
        }
        match port.owner {
            Some(owner) if owner.instance_id == request.instance_id => Ok(port),
            Some(_) => Err(port_attached(&port, "belongs to another instance")),
            None => {
                let hostname = request.hostname.to_lowercase();
                self.op(PortTake {
                    id: port.id,
                    expected_generation: port.generation,
                    instance_id: request.instance_id,
                    hostname: hostname.clone(),
                    expires_at,
                });
                let taken = Port {
                    owner: Some(PortOwner { instance_id: request.instance_id, with_instance: false }),
                    hostname,
                    expires_at: Some(expires_at),
                    generation: port.generation + 1,
                    ..port
                };
                self.put(taken.clone());
                Ok(taken)
            }
        }
    }
}

/// A port of that id stands: it is what was requested, or something else.
fn repeated(existing: &Port, request: &PortReservation, network_id: NetworkId) -> Decision<Port> {
    let same = existing.project_id == request.project_id
        && existing.network_id == network_id
        && existing.owner == Some(PortOwner { instance_id: request.instance_id, with_instance: true });
    match existing.state {
        PortState::Reserved | PortState::Active if same => Ok(existing.clone()),
        PortState::Reserved | PortState::Active => {
            let unnamed = Port { hostname: String::new(), ..existing.clone() };
            Err(port_attached(&unnamed, "is reserved for something else"))
        }
        PortState::Releasing => Err(port_attached(existing, "goes with its instance")),
    }
}
