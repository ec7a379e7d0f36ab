//! What becomes of the instances of a lost host, and how far a recovery has come. Pure.

use domain::{
    InstanceId, Timestamp,
    instance::{DiskPool, Instance, InstanceState, OnHostLoss},
    network::{Port, PortStatus},
    recovery::{Recovery, RecoveryPhase},
};

/// How soon an instance should be back whose owner doesn't say.
pub const RTO_SECONDS: u32 = 300;
/// A guest that hasn't said for so long that it is up isn't waited for any longer.
const VERIFY_SECS: u64 = 120;

/// What becomes of an instance whose host is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It stays with its host, because its disk does, or because its owner wants that.
    Waits,
    /// It starts elsewhere with the disks that it has.
    Restarts,
    /// It starts elsewhere with a new disk from its image.
    Recreated,
    /// Its deletion completes.
    Deleted,
}

/// `disks_outlive`: its disks are on pools that outlive its host, or it has none.
#[must_use]
pub fn fate(instance: &Instance, disks_outlive: bool) -> Fate {
    if instance.spec.deleted {
        return Fate::Deleted;
    }
    match instance.spec.on_host_loss {
        OnHostLoss::Wait => Fate::Waits,
        OnHostLoss::Restart if disks_outlive => Fate::Restarts,
        // Its disk is lost with its host; its owner wants the disk, not just any instance.
        OnHostLoss::Restart => Fate::Waits,
        OnHostLoss::Recreate => Fate::Recreated,
    }
}

/// Whether all disks of the instance outlive its host: they are in the shared pool, or there are none.
#[must_use]
pub fn disks_outlive(instance: &Instance) -> bool {
    instance.disks().is_empty() || instance.spec.pool == DiskPool::Shared
}

/// The order in which instances get their places: the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    /// When it should be back at the latest.
    pub due: Timestamp,
    pub lost_at: Timestamp,
    pub instance_id: InstanceId,
}

#[must_use]
pub fn urgency(recovery: &Recovery) -> Urgency {
    Urgency {
        due: recovery.lost_at.plus_secs(u64::from(recovery.rto_seconds)),
        lost_at: recovery.lost_at,
        instance_id: recovery.instance_id,
    }
}

/// What the instance loses by its recovery, for its owner.
#[must_use]
pub fn cost(policy: OnHostLoss, has_disk: bool) -> &'static str {
    match (policy, has_disk) {
        (OnHostLoss::Recreate, true) => "its root disk is made anew from its image, what was written to it is lost",
        (OnHostLoss::Recreate | OnHostLoss::Restart | OnHostLoss::Wait, false) => {
            "it runs from memory, what it had there is lost"
        }
        (OnHostLoss::Restart | OnHostLoss::Wait, true) => "its disks are kept, what it had in memory is lost",
    }
}

/// The recovery as it is by now; `None`: nothing has changed. For one that has a place.
#[must_use]
pub fn advance(recovery: &Recovery, instance: Option<&Instance>, ports: &[Port], now: Timestamp) -> Option<Recovery> {
    let mut next = recovery.clone();
    let close = |next: &mut Recovery, reason: String| {
        next.reason = reason;
        next.closed_at = Some(now);
    };
    let Some(instance) = instance.filter(|instance| !instance.spec.deleted) else {
        next.phase = RecoveryPhase::Deleted;
        close(&mut next, String::new());
        return Some(next);
    };
    if instance.epoch > recovery.epoch + 1 {
        close(&mut next, "its new host was lost as well".to_owned());
        return Some(next);
    }
    let status = &instance.status;
    let off = matches!(status.state, InstanceState::Stopped | InstanceState::Suspended);
    if next.phase == RecoveryPhase::Placed
        && matches!(status.state, InstanceState::Running | InstanceState::Paused | InstanceState::Stopped)
    {
        next.phase = RecoveryPhase::Started;
        next.started_at = Some(status.started_at.unwrap_or(now));
    }
    if next.phase == RecoveryPhase::Started && (off || answers(instance, ports)) {
        next.phase = RecoveryPhase::Reachable;
        next.reachable_at = Some(now);
    }
    if next.phase == RecoveryPhase::Reachable {
        let since = next.reachable_at.unwrap_or(now);
        if let Some(at) = status.guest_up_at {
            next.phase = RecoveryPhase::Verified;
            next.verified_at = Some(at);
            close(&mut next, String::new());
        } else if status.state != InstanceState::Running {
            close(&mut next, format!("it is {}, as its owner wants", status.state.as_str()));
        } else if since.plus_secs(VERIFY_SECS) <= now {
            close(&mut next, "its guest hasn't said that it is up".to_owned());
        }
    }
    (next != *recovery).then_some(next)
}

/// Whether its new host answers for all its addresses.
fn answers(instance: &Instance, ports: &[Port]) -> bool {
    instance.spec.nics.iter().all(|nic| {
        let port = ports.iter().find(|port| port.id == nic.port_id);
        port.is_some_and(|port| port.instance_epoch == instance.epoch && port.status == PortStatus::Active)
    })
}

