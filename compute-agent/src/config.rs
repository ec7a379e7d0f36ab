//! The section `[compute]` of the configuration file.

use crate::{
    qemu::{accel::AccelSetting, argv::SOCKET_PATH_MAX},
    qmp::commands::DiskLimits,
};
use domain::HostId;
use serde::{Deserialize, Serialize};
use service_kit::config::ConfigError;
use std::path::PathBuf;

/// Sockets are `<run_dir>/vms/<36 characters>/<name>`, and the kernel allows 107 bytes for a socket's path.
const RUN_DIR_BYTES_MAX: usize = 48;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The host's id, if it is known from outside (both agents of a host use the same id). It must be the ledger's; a new ledger adopts it.
    /// Absent: the ledger's id, and a new ledger generates one.
    pub host_id: Option<HostId>,
    /// The host's display name. Empty: the machine's hostname.
    pub host_name: String,
    /// The host's zone; instances can request a zone.
    pub zone: String,
    /// The directory of the ledger, the disks and the image cache, which must survive a reboot. Only root may read it.
    pub state_dir: PathBuf,
    /// The directory of the sockets of running instances, which may be a tmpfs. At most 48 bytes long (a limit of Unix sockets).
    pub run_dir: PathBuf,
    /// The directory of the shared pool, which every host of the pool mounts, at whatever place; it is made with `iaasd host init-pool`. Unset: this host has
    /// none, and gets no instance with a disk in it.
    pub shared_pool: Option<PathBuf>,
    /// Memory that is reserved for the host itself and not available to instances, MiB.
    pub reserve_memory_mib: u64,
    /// Disk space on the file system of `state_dir` that is reserved for the host itself and not available to instances, GiB.
    pub reserve_disk_gib: u64,
    /// How many vCPUs are offered per hardware thread, in thousandths: 4000 means four vCPUs per thread.
    pub cpu_overcommit_permille: u32,
    /// `auto` (measures KVM and emulation, and uses the faster one that works), `kvm`, or `tcg` (emulation).
    pub accelerator: AccelSetting,
    /// Whether guests may run virtual machines themselves, where the host's CPU can (only with KVM). It makes more of the kernel reachable from
    /// guests, so it is off.
    pub nested: bool,
    /// The path of qemu-system-x86_64. Unset: it is found through PATH.
    pub qemu: Option<PathBuf>,
    /// The first unprivileged user (and group) id for QEMU processes. Each instance gets its own id; nothing else may use them.
    pub uid_first: u32,
    /// How many of these ids there are, which is also the maximum number of instances on the host.
    pub uid_count: u32,
    /// The control group in which each instance gets a group of its own, without a leading slash. With systemd: a slice with Delegate=yes.
    pub cgroup_parent: String,
    /// The PID namespace in which QEMU is started (/proc/N/ns/pid or a bind mount of one). Unset: the agent's own.
    pub pid_namespace: Option<PathBuf>,
    /// Whether each QEMU gets mount, network and IPC namespaces of its own, in which it sees no other instance. Only for an agent in a container
    /// that may make no namespaces is there a reason to switch it off.
    pub isolate: bool,
    /// The size of the image cache, GiB. The least recently used images are removed first, those that instances use never.
    pub image_cache_gib: u64,
    /// How much of each instance's console output is kept, KiB.
    pub console_log_kib: u64,
    /// How many reads and writes a second each disk may do. 0: no limit.
    pub disk_iops_max: u64,
    /// How much each disk may read and write a second, MiB. 0: no limit.
    pub disk_mib_per_sec_max: u64,
    /// How many instance starts are prepared at the same time. 0: twice the number of hardware threads, at least 4.
    pub parallel_starts: u32,
    /// A QEMU whose monitor hasn't answered for so long is ended, and its instance started again. Seconds; 0: never.
    pub qemu_silence_secs: u64,
    /// The socket of this host's network-agent, which passes the tap devices of the instances' NICs.
    pub port_socket: PathBuf,
    /// The program that starts QEMU as an unprivileged user; it is called with the argument `vm-launch`. Unset: the running binary itself.
    pub launch_program: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host_id: None,
            host_name: String::new(),
            zone: "default".into(),
            state_dir: "/var/lib/iaas/compute".into(),
            run_dir: "/run/iaas/compute".into(),
            shared_pool: None,
            reserve_memory_mib: 1024,
            reserve_disk_gib: 5,
            cpu_overcommit_permille: 4000,
            accelerator: AccelSetting::Auto,
            nested: false,
            qemu: None,
            uid_first: 600_000,
            uid_count: 10_000,
            cgroup_parent: "iaas".into(),
            pid_namespace: None,
            isolate: true,
            image_cache_gib: 20,
            console_log_kib: 1024,
            disk_iops_max: 20_000,
            disk_mib_per_sec_max: 1000,
            parallel_starts: 0,
            qemu_silence_secs: 60,
            port_socket: "/run/iaas/network/port.sock".into(),
            launch_program: None,
        }
    }
}

