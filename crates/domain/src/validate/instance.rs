//! Instances: sizes, keys, user data, placement.

use super::{Violations, each_tag, name, tags};
use crate::{
    ErrorKind, Problem,
    flavor::Size,
    instance::{DiskPool, InstanceSpec, OnHostLoss},
    limits,
    placement::PlacementConstraints,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::collections::BTreeMap;

/// The fields of a size stand behind `at`: "" or a prefix that ends with `/`.
pub fn size(violations: &mut Violations, at: &str, size: Size) {
    let Size { vcpus, memory_mib, disk_gib } = size;
    self::vcpus(violations, &format!("{at}vcpus"), vcpus);
    self::memory_mib(violations, &format!("{at}memory_mib"), memory_mib);
    self::disk_gib(violations, &format!("{at}disk_gib"), disk_gib);
}

pub fn vcpus(violations: &mut Violations, field: &str, vcpus: u32) {
    violations.within(field, vcpus, &(1..=limits::VCPUS_MAX));
}

pub fn memory_mib(violations: &mut Violations, field: &str, memory_mib: u64) {
    violations.within(field, memory_mib, &(limits::MEMORY_MIB_MIN..=limits::MEMORY_MIB_MAX));
}

pub fn disk_gib(violations: &mut Violations, field: &str, disk_gib: u64) {
    violations.unless(disk_gib <= limits::DISK_GIB_MAX, field, || format!("at most {}", limits::DISK_GIB_MAX));
}

pub fn nic_count(violations: &mut Violations, field: &str, count: usize) {
    violations.at_most(field, count, limits::NICS_PER_INSTANCE);
}

pub fn stop_timeout(violations: &mut Violations, field: &str, secs: u32) {
    violations.within(field, secs, &(0..=limits::STOP_TIMEOUT_SECS_MAX));
}

pub fn user_data(violations: &mut Violations, field: &str, bytes: &[u8]) {
    let (len, most) = (bytes.len(), limits::USER_DATA_BYTES);
    violations.unless(len <= most, field, || format!("{len} bytes; at most {most}"));
}

/// User data as it travels.
pub fn user_data_base64(violations: &mut Violations, field: &str, text: &str) {
    match BASE64_STANDARD.decode(text) {
        Ok(bytes) => user_data(violations, field, &bytes),
        Err(error) => violations.add(field, format!("is not base64: {error}")),
    }
}

/// The lines of `authorized_keys`. That each is a key was checked when it was stored.
fn ssh_keys(violations: &mut Violations, field: &str, keys: &[String]) {
    violations.at_most(field, keys.len(), limits::SSH_KEYS_PER_INSTANCE);
    let most = limits::SSH_KEY_BYTES;
    let ok = |key: &String| key.len() <= most && !key.chars().any(char::is_control);
    violations.unless(keys.iter().all(ok), field, || format!("a key is one line of at most {most} bytes"));
}

/// Tags that the host of an instance must have, and tags that it must not have. `at`: the prefix of both fields.
pub fn host_tags(
    violations: &mut Violations,
    at: &str,
    required: &BTreeMap<String, String>,
    forbidden: &BTreeMap<String, String>,
) {
    for (field, tags) in [("required_tags", required), ("forbidden_tags", forbidden)] {
        let field = format!("{at}{field}");
        if violations.at_most(&field, tags.len(), limits::PLACEMENT_TAGS_PER_INSTANCE) {
            each_tag(violations, &field, tags);
        }
    }
    let both = required.iter().find(|(key, value)| forbidden.get(*key) == Some(value));
    if let Some((key, value)) = both {
        violations.add(format!("{at}forbidden_tags"), format!("{key}={value} is required and forbidden at once"));
    }
}

pub fn cpu_features(violations: &mut Violations, field: &str, features: &[String]) {
    if !violations.at_most(field, features.len(), limits::CPU_FEATURES_PER_INSTANCE) {
        return;
    }
    for (i, feature) in features.iter().enumerate() {
        let ok =
            (1..=limits::CPU_FEATURE_BYTES).contains(&feature.len()) && feature.bytes().all(|b| b.is_ascii_graphic());
        violations.unless(ok, &format!("{field}/{i}"), || "a name as in /proc/cpuinfo".to_owned());
    }
}

/// What an instance's desired state may say, as a manager gets it.
pub fn spec(spec: &InstanceSpec, tags: &BTreeMap<String, String>) -> Result<(), Problem> {
    let mut violations = Violations::default();
    size(&mut violations, "", spec.size);
    stop_timeout(&mut violations, "stop_timeout_secs", spec.stop_timeout_secs);
    ssh_keys(&mut violations, "ssh_keys", &spec.ssh_keys);
    user_data_base64(&mut violations, "user_data", &spec.user_data_base64);
    for (field, text) in [("flavor", Some(&spec.flavor).filter(|f| !f.is_empty())), ("zone", spec.zone.as_ref())] {
        text.into_iter().for_each(|text| name(&mut violations, field, text));
    }
    let PlacementConstraints {
        required_tags,
        forbidden_tags,
        cpu_features,
        groups,
        dedicated: _,
        preemptible_class: _,
        rto_seconds,
        pinning: _,
    } = &spec.placement;
    if let Some(secs) = rto_seconds {
        violations.within("placement/rto_seconds", *secs, &limits::RTO_SECONDS);
    }
    violations.at_most("placement/groups", groups.len(), limits::PLACEMENT_GROUPS_PER_INSTANCE);
    host_tags(&mut violations, "placement/", required_tags, forbidden_tags);
    self::cpu_features(&mut violations, "placement/cpu_features", cpu_features);
    self::tags(&mut violations, "tags", tags);
    violations.finish()?;
    host_loss("on_host_loss", spec.on_host_loss, spec.pool, spec.size)
}

/// `on_host_loss: restart` needs disks that outlive the host, and `recreate` disks that don't.
pub fn host_loss(field: &str, on_host_loss: OnHostLoss, pool: DiskPool, size: Size) -> Result<(), Problem> {
    let refused = |code, detail, hint, what| {
        Err(Problem::new(ErrorKind::InvalidState, code, detail).with_hint(hint).with_field(field, what))
    };
    match (on_host_loss, pool) {
        _ if size.disk_gib == 0 => Ok(()),
        (OnHostLoss::Restart, DiskPool::Local) => refused(
            "local_disk",
            "on_host_loss: restart needs disks that outlive the host, and this root disk is on the host's local pool",
            "use pool: shared, on_host_loss: recreate or wait, or an image that runs from memory with disk_gib 0",
            "restart isn't possible with a root disk on a local pool",
        ),
        (OnHostLoss::Recreate, DiskPool::Shared) => refused(
            "shared_disk",
            "on_host_loss: recreate makes the root disk anew from its image, and a root disk in the shared pool isn't lost with its host",
            "use on_host_loss: restart, which goes on with the disk, or pool: local",
            "recreate isn't possible with a root disk in the shared pool",
        ),
        (OnHostLoss::Wait, _) | (OnHostLoss::Restart, DiskPool::Shared) | (OnHostLoss::Recreate, DiskPool::Local) => {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn user_data_is_measured_without_its_encoding() {
        let check = |bytes: usize| {
            let user_data_base64 = BASE64_STANDARD.encode(vec![0; bytes]);
            spec(&InstanceSpec { user_data_base64, ..testing::spec() }, &BTreeMap::new())
        };
        assert_eq!(check(limits::USER_DATA_BYTES), Ok(()));
        assert_eq!(check(limits::USER_DATA_BYTES + 1).expect_err("too long").errors[0].field, "user_data");
    }

    #[test]
    fn all_violations_of_a_spec_are_named_and_a_local_disk_can_not_restart_elsewhere() {
        let tags = BTreeMap::new();
        let size = Size { vcpus: 0, memory_mib: 1, disk_gib: u64::MAX };
        let refused = spec(&InstanceSpec { size, ..testing::spec() }, &tags).expect_err("a violation of each size");
        let fields: Vec<&str> = refused.errors.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["vcpus", "memory_mib", "disk_gib"]);
        let mut restarts = InstanceSpec { on_host_loss: OnHostLoss::Restart, ..testing::spec() };
        assert_eq!(spec(&restarts, &tags).expect_err("a local disk").code, "local_disk");
        restarts.pool = DiskPool::Shared;
        assert_eq!(spec(&restarts, &tags), Ok(()));
        let recreates = InstanceSpec { on_host_loss: OnHostLoss::Recreate, ..restarts.clone() };
        assert_eq!(spec(&recreates, &tags).expect_err("a shared disk").code, "shared_disk");
        (restarts.pool, restarts.size.disk_gib) = (DiskPool::Local, 0);
        assert_eq!(spec(&restarts, &tags), Ok(()));
    }
}