/// Whether so much of a zone looks lost at once that the fault is more likely ours, or the network's, than the hosts'. One host of a small zone may always be lost.
#[must_use]
pub fn too_many_lost(away: usize, hosts: usize, share_percent: u32) -> bool {
    away > 1 && away.saturating_mul(100) > hosts.saturating_mul(share_percent as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{HostId, RecoveryId, testing};

    fn recovery(instance: &Instance, phase: RecoveryPhase) -> Recovery {
        Recovery {
            id: RecoveryId::new(),
            instance_id: instance.id,
            instance_name: instance.name.clone(),
            project_id: instance.project_id,
            host_id: HostId::new(),
            host_name: "h".to_owned(),
            to_host_id: instance.host_id,
            epoch: instance.epoch - 1,
            policy: OnHostLoss::Recreate,
            rto_seconds: 30,
            phase,
            reason: String::new(),
            lost_at: Timestamp(0),
            detected_at: Timestamp(0),
            placed_at: Some(Timestamp(5)),
            started_at: None,
            reachable_at: None,
            verified_at: None,
            closed_at: None,
        }
    }

    #[test]
    fn of_each_policy_and_disk_it_is_said_what_becomes_of_the_instance() {
        let with = |policy, deleted| {
            let mut instance = testing::instance(InstanceState::Running);
            (instance.spec.on_host_loss, instance.spec.deleted) = (policy, deleted);
            instance
        };
        for (policy, outlive, expected) in [
            (OnHostLoss::Wait, false, Fate::Waits),
            (OnHostLoss::Wait, true, Fate::Waits),
            (OnHostLoss::Restart, false, Fate::Waits),
            (OnHostLoss::Restart, true, Fate::Restarts),
            (OnHostLoss::Recreate, false, Fate::Recreated),
            (OnHostLoss::Recreate, true, Fate::Recreated),
        ] {
            assert_eq!(fate(&with(policy, false), outlive), expected, "{policy:?} {outlive}");
            assert_eq!(fate(&with(policy, true), outlive), Fate::Deleted);
        }
    }

    #[test]
    fn every_state_may_be_left_for_recovery_and_left_again() {
        for state in InstanceState::ALL {
            let ends = matches!(state, InstanceState::Deleting | InstanceState::Deleted);
            assert_eq!(InstanceState::valid_transition(state, InstanceState::Recovering), !ends, "{state:?}");
        }
        for state in [InstanceState::Running, InstanceState::Paused, InstanceState::Stopped, InstanceState::Building] {
            assert!(InstanceState::valid_transition(InstanceState::Recovering, state), "{state:?}");
        }
    }

    #[test]
    fn a_recovery_goes_through_its_phases_and_ends() {
        let mut instance = testing::instance(InstanceState::Recovering);
        instance.epoch = 2;
        instance.spec.nics.clear();
        let placed = recovery(&instance, RecoveryPhase::Placed);
        assert_eq!(advance(&placed, Some(&instance), &[], Timestamp(9)), None, "it isn't started yet");
        instance.status.state = InstanceState::Running;
        (instance.status.started_at, instance.status.guest_up_at) = (Some(Timestamp(8)), None);
        let reachable = advance(&placed, Some(&instance), &[], Timestamp(9)).expect("news");
        assert_eq!((reachable.phase, reachable.started_at), (RecoveryPhase::Reachable, Some(Timestamp(8))));
        assert_eq!((reachable.reachable_at, reachable.closed_at), (Some(Timestamp(9)), None));
        assert_eq!(advance(&reachable, Some(&instance), &[], Timestamp(10)), None);
        let late = advance(&reachable, Some(&instance), &[], Timestamp(9 + 120_000)).expect("given up");
        assert_eq!((late.phase, late.closed_at.is_some()), (RecoveryPhase::Reachable, true));
        instance.status.guest_up_at = Some(Timestamp(11));
        let verified = advance(&reachable, Some(&instance), &[], Timestamp(12)).expect("news");
        assert_eq!((verified.phase, verified.verified_at), (RecoveryPhase::Verified, Some(Timestamp(11))));
        assert!(verified.closed_at.is_some());
        // Whatever its phase: gone, deleted, or lost again.
        for phase in [RecoveryPhase::Placed, RecoveryPhase::Started, RecoveryPhase::Reachable] {
            let open = recovery(&instance, phase);
            assert_eq!(advance(&open, None, &[], Timestamp(9)).map(|r| r.phase), Some(RecoveryPhase::Deleted));
            let again = Instance { epoch: 3, ..instance.clone() };
            let lost_again = advance(&open, Some(&again), &[], Timestamp(9)).expect("over");
            assert!(lost_again.closed_at.is_some() && lost_again.reason.contains("lost as well"));
        }
    }

    #[test]
    fn the_most_urgent_comes_first() {
        let instance = testing::instance(InstanceState::Running);
        let with = |lost_at, rto_seconds| {
            let recovery = recovery(&instance, RecoveryPhase::Waiting);
            urgency(&Recovery { lost_at: Timestamp(lost_at), rto_seconds, ..recovery })
        };
        assert!(with(0, 10) < with(0, 300));
        assert!(with(100_000, 10) < with(0, 300), "what counts is when it is due");
        assert!(with(0, 10) < with(1000, 10));
    }

    #[test]
    fn one_host_may_always_be_lost_and_a_share_of_a_zone_may_not() {
        assert!(!too_many_lost(1, 1, 30) && !too_many_lost(1, 2, 30));
        assert!(!too_many_lost(3, 10, 30) && too_many_lost(4, 10, 30) && too_many_lost(2, 3, 30));
        assert!(!too_many_lost(10, 10, 100), "100 % switches it off");
    }
}
