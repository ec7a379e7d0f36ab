//! Ports that people make. What instances do with ports is in `reserve` and `binding`.

use super::{
    Decision, Planner, Planning, Verb,
    planner::{in_use, scoped},
};
use crate::network::topology::NamedRow as _;
use domain::{
    ErrorKind, InstanceId, Name, NetworkId, PortId, Problem, ProjectId, SecurityGroupId, Timestamp,
    network::{
        ChangeOutcome, Cidr, FixedIp, FloatingIp, MacAddr, Network, NewPort, ObjectKind, Port, PortOwner, PortPatch,
        PortState, PortStatus, RateLimit, SecurityGroup,
    },
    quota::QuotaAmounts,
    validate,
};
use std::collections::BTreeSet;
use store::{
    AddressOwner, FloatingIpChange, PortDelete, PortInsert, PortSecurityGroupDelete, PortSecurityGroupPut, PortUpdate,
};

/// How a port comes into being: of its own, or with an instance that isn't committed yet.
#[derive(Default)]
pub(super) struct PortOrigin {
    pub name: Option<Name>,
    pub hostname: String,
    pub instance_id: Option<InstanceId>,
    pub expires_at: Option<Timestamp>,
}

/// The requested MAC is another port's, of any project.
#[must_use]
pub fn mac_taken(mac: MacAddr) -> Problem {
    Problem::new(ErrorKind::AlreadyExists, "mac_taken", format!("the MAC address {mac} is another port's"))
        .with_hint("give none to get one that is free")
}

impl Planner<'_> {
    /// The requested groups, or the project's `default` group.
    pub(super) fn groups_or_default(
        &mut self,
        project_id: ProjectId,
        requested: Option<&[SecurityGroupId]>,
    ) -> Decision<Vec<SecurityGroupId>> {
        if let Some(requested) = requested {
            return self.groups(requested);
        }
        let group = self.topology.default_group(project_id).ok_or_else(|| {
            Problem::new(
                ErrorKind::InvalidState,
                "no_default_group",
                "the project's security group `default` isn't there yet",
            )
            .with_hint("it is made within a second of the project; try again, or name the groups")
        })?;
        Ok(vec![group])
    }

    fn groups(&mut self, requested: &[SecurityGroupId]) -> Decision<Vec<SecurityGroupId>> {
        let distinct: BTreeSet<SecurityGroupId> = requested.iter().copied().collect();
        for id in &distinct {
            self.fetch::<SecurityGroup>(*id)?;
        }
        Ok(distinct.into_iter().collect())
    }

    /// The requested MAC, or one that no port has as far as is known.
    pub(super) fn mac(&mut self, requested: Option<MacAddr>) -> Decision<MacAddr> {
        let Some(mac) = requested else {
            let [a, b, c, d, e, ..] = (self.rng)().to_be_bytes();
            return Ok(MacAddr::port([a, b, c, d, e]));
        };
        self.plan.mac = Some(mac);
        if self.context.dry_run && self.topology.ports().any(|port| port.mac == mac) {
            return Err(mac_taken(mac));
        }
        Ok(mac)
    }

    pub(super) fn new_port(
        &self,
        id: PortId,
        network: &Network,
        mac: MacAddr,
        fixed_ips: Vec<FixedIp>,
        security_group_ids: Vec<SecurityGroupId>,
        origin: PortOrigin,
    ) -> Port {
        let PortOrigin { name, hostname, instance_id, expires_at } = origin;
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
            generation: self.topology.first_generation(id),
            created_at: self.context.now,
        }
    }

    /// The port's row, its groups, its addresses, and what it takes of the quota.
    pub(super) fn insert_port(&mut self, port: &Port) {
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
        self.put(port.clone());
    }

    /// The port may send from these blocks besides its own addresses.
    fn allows(&self, network_id: NetworkId, blocks: &[Cidr], granted: &[Cidr], any: bool) -> Decision<()> {
        if any || blocks.is_empty() {
            return Ok(());
        }
        let subnets: Vec<Cidr> = self.topology.subnets_of(network_id).map(|subnet| subnet.spec.cidr).collect();
        validate::network::allowed_addresses("allowed_addresses", blocks, granted, &subnets)
    }

    /// Floating IPs stand for the port no longer. Their descriptions.
    pub(super) fn dissociate(&mut self, port: &Port) -> Vec<String> {
        let floating_ips: Vec<FloatingIp> = self.topology.floating_ips_of(port.id).cloned().collect();
        let mut names = Vec::new();
        for old in floating_ips {
            self.reads::<FloatingIp>(old.id);
            self.op(FloatingIpChange {
                id: old.id,
                expected_generation: old.generation,
                description: old.description.clone(),
                port_id: None,
                fixed_ip: None,
            });
            names.push(old.describe());
            self.put(FloatingIp { port_id: None, fixed_ip: None, generation: old.generation + 1, ..old });
        }
        names
    }

    /// The port's row goes; its addresses are quarantined for so long. Its quota is freed unless that was done when the deletion of its
    /// instance was accepted.
    pub(super) fn remove_port(&mut self, port: &Port, quarantine_secs: u64) {
        self.reads::<Port>(port.id);
        self.op(PortDelete { id: port.id, expected_generation: port.generation });
        for ip in &port.fixed_ips {
            self.release(scoped(port.network_id.0, ip.address), port.id.to_string(), quarantine_secs);
        }
        if port.state != PortState::Releasing {
            self.uses(port.project_id, QuotaAmounts { ports: -1, ..QuotaAmounts::NONE });
        }
        // Memory may not have the row yet, and must know at which generation it ended.
        self.put(port.clone());
        self.gone::<Port>(port.id);
    }
}

