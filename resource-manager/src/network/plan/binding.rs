//! Ports of instances that are committed: bound to a host, releasing once the instance's deletion was accepted, removed when it is proven
//! gone.
//!
//! A port's epoch rises exactly when it is given to another instance, host or epoch of its instance: then the host that had it must not
//! answer for its addresses any more. A change of what the metadata service says is no such thing: it raises the generation alone.

use super::{Decision, Plan, Planner};
use domain::{
    ErrorKind, HostId, InstanceId, PortId, Problem,
    network::{Port, PortState, PortStatus},
    quota::QuotaAmounts,
};
use store::{PortBind, PortDetach, PortRelease};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindRequest {
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
    /// The port is bound under this epoch.
    Bound { epoch: i64 },
    /// The reservation is gone: reserve anew.
    Expired,
}

impl Planner<'_> {
    /// Each is decided by itself: the outcomes in order.
    pub fn bind(self, requests: &[BindRequest]) -> Decision<(Plan, Vec<Binding>)> {
        self.finish_with(|planner| requests.iter().map(|request| planner.bind_port(request)).collect())
    }

    fn bind_port(&mut self, request: &BindRequest) -> Decision<Binding> {
        self.reads::<Port>(request.port_id);
        let Some(old) = self.topology.port(request.port_id) else { return Ok(Binding::Expired) };
        if old.state == PortState::Releasing || old.owner.is_none_or(|owner| owner.instance_id != request.instance_id) {
            return Ok(Binding::Expired);
        }
        if request.instance_epoch < old.instance_epoch {
            return Err(Problem::new(
                ErrorKind::StaleGeneration,
                "stale_epoch",
                format!(
                    "the port {} is bound under epoch {} of its instance: {} has ended",
                    old.id, old.instance_epoch, request.instance_epoch
                ),
            ));
        }
        let hostname = request.hostname.to_lowercase();
        let placed = old.state == PortState::Active
            && old.expires_at.is_none()
            && old.host_id == Some(request.host_id)
            && old.instance_epoch == request.instance_epoch;
        if placed && old.metadata_digest == request.metadata_digest && old.hostname == hostname {
            return Ok(Binding::Bound { epoch: old.epoch });
        }
        let (epoch, status) = if placed { (old.epoch, old.status) } else { (old.epoch + 1, PortStatus::Building) };
        let bound = Port {
            hostname,
            state: PortState::Active,
            host_id: Some(request.host_id),
            epoch,
            instance_epoch: request.instance_epoch,
            metadata_digest: request.metadata_digest.clone(),
            expires_at: None,
            status,
            status_reason: String::new(),
            generation: old.generation + 1,
            ..old.clone()
        };
        self.op(PortBind {
            id: bound.id,
            expected_generation: old.generation,
            instance_id: request.instance_id,
            host_id: request.host_id,
            epoch,
            instance_epoch: request.instance_epoch,
            metadata_digest: bound.metadata_digest.clone(),
            hostname: bound.hostname.clone(),
            status,
        });
        self.put(bound);
        Ok(Binding::Bound { epoch })
    }

    /// The deletion of the ports' instances was accepted: those made with them free their quota and their floating IPs; all stay where they
    /// are until there is proof.
    #[must_use]
    pub fn release_ports(mut self, ports: &[Port]) -> Plan {
        for old in ports {
            self.reads::<Port>(old.id);
            if !old.owner.is_some_and(|owner| owner.with_instance) || old.state == PortState::Releasing {
                continue;
            }
            self.dissociate(old);
            self.op(PortRelease { id: old.id, expected_generation: old.generation });
            self.uses(old.project_id, QuotaAmounts { ports: -1, ..QuotaAmounts::NONE });
            let generation = old.generation + 1;
            self.put(Port { state: PortState::Releasing, expires_at: None, generation, ..old.clone() });
        }
        self.plan
    }

    /// No instance has the ports any more: those made with their instance go, the others are free again. What was never bound needs no
    /// quarantine.
    #[must_use]
    pub fn remove_ports(mut self, ports: &[Port]) -> Plan {
        for old in ports {
            self.reads::<Port>(old.id);
            let Some(owner) = old.owner else { continue };
            if owner.with_instance {
                self.dissociate(old);
                let quarantine_secs = if old.host_id.is_some() { self.context.quarantine_secs } else { 0 };
                self.remove_port(old, quarantine_secs);
                continue;
            }
            self.op(PortDetach { id: old.id, expected_generation: old.generation });
            self.put(Port {
                owner: None,
                hostname: String::new(),
                host_id: None,
                epoch: old.epoch + 1,
                instance_epoch: 0,
                metadata_digest: String::new(),
                expires_at: None,
                status: PortStatus::Down,
                status_reason: String::new(),
                generation: old.generation + 1,
                ..old.clone()
            });
        }
        self.plan
    }
}
