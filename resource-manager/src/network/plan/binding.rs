//! Ports of instances that are committed: bound to a host, released when the instance's deletion was accepted, forgotten when it is proven
//! gone.
//!
//! A port's epoch rises exactly when it is given to another instance, host or epoch of its instance: then the host that had it must not
//! answer for its addresses any more. What the metadata service says is no such thing: it raises the generation alone.

use super::{Decided, Draft, Plan};
use crate::network::topology::{Key, Learned};
use domain::{
    ErrorKind, HostId, InstanceId, PortId, Problem,
    network::{Port, PortState, PortStatus},
    quota::QuotaAmounts,
};
use store::{PortBind, PortDetach, PortRelease};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindAsked {
    pub port_id: PortId,
    pub instance_id: InstanceId,
    pub host_id: HostId,
    pub instance_epoch: i64,
    pub metadata_digest: String,
    pub hostname: String,
}

/// What binding a port comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Under this epoch.
    Bound { epoch: i64 },
    /// The reservation is gone: reserve anew.
    Expired,
}

impl Draft<'_> {
    /// Each by itself: the outcomes in order.
    pub fn bind(mut self, asked: &[BindAsked]) -> Decided<(Plan, Vec<Binding>)> {
        let outcomes = asked.iter().map(|one| self.bind_one(one)).collect::<Decided<Vec<Binding>>>()?;
        Ok((self.plan, outcomes))
    }

    fn bind_one(&mut self, asked: &BindAsked) -> Decided<Binding> {
        self.plan.seen.push(Key::Port(asked.port_id));
        let Some(was) = self.topology.port(asked.port_id) else { return Ok(Binding::Expired) };
        if was.state == PortState::Releasing || was.owner.is_none_or(|owner| owner.instance_id != asked.instance_id) {
            return Ok(Binding::Expired);
        }
        if asked.instance_epoch < was.instance_epoch {
            return Err(Problem::new(
                ErrorKind::StaleGeneration,
                "stale_epoch",
                format!(
                    "the port {} is bound under epoch {} of its instance: {} is over",
                    was.id, was.instance_epoch, asked.instance_epoch
                ),
            ));
        }
        let hostname = asked.hostname.to_lowercase();
        let placed = was.state == PortState::Active
            && was.expires_at.is_none()
            && was.host_id == Some(asked.host_id)
            && was.instance_epoch == asked.instance_epoch;
        if placed && was.metadata_digest == asked.metadata_digest && was.hostname == hostname {
            return Ok(Binding::Bound { epoch: was.epoch });
        }
        let (epoch, status) = if placed { (was.epoch, was.status) } else { (was.epoch + 1, PortStatus::Building) };
        let bound = Port {
            hostname,
            state: PortState::Active,
            host_id: Some(asked.host_id),
            epoch,
            instance_epoch: asked.instance_epoch,
            metadata_digest: asked.metadata_digest.clone(),
            expires_at: None,
            status,
            status_reason: String::new(),
            generation: was.generation + 1,
            ..was.clone()
        };
        self.op(PortBind {
            id: bound.id,
            expected_generation: was.generation,
            instance_id: asked.instance_id,
            host_id: asked.host_id,
            epoch,
            instance_epoch: asked.instance_epoch,
            metadata_digest: bound.metadata_digest.clone(),
            hostname: bound.hostname.clone(),
            status,
        });
        self.learn(Learned::Port(bound));
        Ok(Binding::Bound { epoch })
    }

    /// The deletion of their instances was accepted: those made with them give back their quota and their floating IPs; all stay where they
    /// are until proof.
    #[must_use]
    pub fn release_ports(mut self, ports: &[Port]) -> Plan {
        for was in ports {
            self.plan.seen.push(Key::Port(was.id));
            if !was.owner.is_some_and(|owner| owner.with_instance) || was.state == PortState::Releasing {
                continue;
            }
            self.dissociate(was);
            self.op(PortRelease { id: was.id, expected_generation: was.generation });
            self.uses(was.project_id, QuotaAmounts { ports: -1, ..QuotaAmounts::NONE });
            let released =
                Port { state: PortState::Releasing, expires_at: None, generation: was.generation + 1, ..was.clone() };
            self.learn(Learned::Port(released));
        }
        self.plan
    }

    /// Nobody has them any more: those made with their instance go, the others are free again. What was never bound needs no rest.
    #[must_use]
    pub fn remove_ports(mut self, ports: &[Port]) -> Plan {
        for was in ports {
            self.plan.seen.push(Key::Port(was.id));
            let Some(owner) = was.owner else { continue };
            if owner.with_instance {
                self.dissociate(was);
                let rest_secs = if was.host_id.is_some() { self.ask.quarantine_secs } else { 0 };
                self.remove_port(was, rest_secs);
                continue;
            }
            self.op(PortDetach { id: was.id, expected_generation: was.generation });
            self.learn(Learned::Port(Port {
                owner: None,
                hostname: String::new(),
                host_id: None,
                epoch: was.epoch + 1,
                instance_epoch: 0,
                metadata_digest: String::new(),
                expires_at: None,
                status: PortStatus::Down,
                status_reason: String::new(),
                generation: was.generation + 1,
                ..was.clone()
            }));
        }
        self.plan
    }
}
