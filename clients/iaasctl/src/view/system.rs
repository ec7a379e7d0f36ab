//! What operators look at: hosts, events, the audit log, quotas.

use super::{filled, tags, text, time, time_or_none, word, yes};
use crate::{output::Row, size::show_mib};
use client::model::{AuditEntry, Backup, Event, Host, HostToken, ManagerProcess, Quota, Size, TimelineItem};

impl Row for Host {
    const HEADER: &'static [&'static str] =
        &["NAME", "STATE", "CORDONED", "ZONE", "VCPUS", "MEMORY MIB", "DISK GIB", "ACCELERATOR", "ID"];

    fn cells(&self) -> Vec<String> {
        let of = |used: u64, all: u64| format!("{used}/{all}");
        vec![
            self.name.clone(),
            self.state.as_str().to_owned(),
            yes(self.cordoned),
            self.zone.clone(),
            of(self.used.vcpus.into(), self.capacity.vcpus.into()),
            of(self.used.memory_mib, self.capacity.memory_mib),
            of(self.used.disk_gib, self.capacity.disk_gib),
            self.facts.accelerator.clone(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let of = |used: u64, all: u64| format!("{used} of {all} used");
        filled(vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("state", self.state.as_str().to_owned()),
            ("reason", self.state_reason.clone()),
            ("since", time(self.state_changed_at)),
            ("cordoned", yes(self.cordoned)),
            ("cordon reason", self.cordon_reason.clone()),
            ("draining", yes(self.draining)),
            ("dedicated to", text(self.dedicated_to.as_ref())),
            ("zone", self.zone.clone()),
            ("tags", tags(&self.tags)),
            ("vcpus", of(self.used.vcpus.into(), self.capacity.vcpus.into())),
            ("memory MiB", of(self.used.memory_mib, self.capacity.memory_mib)),
            ("disk GiB", of(self.used.disk_gib, self.capacity.disk_gib)),
            ("beyond capacity", beyond_capacity(self).unwrap_or_default()),
            ("not accepted", unaccepted(self).unwrap_or_default()),
            ("reserved", amounts(self.reserved).unwrap_or_default()),
            ("cpu overcommit", self.cpu_overcommit.to_string()),
            ("memory overcommit", overcommit(self.memory_overcommit)),
            ("disk overcommit", overcommit(self.disk_overcommit)),
            ("cpu", self.facts.cpu_model.clone()),
            ("cpu baseline", self.cpu_baseline.clone().unwrap_or_default()),
            ("kernel", self.facts.kernel.clone()),
            ("qemu", self.facts.qemu_version.clone()),
            ("accelerator", self.facts.accelerator.clone()),
            ("why", self.facts.accelerator_reason.clone()),
            ("agent", self.facts.agent_version.clone()),
            ("registered", time(self.registered_at)),
            ("orphans", orphans(self)),
        ])
    }
}

/// What it runs and no instance is, a line each.
fn orphans(host: &Host) -> String {
    let orphans = host.orphans.iter().flatten();
    let lines = orphans.map(|o| format!("{} ({}, seen {})", o.instance_id, o.detail, time(o.last_seen_at)));
    lines.collect::<Vec<_>>().join("; ")
}

/// The usual one isn't worth a line.
fn overcommit(ratio: f64) -> String {
    if ratio == 0.0 || ratio == 1.0 { String::new() } else { ratio.to_string() }
}

/// None: nothing.
fn amounts(size: Size) -> Option<String> {
    let mut amounts = Vec::new();
    if size.vcpus > 0 {
        amounts.push(format!("{} vCPUs", size.vcpus));
    }
    if size.memory_mib > 0 {
        amounts.push(format!("{} of memory", show_mib(size.memory_mib)));
    }
    if size.disk_gib > 0 {
        amounts.push(format!("{} GiB of disk", size.disk_gib));
    }
    (!amounts.is_empty()).then(|| amounts.join(", "))
}

/// What a host holds beyond its room.
#[must_use]
pub fn beyond_capacity(host: &Host) -> Option<String> {
    amounts(host.beyond_capacity)
}

/// What a host reports beyond what was accepted.
#[must_use]
pub fn unaccepted(host: &Host) -> Option<String> {
    amounts(host.unaccepted)
}

