//! How each kind of object looks in a table, and alone.

use crate::{
    output::Row,
    size::{show_bytes, show_mib},
};
use client::model::{
    ApiKey, AuditEntry, Event, Flavor, Host, Image, Instance, Member, Project, Quota, SshKey, TimelineItem, User,
    WhoamiProject,
};
use domain::{Timestamp, image::ImageKind};
use std::collections::BTreeMap;

/// To the second, without the fraction.
fn time(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.').map_or_else(|| text.clone(), |(whole, _)| format!("{whole}Z"))
}

fn time_or_none(at: Option<Timestamp>) -> String {
    at.map(time).unwrap_or_default()
}

fn tags(tags: &BTreeMap<String, String>) -> String {
    tags.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

impl Row for Instance {
    const HEADER: &'static [&'static str] = &["NAME", "STATE", "GUEST", "VCPUS", "MEMORY", "DISK", "STEP", "ID"];

    fn cells(&self) -> Vec<String> {
        let step = if self.step.is_empty() { &self.reason } else { &self.step };
        vec![
            self.name.clone(),
            self.state.as_str().to_owned(),
            guest(self).to_owned(),
            self.vcpus.to_string(),
            show_mib(self.memory_mib),
            format!("{} GiB", self.disk_gib),
            step.chars().take(60).collect(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("project", self.project_id.to_string()),
            ("state", self.state.as_str().to_owned()),
            ("power", word(&self.power)),
        ];
        for (name, text) in [("step", &self.step), ("reason", &self.reason)] {
            if !text.is_empty() {
                fields.push((name, text.clone()));
            }
        }
        let flavor =
            self.flavor.as_deref().filter(|f| !f.is_empty()).map_or(String::new(), |f| format!(" (flavor {f})"));
        fields.extend([
            (
                "size",
                format!("{} vCPUs, {}, {} GiB disk{flavor}", self.vcpus, show_mib(self.memory_mib), self.disk_gib),
            ),
            ("image", self.image_id.to_string()),
            ("tags", tags(&self.tags)),
            ("ssh keys", self.ssh_keys.join("\n")),
            ("on crash", word(&self.on_crash)),
            ("on host loss", word(&self.on_host_loss)),
            ("crashes", self.crash_count.to_string()),
        ]);
        if let Some(zone) = &self.zone {
            fields.push(("zone", zone.clone()));
        }
        if let Some(host) = self.host_id {
            fields.push(("host", host.to_string()));
        }
        let times = [
            ("started", self.started_at),
            ("guest up", self.guest_up_at),
            ("deadline", self.deadline_at),
            ("created", Some(self.created_at)),
            ("updated", Some(self.updated_at)),
        ];
        fields.extend(times.into_iter().filter_map(|(name, at)| Some((name, time(at?)))));
        fields.push(("generation", format!("{} (the host is at {})", self.generation, self.observed_generation)));
        fields
    }
}

/// Whether the guest said that it is up since it was last started.
fn guest(instance: &Instance) -> &'static str {
    let running = instance.state == domain::instance::InstanceState::Running;
    let since_start = instance.started_at.is_none_or(|start| instance.guest_up_at >= Some(start));
    if running && instance.guest_up_at.is_some() && since_start { "up" } else { "" }
}

impl Row for Image {
    const HEADER: &'static [&'static str] =
        &["NAME", "STATE", "KIND", "FORMAT", "SIZE", "MIN DISK", "MIN MEMORY", "VISIBILITY", "ID"];

    fn cells(&self) -> Vec<String> {
        let format = if self.kind == ImageKind::Disk { self.format } else { None };
        vec![
            self.name.clone(),
            self.state.as_str().to_owned(),
            self.kind.as_str().to_owned(),
            format.map_or(String::new(), |f| f.as_str().to_owned()),
            show_bytes(self.parts.iter().map(|p| p.size_bytes).sum()),
            format!("{} GiB", self.min_disk_gib),
            show_mib(self.min_memory_mib),
            self.visibility.as_str().to_owned(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let parts = self.parts.iter();
        let parts = parts.map(|p| format!("{} {} sha256:{}", p.kind.as_str(), show_bytes(p.size_bytes), p.sha256));
        let mut fields = vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("project", self.project_id.to_string()),
            ("state", self.state.as_str().to_owned()),
            ("reason", self.reason.clone()),
            ("kind", self.kind.as_str().to_owned()),
            ("format", self.format.map_or(String::new(), |f| f.as_str().to_owned())),
            ("command line", self.cmdline.clone()),
            ("visibility", self.visibility.as_str().to_owned()),
            ("min disk", format!("{} GiB", self.min_disk_gib)),
            ("min memory", show_mib(self.min_memory_mib)),
            ("parts", parts.collect::<Vec<_>>().join("\n")),
            ("deadline", time_or_none(self.deadline_at)),
            ("created", time(self.created_at)),
        ];
        fields.retain(|(_, value)| !value.is_empty());
        fields
    }
}

