//! The section `[cluster]` of the configuration.

use crate::reconcile::deadline::Deadlines;
use domain::host::AcceptCapacity;
use serde::{Deserialize, Serialize};
use service_kit::config::ConfigError;
use std::time::Duration;

const HOST_CERTIFICATE_SECS: std::ops::RangeInclusive<u64> = 2..=90 * 86_400;
const RESERVATION_TTL_SECS_MAX: u32 = 3600;
const LEASE_HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
const PREEMPTION_NOTICE_SECS_MAX: u64 = 3600;
const PREEMPTION_HOLD_SECS_MAX: u64 = 3600;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// An agent that hasn't sent anything for this long is treated as gone and its stream is closed, milliseconds. Agents send a heartbeat
    /// each second.
    pub heartbeat_timeout_ms: u64,
    /// How long a host may be without its agent before it is shown as disconnected and gets nothing new, milliseconds. An agent's
    /// restart, and its return after a manager's restart (within 3 s), should fit in.
    pub disconnect_grace_ms: u64,
    /// How often instances whose deadline passed are reconciled, milliseconds.
    pub reconcile_interval_ms: u64,
    /// How long a reservation of a disk or a port stands before its instance is committed and it is confirmed, seconds.
    pub reservation_ttl_secs: u32,
    /// How long one call to the storage-manager may take, seconds.
    pub storage_timeout_secs: u64,
    /// How long one call to the resource-manager may take, seconds.
    pub resource_timeout_secs: u64,
    /// How long an instance that is preempted has to shut down, seconds. 0: it has no notice.
    pub preemption_notice_secs: u64,
    /// How long capacity freed by preemption is held for the request that needs it, beyond the notice, seconds. 0: it isn't held.
    pub preemption_hold_secs: u64,
    /// How often everything is checked for what was left behind, seconds. 0: it is never checked.
    pub leak_check_secs: u64,
    /// How long the answer of an operation is kept for a repeat with the same idempotency key, hours.
    pub operation_keep_hours: u64,
    /// How long placement's refusals, and its decisions on instances that are gone, are kept, hours.
    pub placement_records_hours: u64,
    /// How many placement records a project keeps: the newest.
    pub placement_records_per_project: u32,
    /// How many instances of lost hosts may start on one host at once; more wait until some have started.
    pub recovery_starts_per_host: u32,
    /// When more than this share of a zone's hosts looks lost at once, none is declared lost by itself, percent. 100: there is no such limit.
    pub recovery_lost_share_percent: u32,
    /// How long the report of a recovery is kept, hours.
    pub recovery_reports_hours: u64,
    /// Which of the capacity that a host reports is offered to instances before an operator accepts it (`iaasctl host accept-capacity`): `always`,
    /// `first` (what it reports first, but no growth) or `never`.
    pub accept_capacity: AcceptCapacity,
    /// How long a host's certificate is valid, seconds. Agents renew theirs at half of it.
    pub host_certificate_secs: u64,
    /// How long a host's agent may take to open a console, milliseconds.
    pub console_open_timeout_ms: u64,
    /// How many console sessions and followed logs may be open at once.
    pub console_sessions_max: usize,
    /// For how many instances changes may wait for one slow agent; past that the agent gets a new snapshot instead.
    pub agent_queue_max: usize,
    /// How long each state may last: a table of its own, `[cluster.deadlines]`.
    pub deadlines: Deadlines,
    /// Host leases: a table of its own, `[cluster.lease]`.
    pub lease: Lease,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lease {
    /// How often hosts send a heartbeat on a connection of its own, milliseconds. 0: they send none.
    pub heartbeat_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat_timeout_ms: 5000,
            disconnect_grace_ms: 5000,
            reconcile_interval_ms: 1000,
            reservation_ttl_secs: 120,
            storage_timeout_secs: 10,
            resource_timeout_secs: 10,
            preemption_notice_secs: 30,
            preemption_hold_secs: 60,
            leak_check_secs: 3600,
            operation_keep_hours: 24,
            placement_records_hours: 24,
            placement_records_per_project: 1000,
            recovery_starts_per_host: 8,
            recovery_lost_share_percent: 30,
            recovery_reports_hours: 720,
            accept_capacity: AcceptCapacity::First,
            host_certificate_secs: 86_400,
            console_open_timeout_ms: 10_000,
            console_sessions_max: 256,
            agent_queue_max: 4096,
            deadlines: Deadlines::default(),
            lease: Lease::default(),
        }
    }
}