impl Config {
    /// Returns all errors, not only the first.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut check = |good: bool, key: &str, detail: &str| {
            if !good {
                errors.push(ConfigError::new(format!("compute.{key}"), detail));
            }
        };
        let plain = |path: &PathBuf| {
            let text = path.to_str().unwrap_or_default();
            path.is_absolute() && !text.contains(',') && !text.chars().any(char::is_control)
        };
        check(!self.zone.is_empty(), "zone", "must not be empty");
        check(plain(&self.state_dir), "state_dir", "must be an absolute path without commas and control characters");
        check(plain(&self.run_dir), "run_dir", "must be an absolute path without commas and control characters");
        check(
            self.run_dir.as_os_str().len() <= RUN_DIR_BYTES_MAX,
            "run_dir",
            "must have at most 48 bytes: sockets below it have long names, and a socket's path is limited to 107",
        );
        check(self.state_dir != self.run_dir, "run_dir", "must differ from state_dir");
        if let Some(pool) = &self.shared_pool {
            check(plain(pool), "shared_pool", "must be an absolute path without commas and control characters");
            let nested =
                [&self.state_dir, &self.run_dir].iter().any(|dir| pool.starts_with(dir) || dir.starts_with(pool));
            check(!nested, "shared_pool", "must not lie in state_dir or run_dir, nor these in it");
            check(
                self.isolate,
                "shared_pool",
                "needs `isolate`: hosts give users' ids by themselves, and one host's QEMU could read another's disks",
            );
        }
        check(
            (100..=64_000).contains(&self.cpu_overcommit_permille),
            "cpu_overcommit_permille",
            "must be from 100 (a tenth of a vCPU per thread) to 64000",
        );
        check(
            self.uid_first >= 1000,
            "uid_first",
            "must be at least 1000: QEMU runs neither as root nor as a system user",
        );
        check(self.uid_count >= 2, "uid_count", "must be at least 2");
        check(self.uid_first.checked_add(self.uid_count).is_some(), "uid_count", "reaches beyond the largest user id");
        let group = self.cgroup_parent.trim_matches('/');
        let inside = !group.is_empty() && group.split('/').all(|part| !matches!(part, "" | "." | ".."));
        check(inside, "cgroup_parent", "must name a group, such as `iaas` or `machine.slice/iaas`");
        check(
            self.port_socket.is_absolute() && self.port_socket.as_os_str().len() <= SOCKET_PATH_MAX,
            "port_socket",
            "must be an absolute path of at most 107 bytes",
        );
        check(self.image_cache_gib >= 1, "image_cache_gib", "must be at least 1");
        check(
            matches!(self.qemu_silence_secs, 0 | 15..=86_400),
            "qemu_silence_secs",
            "must be 0 (never) or from 15 to 86400: a busy host may need some seconds for an answer",
        );
        check(
            matches!(self.disk_iops_max, 0 | 50..=100_000_000),
            "disk_iops_max",
            "must be 0 (no limit) or from 50 to 100000000: with less, guests don't boot in their time",
        );
        check(self.disk_mib_per_sec_max <= 1_000_000, "disk_mib_per_sec_max", "must be at most 1000000; 0: no limit");
        check(
            (16..=1024 * 1024).contains(&self.console_log_kib),
            "console_log_kib",
            "must be from 16 to 1048576 (a GiB)",
        );
        errors
    }

    #[must_use]
    pub fn disk_limits(&self) -> DiskLimits {
        DiskLimits { iops: self.disk_iops_max, bytes_per_sec: self.disk_mib_per_sec_max << 20 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_all_errors_come_at_once() {
        assert_eq!(Config::default().validate(), []);
        let bad = Config {
            zone: String::new(),
            run_dir: format!("/{}", "x".repeat(60)).into(),
            state_dir: "relative".into(),
            uid_first: 0,
            cgroup_parent: "../up".into(),
            shared_pool: Some("relative/pool".into()),
            image_cache_gib: 0,
            disk_iops_max: 49,
            disk_mib_per_sec_max: u64::MAX,
            ..Config::default()
        };
        let keys: Vec<String> = bad.validate().into_iter().map(|e| e.key).collect();
        for key in [
            "zone",
            "run_dir",
            "state_dir",
            "uid_first",
            "cgroup_parent",
            "image_cache_gib",
            "disk_iops_max",
            "disk_mib_per_sec_max",
            "shared_pool",
        ] {
            assert!(keys.contains(&format!("compute.{key}")), "{key} in {keys:?}");
        }
    }
}
