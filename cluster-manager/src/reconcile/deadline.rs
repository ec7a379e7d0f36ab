//! How long a state may last before it stops being plausible. Pure.

use domain::{Timestamp, instance::InstanceState};
use serde::{Deserialize, Serialize};

/// Seconds per kind of wait. Past them nothing is undone: the instance shows a reason and is tried again, or is shown as failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// From the acceptance to the host's first report, seconds.
    pub pending_secs: u64,
    /// From the host's first report, or its last progress, to running, seconds; more is added for other starts in progress.
    pub building_secs: u64,
    /// Added to `building_secs` for each other start in progress on the same host, seconds.
    pub building_per_start_secs: u64,
    /// For making the root disk again, seconds.
    pub rebuilding_secs: u64,
    /// For a resize, seconds.
    pub resizing_secs: u64,
    /// For pause, resume and reboot, seconds; for a stop it is added to the time the guest may take.
    pub settle_secs: u64,
    /// For the host's proof that a deleted instance is gone, seconds.
    pub deleting_secs: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            pending_secs: 30,
            building_secs: 180,
            building_per_start_secs: 10,
            rebuilding_secs: 300,
            resizing_secs: 120,
            settle_secs: 60,
            deleting_secs: 60,
        }
    }
}

impl Deadlines {
    /// Until when `state` is plausible from `now` on; `starts` others are starting on the same host. None for states that may last.
    #[must_use]
    pub fn of(&self, state: InstanceState, starts: u32, now: Timestamp) -> Option<Timestamp> {
        let building = || self.building_secs + self.building_per_start_secs * u64::from(starts);
        let secs = match state {
            InstanceState::Pending | InstanceState::Scheduling => {
                self.pending_secs + self.building_per_start_secs * u64::from(starts)
            }
            InstanceState::Building | InstanceState::Recovering => building(),
            InstanceState::Rebuilding => self.rebuilding_secs + self.building_per_start_secs * u64::from(starts),
            InstanceState::Resizing | InstanceState::Migrating => self.resizing_secs,
            InstanceState::Deleting => self.deleting_secs,
            InstanceState::Running
            | InstanceState::Paused
            | InstanceState::Stopped
            | InstanceState::Suspended
            | InstanceState::Deleted
            | InstanceState::Error => return None,
        };
        Some(now.plus_secs(secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_states_that_may_last_have_none() {
        for state in InstanceState::ALL {
            assert_eq!(Deadlines::default().of(state, 0, Timestamp(0)).is_none(), state.is_final(), "{state:?}");
        }
    }

    #[test]
    fn building_may_take_longer_while_the_host_starts_others() {
        let deadlines = Deadlines::default();
        let at = |starts| deadlines.of(InstanceState::Building, starts, Timestamp(0)).expect("has one").0;
        assert_eq!(at(30) - at(0), 300_000);
    }
}