impl Row for HostToken {
    const HEADER: &'static [&'static str] = &["STATE", "NAME", "ZONE", "EXPIRES", "CREATED BY", "HOST", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            word(&self.state),
            text(self.name.as_ref()),
            text(self.zone.as_ref()),
            self.expires_at.to_string(),
            self.created_by.clone(),
            text(self.host_id.as_ref()),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        filled(vec![
            ("id", self.id.to_string()),
            ("state", word(&self.state)),
            ("name", text(self.name.as_ref())),
            ("zone", text(self.zone.as_ref())),
            ("host", text(self.host_id.as_ref())),
            ("redeemed", time_or_none(self.redeemed_at)),
            ("created by", self.created_by.clone()),
            ("created", time(self.created_at)),
            ("expires", self.expires_at.to_string()),
        ])
    }
}

impl Row for Backup {
    const HEADER: &'static [&'static str] = &["CREATED", "SIZE MIB", "PATH"];

    fn cells(&self) -> Vec<String> {
        vec![time(self.created_at), self.size_bytes.div_ceil(1 << 20).to_string(), self.path.clone()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("path", self.path.clone()),
            ("created", time(self.created_at)),
            ("size bytes", self.size_bytes.to_string()),
            ("sha256", self.sha256.clone()),
        ]
    }
}

impl Row for ManagerProcess {
    const HEADER: &'static [&'static str] = &["ROLE", "STATE", "HOST", "PID", "SINCE", "TERM", "ADDRESS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.role.clone(),
            self.state.as_str().to_owned(),
            self.host.clone(),
            self.pid.to_string(),
            time(self.since),
            text(self.term.as_ref()),
            self.address.clone(),
        ]
    }
}

impl Row for Event {
    const HEADER: &'static [&'static str] = &["ID", "AT", "KIND", "OBJECT", "MESSAGE"];

    fn cells(&self) -> Vec<String> {
        vec![self.id.to_string(), self.at.to_string(), self.kind.clone(), self.object_id.clone(), self.message.clone()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("id", self.id.to_string()),
            ("at", self.at.to_string()),
            ("kind", self.kind.clone()),
            ("object", format!("{} {}", self.object_kind, self.object_id)),
            ("message", self.message.clone()),
            ("request id", self.request_id.clone()),
        ]
    }
}

impl Row for TimelineItem {
    const HEADER: &'static [&'static str] = &["AT", "KIND", "MESSAGE"];

    fn cells(&self) -> Vec<String> {
        vec![self.at.to_string(), self.kind.clone(), self.message.clone()]
    }
}

impl Row for AuditEntry {
    const HEADER: &'static [&'static str] = &["AT", "WHO", "ACTION", "OBJECT", "OUTCOME", "DETAIL", "REQUEST ID"];

    fn cells(&self) -> Vec<String> {
        let who = if self.principal_name.is_empty() { &self.principal } else { &self.principal_name };
        vec![
            self.at.to_string(),
            who.clone(),
            self.action.clone(),
            format!("{} {}", self.object_kind, self.object_id).trim().to_owned(),
            self.outcome.clone(),
            if self.count > 1 { format!("{} ({} times)", self.detail, self.count) } else { self.detail.clone() },
            self.request_id.clone(),
        ]
    }
}

/// A resource's limit and what is used of it.
#[derive(Debug, serde::Serialize)]
pub struct QuotaLine {
    pub resource: &'static str,
    pub used: i64,
    pub limit: i64,
}

#[must_use]
pub fn quota_lines(quota: &Quota) -> Vec<QuotaLine> {
    let (used, limits) = (&quota.used, &quota.limits);
    [
        ("instances", used.instances, limits.instances),
        ("vcpus", used.vcpus, limits.vcpus),
        ("memory_mib", used.memory_mib, limits.memory_mib),
        ("disk_gib", used.disk_gib, limits.disk_gib),
        ("images", used.images, limits.images),
        ("image_gib", used.image_gib, limits.image_gib),
        ("networks", used.networks, limits.networks),
        ("subnets", used.subnets, limits.subnets),
        ("ports", used.ports, limits.ports),
        ("routers", used.routers, limits.routers),
        ("floating_ips", used.floating_ips, limits.floating_ips),
        ("security_groups", used.security_groups, limits.security_groups),
        ("security_rules", used.security_rules, limits.security_rules),
        ("peerings", used.peerings, limits.peerings),
        ("ssh_keys", used.ssh_keys, limits.ssh_keys),
        ("placement_groups", used.placement_groups, limits.placement_groups),
    ]
    .map(|(resource, used, limit)| QuotaLine { resource, used, limit })
    .into()
}

impl Row for QuotaLine {
    const HEADER: &'static [&'static str] = &["RESOURCE", "USED", "LIMIT", "LEFT"];

    fn cells(&self) -> Vec<String> {
        let left = (self.limit - self.used).max(0);
        vec![self.resource.to_owned(), self.used.to_string(), self.limit.to_string(), left.to_string()]
    }
}
