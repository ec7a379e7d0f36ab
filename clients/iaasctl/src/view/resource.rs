//! What projects own and use: instances, images, flavors, SSH keys.

use super::{filled, joined, tags, time, time_or_none, word};
use crate::{
    output::Row,
    size::{show_bytes, show_mib},
};
use client::model::{Flavor, Image, Instance, Nic, SshKey};
use domain::image::ImageKind;

impl Row for Instance {
    const HEADER: &'static [&'static str] =
        &["NAME", "STATE", "GUEST", "ADDRESSES", "VCPUS", "MEMORY", "DISK", "STEP", "ID"];

    fn cells(&self) -> Vec<String> {
        let step = if self.step.is_empty() { &self.reason } else { &self.step };
        vec![
            self.name.to_string(),
            self.state.as_str().to_owned(),
            guest(self).to_owned(),
            addresses(self),
            self.vcpus.to_string(),
            show_mib(self.memory_mib),
            format!("{} GiB", self.disk_gib),
            step.chars().take(60).collect(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("name", self.name.to_string()),
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
            ("network", self.nics.iter().map(nic).collect::<Vec<_>>().join("\n")),
            ("tags", tags(&self.tags)),
            ("ssh keys", self.ssh_keys.join("\n")),
            ("on crash", word(&self.on_crash)),
            ("on host loss", word(&self.on_host_loss)),
            ("pool", word(&self.pool)),
            ("crashes", self.crash_count.to_string()),
        ]);
        if let Some(zone) = &self.zone {
            fields.push(("zone", zone.clone()));
        }
        if let Some(cpu) = &self.cpu_baseline {
            fields.push(("cpu baseline", cpu.clone()));
        }
        if let Some(node) = self.numa_node {
            fields.push(("numa node", node.to_string()));
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
        filled(fields)
    }
}

/// Its own addresses, and in brackets those of the outside.
fn addresses(instance: &Instance) -> String {
    let own: Vec<_> = instance.nics.iter().flat_map(|nic| &nic.addresses).collect();
    let outside: Vec<_> = instance.nics.iter().flat_map(|nic| &nic.floating_ips).collect();
    let own = joined(&own, ",");
    if outside.is_empty() { own } else { format!("{own} ({})", joined(&outside, ",")) }
}

/// One NIC, on one line.
fn nic(nic: &Nic) -> String {
    let network = nic.network.as_ref().map_or_else(|| nic.network_id.to_string(), ToString::to_string);
    let outside = match nic.floating_ips.as_slice() {
        [] => String::new(),
        addresses => format!(", floating {}", joined(addresses, ", ")),
    };
    format!("{network}: {}{outside} (mac {}, port {})", joined(&nic.addresses, ", "), nic.mac, nic.port_id)
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
            self.name.to_string(),
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
        filled(vec![
            ("name", self.name.to_string()),
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
        ])
    }
}

impl Row for Flavor {
    const HEADER: &'static [&'static str] = &["NAME", "VCPUS", "MEMORY", "DISK", "DESCRIPTION", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.vcpus.to_string(),
            show_mib(self.memory_mib),
            format!("{} GiB", self.disk_gib),
            self.description.clone(),
            self.id.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("vcpus", self.vcpus.to_string()),
            ("memory", show_mib(self.memory_mib)),
            ("disk", format!("{} GiB", self.disk_gib)),
            ("pinning", self.pinning.as_str().to_owned()),
            ("description", self.description.clone()),
            ("created", time(self.created_at)),
        ]
    }
}

impl Row for SshKey {
    const HEADER: &'static [&'static str] = &["NAME", "FINGERPRINT", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.to_string(), self.fingerprint.clone(), self.id.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("name", self.name.to_string()),
            ("id", self.id.to_string()),
            ("fingerprint", self.fingerprint.clone()),
            ("public key", self.public_key.clone()),
            ("created", time(self.created_at)),
        ]
    }
}