impl Config {
    /// Everything that is wrong with it.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let d = &self.deadlines;
        let at_least_one = [
            ("disconnect_grace_ms", self.disconnect_grace_ms),
            ("reconcile_interval_ms", self.reconcile_interval_ms),
            ("reservation_ttl_secs", u64::from(self.reservation_ttl_secs)),
            ("storage_timeout_secs", self.storage_timeout_secs),
            ("resource_timeout_secs", self.resource_timeout_secs),
            ("operation_keep_hours", self.operation_keep_hours),
            ("placement_records_hours", self.placement_records_hours),
            ("placement_records_per_project", u64::from(self.placement_records_per_project)),
            ("recovery_starts_per_host", u64::from(self.recovery_starts_per_host)),
            ("recovery_reports_hours", self.recovery_reports_hours),
            ("console_open_timeout_ms", self.console_open_timeout_ms),
            ("console_sessions_max", self.console_sessions_max as u64),
            ("agent_queue_max", self.agent_queue_max as u64),
            ("deadlines.pending_secs", d.pending_secs),
            ("deadlines.building_secs", d.building_secs),
            ("deadlines.rebuilding_secs", d.rebuilding_secs),
            ("deadlines.resizing_secs", d.resizing_secs),
            ("deadlines.settle_secs", d.settle_secs),
            ("deadlines.deleting_secs", d.deleting_secs),
        ];
        let mut errors: Vec<ConfigError> = at_least_one
            .into_iter()
            .filter(|(_, value)| *value == 0)
            .map(|(key, _)| ConfigError::new(format!("cluster.{key}"), "must be at least 1"))
            .collect();
        if self.reservation_ttl_secs > RESERVATION_TTL_SECS_MAX {
            errors.push(ConfigError::new(
                "cluster.reservation_ttl_secs",
                "must be at most 3600: the storage-manager holds none longer",
            ));
        }
        if !HOST_CERTIFICATE_SECS.contains(&self.host_certificate_secs) {
            errors.push(ConfigError::new("cluster.host_certificate_secs", "must be 2 seconds to 90 days"));
        }
        if self.preemption_notice_secs > PREEMPTION_NOTICE_SECS_MAX {
            errors.push(ConfigError::new("cluster.preemption_notice_secs", "must be at most 3600"));
        }
        if self.preemption_hold_secs > PREEMPTION_HOLD_SECS_MAX {
            errors.push(ConfigError::new("cluster.preemption_hold_secs", "must be at most 3600"));
        }
        if !(1..=100).contains(&self.recovery_lost_share_percent) {
            errors.push(ConfigError::new("cluster.recovery_lost_share_percent", "must be 1 to 100"));
        }
        if self.heartbeat_timeout_ms < 2000 {
            errors.push(ConfigError::new(
                "cluster.heartbeat_timeout_ms",
                "must be at least 2000: agents send a heartbeat each second",
            ));
        }
        if self.lease.heartbeat_ms != 0 && !LEASE_HEARTBEAT_MS.contains(&u64::from(self.lease.heartbeat_ms)) {
            errors.push(ConfigError::new("cluster.lease.heartbeat_ms", "must be 0 (none), or 100 to 60000"));
        } else if u64::from(self.lease.heartbeat_ms) * 2 > self.heartbeat_timeout_ms {
            errors.push(ConfigError::new(
                "cluster.lease.heartbeat_ms",
                "must be at most half of cluster.heartbeat_timeout_ms: a connection that is silent for so long is closed",
            ));
        }
        errors
    }

    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        Duration::from_millis(self.heartbeat_timeout_ms)
    }

    pub(crate) fn disconnect_grace(&self) -> Duration {
        Duration::from_millis(self.disconnect_grace_ms)
    }

    /// How long capacity is held from the moment when preemption begins; none where it isn't held at all.
    pub(crate) fn preemption_hold(&self) -> Option<Duration> {
        let hold = (self.preemption_hold_secs > 0).then_some(self.preemption_hold_secs);
        hold.map(|secs| Duration::from_secs(self.preemption_notice_secs + secs))
    }

    pub(crate) fn storage_timeout(&self) -> Duration {
        Duration::from_secs(self.storage_timeout_secs)
    }

    pub(crate) fn resource_timeout(&self) -> Duration {
        Duration::from_secs(self.resource_timeout_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_all_errors_are_reported_at_once() {
        assert_eq!(Config::default().validate(), vec![]);
        let bad = Config { heartbeat_timeout_ms: 1, agent_queue_max: 0, ..Config::default() };
        assert_eq!(bad.validate().len(), 2);
        for (heartbeat_ms, good) in [(0, true), (1, false), (1000, true), (2500, true), (2501, false), (60_001, false)]
        {
            let config = Config { lease: Lease { heartbeat_ms }, ..Config::default() };
            let errors = config.validate();
            assert_eq!(errors.is_empty(), good, "{heartbeat_ms}: {errors:?}");
        }
    }
}