impl Row for Flavor {
    const HEADER: &'static [&'static str] = &["NAME", "VCPUS", "MEMORY", "DISK", "DESCRIPTION", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.vcpus.to_string(),
            show_mib(self.memory_mib),
            format!("{} GiB", self.disk_gib),
            self.description.clone(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("vcpus", self.vcpus.to_string()),
            ("memory", show_mib(self.memory_mib)),
            ("disk", format!("{} GiB", self.disk_gib)),
            ("description", self.description.clone()),
            ("created", time(self.created_at)),
        ]
    }
}

impl Row for SshKey {
    const HEADER: &'static [&'static str] = &["NAME", "FINGERPRINT", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.fingerprint.clone(), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("fingerprint", self.fingerprint.clone()),
            ("public key", self.public_key.clone()),
            ("created", time(self.created_at)),
        ]
    }
}

impl Row for Project {
    const HEADER: &'static [&'static str] = &["NAME", "DESCRIPTION", "CREATED", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.description.clone(), time(self.created_at), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("description", self.description.clone()),
            ("created", time(self.created_at)),
        ]
    }
}

impl Row for Member {
    const HEADER: &'static [&'static str] = &["USER", "ROLE", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.user_name.clone(), self.role.as_str().to_owned(), self.user_id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("user", self.user_name.clone()),
            ("id", self.user_id.to_string()),
            ("role", self.role.as_str().to_owned()),
        ]
    }
}

impl Row for WhoamiProject {
    const HEADER: &'static [&'static str] = &["PROJECT", "ROLE", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.role.as_str().to_owned(), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("project", self.name.clone()), ("role", self.role.as_str().to_owned()), ("id", self.id.to_string())]
    }
}

impl Row for User {
    const HEADER: &'static [&'static str] = &["NAME", "ENABLED", "SYSTEM ADMIN", "CREATED", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), yes(self.enabled), yes(self.system_admin), time(self.created_at), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("enabled", yes(self.enabled)),
            ("system admin", yes(self.system_admin)),
            ("created", time(self.created_at)),
        ]
    }
}

impl Row for ApiKey {
    const HEADER: &'static [&'static str] = &["NAME", "PREFIX", "ROLE", "EXPIRES", "PROJECT", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.prefix.clone(),
            self.role.map_or(String::new(), |r| r.as_str().to_owned()),
            time_or_none(self.expires_at),
            self.project_id.map_or(String::new(), |p| p.to_string()),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("secret", self.secret.clone().unwrap_or_default()),
            ("prefix", self.prefix.clone()),
            ("role", self.role.map_or(String::new(), |r| r.as_str().to_owned())),
            ("project", self.project_id.map_or(String::new(), |p| p.to_string())),
            ("expires", time_or_none(self.expires_at)),
            ("created", time(self.created_at)),
        ];
        fields.retain(|(_, value)| !value.is_empty());
        fields
    }
}

impl Row for Host {
    const HEADER: &'static [&'static str] =
        &["NAME", "STATE", "CORDONED", "ZONE", "VCPUS", "MEMORY MIB", "DISK GIB", "ACCELERATOR", "ID"];

    fn cells(&self) -> Vec<String> {
        let of = |used: u64, all: u64| format!("{used}/{all}");
        vec![
            self.name.clone(),
            self.state.clone(),
            yes(self.cordoned),
            self.zone.clone(),
            of(self.used.vcpus, self.capacity.vcpus),
            of(self.used.memory_mib, self.capacity.memory_mib),
            of(self.used.disk_gib, self.capacity.disk_gib),
            self.fact("accelerator"),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let of = |used: u64, all: u64| format!("{used} of {all} used");
        let mut fields = vec![
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("state", self.state.clone()),
            ("since", time_or_none(self.state_changed_at)),
            ("cordoned", yes(self.cordoned)),
            ("cordon reason", self.cordon_reason.clone()),
            ("zone", self.zone.clone()),
            ("tags", tags(&self.tags)),
            ("vcpus", of(self.used.vcpus, self.capacity.vcpus)),
            ("memory MiB", of(self.used.memory_mib, self.capacity.memory_mib)),
            ("disk GiB", of(self.used.disk_gib, self.capacity.disk_gib)),
            ("cpu overcommit", self.cpu_overcommit.to_string()),
            ("cpu", self.fact("cpu_model")),
            ("kernel", self.fact("kernel")),
            ("qemu", self.fact("qemu_version")),
            ("accelerator", self.fact("accelerator")),
            ("why", self.fact("accelerator_reason")),
            ("agent", self.fact("agent_version")),
            ("registered", time_or_none(self.registered_at)),
        ];
        fields.retain(|(_, value)| !value.is_empty());
        fields
    }
}

/// What a host's agent said under a name.
pub trait Facts {
    fn fact(&self, name: &str) -> String;
}

impl Facts for Host {
    fn fact(&self, name: &str) -> String {
        let found = self.facts.get(name).or_else(|| self.other.get(name));
        found.and_then(|v| v.as_str()).unwrap_or_default().to_owned()
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

    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEADER.iter().copied().zip(self.cells()).collect()
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
            self.detail.clone(),
            self.request_id.clone(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEADER.iter().copied().zip(self.cells()).collect()
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

    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEADER.iter().copied().zip(self.cells()).collect()
    }
}
