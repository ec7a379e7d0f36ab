//! Ports that people make. What instances do with them is `reserve` and `binding`.

use super::{Decided, Deed, Draft, check_count, named, scoped, subnet::touched, words::port_key};
use crate::network::topology::{Key, Learned};
use domain::{
    ErrorKind, InstanceId, Name, PortId, Problem, SecurityGroupId, Timestamp,
    network::{
        ChangeOutcome, FixedIp, FloatingIp, MacAddr, Network, NetworkObject, NewPort, ObjectKind, Port, PortOwner,
        PortPatch, PortState, PortStatus, RateLimit,
    },
    quota::QuotaAmounts,
};
use std::collections::BTreeSet;
use store::{
    AddressOwner, FloatingIpChange, PortDelete, PortInsert, PortSecurityGroupDelete, PortSecurityGroupPut, PortUpdate,
};

const ALLOWED_MAX: usize = 32;
const GROUPS_MAX: usize = 16;

/// How a port comes into being: of its own, or with an instance that isn't committed yet.
pub(super) struct Birth {
    pub name: Option<Name>,
    pub hostname: String,
    pub instance_id: Option<InstanceId>,
    pub expires_at: Option<Timestamp>,
}

impl Draft<'_> {
    /// Every project has one from its first moment on; who deleted none can't be without.
    pub(super) fn default_group(&self, project_id: domain::ProjectId) -> Decided<SecurityGroupId> {
        self.topology.default_group(project_id).ok_or_else(|| {
            Problem::new(
                ErrorKind::InvalidState,
                "no_default_group",
                "the project's security group `default` isn't there yet",
            )
            .with_hint("it is made within a second of the project; try again, or name the groups")
        })
    }

    pub(super) fn groups(&mut self, asked: &[SecurityGroupId]) -> Decided<Vec<SecurityGroupId>> {
        check_count("security_groups", asked.len(), GROUPS_MAX)?;
        let distinct: BTreeSet<SecurityGroupId> = asked.iter().copied().collect();
        for id in &distinct {
            self.security_group(*id)?;
        }
        Ok(distinct.into_iter().collect())
    }

    /// The one that is asked for, or one that nobody has as far as is known.
    pub(super) fn mac(&mut self, asked: Option<MacAddr>) -> Decided<MacAddr> {
        match asked {
            Some(mac) => {
                let mac = mac.unicast().map_err(|wrong| Problem::invalid("mac", wrong.to_string()))?;
                if self.ask.dry_run && self.topology.ports().any(|port| port.mac == mac) {
                    return Err(mac_taken(mac));
                }
                Ok(mac)
            }
            None => {
                let [a, b, c, d, e, ..] = (self.dice)().to_be_bytes();
                Ok(MacAddr::port([a, b, c, d, e]))
            }
        }
    }

    pub(super) fn port_create(&mut self, new: &NewPort) -> Decided<ChangeOutcome> {
        let project_id = self.project()?;
        let network = self.network(new.network_id)?;
        check_count("allowed_addresses", new.allowed_addresses.len(), ALLOWED_MAX)?;
        let group_ids = match &new.security_group_ids {
            Some(asked) => self.groups(asked)?,
            None => vec![self.default_group(project_id)?],
        };
        let taken = |port: &Port| port.project_id == project_id && port.name.as_ref() == Some(&new.name);
        self.free_name(ObjectKind::Port, &new.name, |t| t.ports().any(taken))?;
        let mac = self.mac(new.mac)?;
        let fixed_ips = self.fixed_ips(&network, &new.fixed_ips)?;
        let birth =
            Birth { name: Some(new.name.clone()), hostname: String::new(), instance_id: None, expires_at: None };
        let mut port = self.new_port(new.id, &network, mac, fixed_ips, group_ids, birth);
        port.allowed_addresses = new.allowed_addresses.clone();
        port.rate_limit = new.rate_limit;
        self.put_new_port(&port);
        Ok(self.done(Deed::Create, NetworkObject::Port(port), &new.name, vec![touched(&network)]))
    }

    pub(super) fn new_port(
        &mut self,
        id: PortId,
        network: &Network,
        mac: MacAddr,
        fixed_ips: Vec<FixedIp>,
        security_group_ids: Vec<SecurityGroupId>,
        birth: Birth,
    ) -> Port {
        let Birth { name, hostname, instance_id, expires_at } = birth;
        let with_instance = instance_id.is_some();
        Port {
            id,
            project_id: network.project_id,
            network_id: network.id,
            name,
            mac,
            fixed_ips,
            allowed_addresses: vec![],
            security_group_ids,
            rate_limit: RateLimit::default(),
            hostname,
            state: if with_instance { PortState::Reserved } else { PortState::Active },
            owner: instance_id.map(|instance_id| PortOwner { instance_id, with_instance }),
            host_id: None,
            epoch: 0,
            instance_epoch: 0,
            metadata_digest: String::new(),
            expires_at,
            status: PortStatus::Down,
            status_reason: String::new(),
            generation: self.topology.port_birth(id),
            created_at: self.ask.now,
        }
    }

    /// Its row, its groups, its addresses, and what it takes of the quota.
    pub(super) fn put_new_port(&mut self, port: &Port) {
        self.op(PortInsert {
            id: port.id,
            generation: port.generation,
            project_id: port.project_id,
            network_id: port.network_id,
            name: port.name.clone(),
            mac: port.mac,
            fixed_ips: port.fixed_ips.clone(),
            allowed_addresses: port.allowed_addresses.clone(),
            rate_limit: port.rate_limit,
            hostname: port.hostname.clone(),
            state: port.state,
            instance_id: port.owner.map(|owner| owner.instance_id),
            with_instance: port.owner.is_some_and(|owner| owner.with_instance),
            expires_at: port.expires_at,
            created_at: port.created_at,
        });
        for security_group_id in &port.security_group_ids {
            self.op(PortSecurityGroupPut { port_id: port.id, security_group_id: *security_group_id });
        }
        for ip in &port.fixed_ips {
            let at = scoped(port.network_id.0, ip.address);
            self.take(at, Some(ip.subnet_id), AddressOwner::Port, port.id.to_string());
        }
        self.uses(port.project_id, QuotaAmounts { ports: 1, ..QuotaAmounts::NONE });
        self.learn(Learned::Port(port.clone()));
    }

    pub(super) fn port_update(&mut self, id: PortId, patch: &PortPatch) -> Decided<ChangeOutcome> {
        let was = self.port(id)?;
        self.fence(ObjectKind::Port, port_key(&was), was.generation)?;
        if was.state == PortState::Releasing {
            return Err(Problem::invalid_state(format!("the port {} goes with its instance", port_key(&was))));
        }
        let mut port = Port { generation: was.generation + 1, ..was.clone() };
        let PortPatch { name, security_group_ids, allowed_addresses, rate_limit } = patch;
        if let Some(name) = name {
            let taken = |p: &Port| p.project_id == was.project_id && p.name.as_ref() == Some(name) && p.id != id;
            self.free_name(ObjectKind::Port, name, |t| t.ports().any(taken))?;
            port.name = Some(name.clone());
        }
        if let Some(asked) = security_group_ids {
            port.security_group_ids = self.groups(asked)?;
        }
        if let Some(allowed) = allowed_addresses {
            check_count("allowed_addresses", allowed.len(), ALLOWED_MAX)?;
            port.allowed_addresses.clone_from(allowed);
        }
        port.rate_limit = rate_limit.unwrap_or(port.rate_limit);
        self.op(PortUpdate {
            id,
            expected_generation: was.generation,
            name: port.name.clone(),
            allowed_addresses: port.allowed_addresses.clone(),
            rate_limit: port.rate_limit,
        });
        for group in port.security_group_ids.iter().filter(|group| !was.security_group_ids.contains(group)) {
            self.op(PortSecurityGroupPut { port_id: id, security_group_id: *group });
        }
        for group in was.security_group_ids.iter().filter(|group| !port.security_group_ids.contains(group)) {
            self.op(PortSecurityGroupDelete { port_id: id, security_group_id: *group });
        }
        self.learn(Learned::Port(port.clone()));
        let key = port_key(&port);
        Ok(self.done(Deed::Change, NetworkObject::Port(port), key, vec![]))
    }

    pub(super) fn port_delete(&mut self, id: PortId) -> Decided<ChangeOutcome> {
        let was = self.port(id)?;
        let key = port_key(&was);
        self.fence(ObjectKind::Port, &key, was.generation)?;
        if let Some(owner) = was.owner {
            let instance = if was.hostname.is_empty() { owner.instance_id.to_string() } else { was.hostname.clone() };
            let hint = if owner.with_instance {
                "it was made with its instance and goes with it, or when its card is detached"
            } else {
                "detach it from the instance first: iaasctl instance nic remove"
            };
            return Err(super::in_use(ObjectKind::Port, key, &[format!("instance {instance}")], hint));
        }
        let floating = self.dissociate(&was);
        self.remove_port(&was, self.ask.quarantine_secs);
        Ok(self.done(Deed::Delete, NetworkObject::Port(was), key, floating))
    }

    /// Floating IPs stand for it no longer. Their names.
    pub(super) fn dissociate(&mut self, port: &Port) -> Vec<String> {
        let floating: Vec<FloatingIp> = self.topology.floating_ips_of(port.id).cloned().collect();
        let mut names = Vec::new();
        for was in floating {
            self.plan.seen.push(Key::FloatingIp(was.id));
            self.op(FloatingIpChange {
                id: was.id,
                expected_generation: was.generation,
                description: was.description.clone(),
                port_id: None,
                fixed_ip: None,
            });
            names.push(named(ObjectKind::FloatingIp, was.address, was.id));
            self.learn(Learned::FloatingIp(FloatingIp {
                port_id: None,
                fixed_ip: None,
                generation: was.generation + 1,
                ..was
            }));
        }
        names
    }

    /// The row goes; its addresses rest so long. Gives the quota back unless that was done when its instance's deletion was accepted.
    pub(super) fn remove_port(&mut self, port: &Port, rest_secs: u64) {
        self.plan.seen.push(Key::Port(port.id));
        self.op(PortDelete { id: port.id, expected_generation: port.generation });
        for ip in &port.fixed_ips {
            self.release(scoped(port.network_id.0, ip.address), port.id.to_string(), rest_secs);
        }
        if port.state != PortState::Releasing {
            self.uses(port.project_id, QuotaAmounts { ports: -1, ..QuotaAmounts::NONE });
        }
        // As what it ended: memory may not have it yet.
        self.learn(Learned::Port(port.clone()));
        self.learn(Learned::Gone(Key::Port(port.id)));
    }
}

/// The MAC that was asked for is another port's, of any project's.
#[must_use]
pub fn mac_taken(mac: MacAddr) -> Problem {
    Problem::new(ErrorKind::AlreadyExists, "mac_taken", format!("the MAC address {mac} is another port's"))
        .with_hint("give none to get one that is free")
}