impl Planning for Port {
    fn create(planner: &mut Planner<'_>, new: &NewPort) -> Decision<ChangeOutcome> {
        let project_id = planner.project()?;
        let network: Network = planner.fetch(new.network_id)?;
        planner.allows(new.network_id, &new.allowed_addresses, &[], new.any_address)?;
        let group_ids = planner.groups_or_default(project_id, new.security_group_ids.as_deref())?;
        planner.takes_name::<Self>(&new.name, new.id, |other| other.project_id == project_id)?;
        let mac = planner.mac(new.mac)?;
        let fixed_ips = planner.fixed_ips(&network, &new.fixed_ips)?;
        let origin = PortOrigin { name: Some(new.name.clone()), ..PortOrigin::default() };
        let port = Self {
            allowed_addresses: new.allowed_addresses.clone(),
            rate_limit: new.rate_limit,
            ..planner.new_port(new.id, &network, mac, fixed_ips, group_ids, origin)
        };
        planner.insert_port(&port);
        Ok(planner.finish(Verb::Create, port, vec![network.describe()]))
    }

    fn update(planner: &mut Planner<'_>, id: PortId, patch: &PortPatch) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        if old.state == PortState::Releasing {
            return Err(Problem::invalid_state(format!("the port {} goes with its instance", old.label())));
        }
        let PortPatch { name, security_group_ids, allowed_addresses, any_address, rate_limit } = patch.clone();
        let requested = allowed_addresses.as_deref().unwrap_or_default();
        planner.allows(old.network_id, requested, &old.allowed_addresses, any_address)?;
        let mut port = Self { generation: old.generation + 1, ..old.clone() };
        if let Some(name) = name {
            planner.takes_name::<Self>(&name, id, |other| other.project_id == old.project_id)?;
            port.name = Some(name);
        }
        if let Some(requested) = security_group_ids {
            port.security_group_ids = planner.groups(&requested)?;
        }
        port.allowed_addresses = allowed_addresses.unwrap_or(port.allowed_addresses);
        port.rate_limit = rate_limit.unwrap_or(port.rate_limit);
        planner.op(PortUpdate {
            id,
            expected_generation: old.generation,
            name: port.name.clone(),
            allowed_addresses: port.allowed_addresses.clone(),
            rate_limit: port.rate_limit,
        });
        for group in port.security_group_ids.iter().filter(|group| !old.security_group_ids.contains(group)) {
            planner.op(PortSecurityGroupPut { port_id: id, security_group_id: *group });
        }
        for group in old.security_group_ids.iter().filter(|group| !port.security_group_ids.contains(group)) {
            planner.op(PortSecurityGroupDelete { port_id: id, security_group_id: *group });
        }
        planner.put(port.clone());
        Ok(planner.finish(Verb::Change, port, vec![]))
    }

    fn delete(planner: &mut Planner<'_>, id: PortId) -> Decision<ChangeOutcome> {
        let old: Self = planner.fetch_to_change(id)?;
        if let Some(owner) = old.owner {
            let instance = if old.hostname.is_empty() { owner.instance_id.to_string() } else { old.hostname.clone() };
            let hint = if owner.with_instance {
                "it was made with its instance and goes with it, or when its NIC is removed"
            } else {
                "detach it from the instance first: iaasctl instance nic remove"
            };
            return Err(in_use(ObjectKind::Port, old.label(), &[format!("instance {instance}")], hint));
        }
        let floating_ips = planner.dissociate(&old);
        planner.remove_port(&old, planner.context.quarantine_secs);
        Ok(planner.finish(Verb::Delete, old, floating_ips))
    }
}
