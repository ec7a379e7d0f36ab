//! Ports that are reserved for an instance that isn't committed yet. All or none; what stands already is a repeat.

use super::{Decided, Draft, Plan, port::Birth, words::port_named};
use crate::network::topology::Learned;
use domain::{
    ErrorKind, InstanceId, NetworkId, PortId, Problem, ProjectId, SecurityGroupId, Timestamp, Violations,
    network::{FixedIpRequest, MacAddr, Port, PortOwner, PortState},
    validate,
};
use store::PortTake;

#[derive(Debug, Clone)]
pub struct ReserveAsked {
    pub port_id: PortId,
    pub instance_id: InstanceId,
    pub project_id: ProjectId,
    /// The instance's name.
    pub hostname: String,
    pub of: ReserveOf,
}

#[derive(Debug, Clone)]
pub enum ReserveOf {
    Existing,
    New {
        network_id: NetworkId,
        fixed_ips: Vec<FixedIpRequest>,
        /// None: the project's default group.
        security_group_ids: Option<Vec<SecurityGroupId>>,
        mac: Option<MacAddr>,
    },
}

/// The ports, in the order that was asked.
pub type Reserved = Vec<Port>;

fn not_this_one(port: &Port, why: &str) -> Problem {
    Problem::new(ErrorKind::InvalidState, "port_attached", format!("the {} {why}", port_named(port)))
        .with_hint("choose another port, or detach it there first")
}

impl Draft<'_> {
    pub fn reserve(mut self, asked: &[ReserveAsked], expires_at: Timestamp) -> Decided<(Plan, Reserved)> {
        let mut reserved = Vec::with_capacity(asked.len());
        for one in asked {
            match self.reserve_one(one, expires_at) {
                Ok(port) => reserved.push(port),
                Err(problem) => {
                    self.abandon();
                    return Err(problem);
                }
            }
        }
        Ok((self.plan, reserved))
    }

    fn reserve_one(&mut self, asked: &ReserveAsked, expires_at: Timestamp) -> Decided<Port> {
        self.ask.project_id = Some(asked.project_id);
        // Of this very call, named twice.
        let twice = self.plan.learned.iter().find_map(|learned| match learned {
            Learned::Port(port) if port.id == asked.port_id => Some(port.clone()),
            _ => None,
        });
        if let Some(port) = twice {
            return Ok(port);
        }
        match &asked.of {
            ReserveOf::Existing => self.take_port(asked, expires_at),
            ReserveOf::New { network_id, fixed_ips, security_group_ids, mac } => {
                self.plan.seen.push(crate::network::topology::Key::Port(asked.port_id));
                if let Some(there) = self.topology.port(asked.port_id) {
                    return repeated(there, asked, *network_id);
                }
                let (ips, groups) = (fixed_ips.len(), security_group_ids.as_ref().map_or(0, Vec::len));
                let mut violations = Violations::default();
                validate::network::new_port(&mut violations, ips, groups, *mac);
                violations.finish()?;
                let mine = |network: &&domain::network::Network| network.project_id == asked.project_id;
                let network = self.topology.network(*network_id).filter(mine).cloned();
                let network = network.ok_or_else(|| Problem::not_found("network", network_id))?;
                let group_ids = match security_group_ids {
                    Some(asked) => self.groups(asked)?,
                    None => vec![self.default_group(asked.project_id)?],
                };
                let mac = self.mac(*mac)?;
                let fixed_ips = self.fixed_ips(&network, fixed_ips)?;
                let birth = Birth {
                    name: None,
                    hostname: asked.hostname.to_lowercase(),
                    instance_id: Some(asked.instance_id),
                    expires_at: Some(expires_at),
                };
                let port = self.new_port(asked.port_id, &network, mac, fixed_ips, group_ids, birth);
                self.put_new_port(&port);
                Ok(port)
            }
        }
    }

    fn take_port(&mut self, asked: &ReserveAsked, expires_at: Timestamp) -> Decided<Port> {
        let port = self.port(asked.port_id)?;
        if port.state != PortState::Active {
            return Err(not_this_one(&port, "goes with its instance"));
        }
        match port.owner {
            Some(owner) if owner.instance_id == asked.instance_id => Ok(port),
            Some(_) => Err(not_this_one(&port, "belongs to another instance")),
            None => {
                let hostname = asked.hostname.to_lowercase();
                self.op(PortTake {
                    id: port.id,
                    expected_generation: port.generation,
                    instance_id: asked.instance_id,
                    hostname: hostname.clone(),
                    expires_at,
                });
                let taken = Port {
                    owner: Some(PortOwner { instance_id: asked.instance_id, with_instance: false }),
                    hostname,
                    expires_at: Some(expires_at),
                    generation: port.generation + 1,
                    ..port
                };
                self.learn(Learned::Port(taken.clone()));
                Ok(taken)
            }
        }
    }
}

/// A port of that id stands: it is what was asked, or something else.
fn repeated(there: &Port, asked: &ReserveAsked, network_id: NetworkId) -> Decided<Port> {
    let same = there.project_id == asked.project_id
        && there.network_id == network_id
        && there.owner == Some(PortOwner { instance_id: asked.instance_id, with_instance: true });
    match there.state {
        PortState::Reserved | PortState::Active if same => Ok(there.clone()),
        PortState::Reserved | PortState::Active => {
            Err(not_this_one(&Port { hostname: String::new(), ..there.clone() }, "is reserved for something else"))
        }
        PortState::Releasing => Err(not_this_one(there, "goes with its instance")),
    }
}
