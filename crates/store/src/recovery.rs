//! Lost hosts: the verdict, what was taken from each, and the recovery of each instance. Written by the cluster-manager.
//!
//! A verdict and the host's state `lost` come and go in one unit. While it stands, nothing but [`crate::HostReturn`] changes that state, so no claim is made on
//! the host (a claim demands `up`). What is taken from the host is a row in the unit that takes it, guarded by the verdict; the verdict's end
//! is guarded by there being none of these rows left. So neither can pass the other.

use crate::{ReadError, Store, engine::read::text_array, instance::Conditions};
use domain::{
    HostId, InstanceId, Name, ProjectId, RecoveryId, Timestamp,
    instance::OnHostLoss,
    recovery::{HostVerdict, LossProof, Recovery, RecoveryPhase},
};

op! {
    HostVerdictInsert {
        host_id: HostId,
        proof: LossProof,
        lease_number: Option<i64>,
        declared_by: String,
        lost_at: Timestamp,
        declared_at: Timestamp,
    }
    on host_verdict, Insert by (host_id): insert { listed = "FALSE" }
}

op! {
    /// The host is lost from now on. `silent`: only one that isn't connected; a lease that lapsed is proof in any state.
    HostLost { id: HostId, silent: bool, at: Timestamp }
    on host, Change by (id), guard HostGeneration:
    "UPDATE host SET state = 'lost', state_changed_at = r.at FROM {rows}
     WHERE host.id = r.id AND host.state <> 'lost' AND (host.state = 'disconnected' OR NOT r.silent)"
}

op! {
    /// Every instance of the host that is to be recovered has its recovery.
    HostVerdictListed { host_id: HostId }
    on host_verdict, Change by (host_id), guard HostVerdict:
    "UPDATE host_verdict SET listed = TRUE FROM {rows} WHERE host_verdict.host_id = r.host_id"
}

op! {
    /// The verdict ends: the host has proved that it holds nothing of what was taken from it.
    HostVerdictEnd { host_id: HostId }
    on host_verdict, Change by (host_id), guard HostVerdict:
    "DELETE FROM host_verdict WHERE host_id IN (SELECT r.host_id FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM host_taken AS t WHERE t.host_id = host_verdict.host_id)"
}

op! {
    /// The host is lost no longer. Its agent says what it is when it connects again.
    HostReturn { id: HostId, at: Timestamp }
    on host, Change by (id), guard HostVerdict:
    "UPDATE host SET state = 'disconnected', state_changed_at = r.at FROM {rows} WHERE host.id = r.id AND host.state = 'lost'"
}

op! {
    /// An instance that a lost host held is its no longer.
    HostTakenPut { host_id: HostId, instance_id: InstanceId, epoch: i64, generation: i64, taken_at: Timestamp }
    on host_taken, Insert by (host_id, instance_id), guard HostVerdict:
    "INSERT INTO host_taken (host_id, instance_id, epoch, generation, taken_at)
     SELECT r.host_id, r.instance_id, r.epoch, r.generation, r.taken_at
     FROM {rows} JOIN host_verdict AS v ON v.host_id = r.host_id WHERE TRUE
     ON CONFLICT (host_id, instance_id) DO UPDATE SET epoch = excluded.epoch, generation = excluded.generation,
        taken_at = excluded.taken_at"
}

op! {
    /// The host has proved that it holds the instance no longer. What was taken in another epoch meanwhile stays.
    HostTakenProven { host_id: HostId, instance_id: InstanceId, epoch: i64 }
    on host_taken, Change by (host_id, instance_id):
    "DELETE FROM host_taken WHERE (host_id, instance_id, epoch) IN (SELECT r.host_id, r.instance_id, r.epoch FROM {rows})"
}

op! {
    /// One that is open already stays.
    RecoveryInsert {
        id: RecoveryId,
        instance_id: InstanceId,
        instance_name: Name,
        project_id: ProjectId,
        host_id: HostId,
        host_name: String,
        epoch: i64,
        policy: OnHostLoss,
        rto_seconds: u32,
        lost_at: Timestamp,
        detected_at: Timestamp,
    }
    on recovery, Insert by (instance_id):
    "INSERT INTO recovery (id, instance_id, instance_name, project_id, host_id, host_name, epoch, policy, rto_seconds, lost_at,
        detected_at, phase, reason)
     SELECT r.id, r.instance_id, r.instance_name, r.project_id, r.host_id, r.host_name, r.epoch, r.policy, r.rto_seconds, r.lost_at,
        r.detected_at, 'waiting', ''
     FROM {rows} WHERE NOT EXISTS (SELECT 1 FROM recovery AS o WHERE o.instance_id = r.instance_id AND o.closed_at IS NULL
        AND o.epoch = r.epoch)"
}

op! {
    /// What is known of an open recovery, decided on its phase.
    RecoveryProgress {
        id: RecoveryId,
        expected_phase: RecoveryPhase,
        phase: RecoveryPhase,
        reason: String,
        to_host_id: Option<HostId>,
        placed_at: Option<Timestamp>,
        started_at: Option<Timestamp>,
        reachable_at: Option<Timestamp>,
        verified_at: Option<Timestamp>,
        closed_at: Option<Timestamp>,
    }
    on recovery, Change by (id), guard Recovery:
    "UPDATE recovery SET phase = r.phase, reason = r.reason, to_host_id = r.to_host_id, placed_at = r.placed_at,
        started_at = r.started_at, reachable_at = r.reachable_at, verified_at = r.verified_at, closed_at = r.closed_at
     FROM {rows} WHERE recovery.id = r.id AND recovery.phase = r.expected_phase AND recovery.closed_at IS NULL"
}

op! {
    /// At most 2,000: see [`crate::Retention`].
    RecoveryExpire { before: Timestamp }
    on recovery, Change by (before): expire id by closed_at
}

record! { HostVerdict, of host_verdict { host_id, proof, lease_number, declared_by, lost_at, declared_at, listed } }
record! {
    Recovery, of recovery {
        id, instance_id, instance_name, project_id, host_id, host_name, to_host_id, epoch, policy, rto_seconds, phase, reason, lost_at,
        detected_at, placed_at, started_at, reachable_at, verified_at, closed_at,
    }
}

row! {
    #[derive(Eq)]
    pub struct HostTakenRow of host_taken {
        pub host_id: HostId,
        pub instance_id: InstanceId,
        pub epoch: i64,
        pub generation: i64,
    }
}

/// Which recoveries. Every condition that is given must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoveryFilter {
    pub instance_id: Option<InstanceId>,
    /// Only those that aren't over.
    pub open: bool,
    /// The last id of the page before.
    pub after: Option<RecoveryId>,
    pub limit: u32,
    pub newest_first: bool,
}

impl Store {
    /// All of them, by host.
    pub async fn host_verdict_list(&self) -> Result<Vec<HostVerdict>, ReadError> {
        self.pool().list("ORDER BY host_id", []).await
    }

    pub async fn host_verdict_find(&self, host_id: HostId) -> Result<Option<HostVerdict>, ReadError> {
        self.pool().find("WHERE host_id = $1", [host_id.into()]).await
    }

    /// What was taken from the host and isn't proved to have ended there, by instance.
    pub async fn host_taken_list(&self, host_id: HostId) -> Result<Vec<HostTakenRow>, ReadError> {
        self.pool().list("WHERE host_id = $1 ORDER BY instance_id", [host_id.into()]).await
    }

    /// Of these instances, on whatever host.
    pub async fn host_taken_of_instances(
        &self,
        host_id: HostId,
        ids: &[InstanceId],
    ) -> Result<Vec<HostTakenRow>, ReadError> {
        let sql = format!("WHERE host_id = $1 AND instance_id {} ORDER BY instance_id", self.pool().in_texts(2));
        self.pool().list(&sql, [host_id.into(), text_array(ids)]).await
    }

    pub async fn recovery_find(&self, id: RecoveryId) -> Result<Option<Recovery>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    /// Those that aren't over, by id: at most `limit` behind `after`.
    pub async fn recovery_open(&self, after: Option<RecoveryId>, limit: u32) -> Result<Vec<Recovery>, ReadError> {
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.pool().list("WHERE closed_at IS NULL AND id > $1 ORDER BY id LIMIT $2", [after.into(), limit.into()]).await
    }

    /// By id, which is by when they began.
    pub async fn recovery_list(&self, filter: &RecoveryFilter) -> Result<Vec<Recovery>, ReadError> {
        let mut conditions = Conditions::default();
        if let Some(instance_id) = filter.instance_id {
            conditions.and("instance_id = {}", [instance_id.into()]);
        }
        if filter.open {
            conditions.and("closed_at IS NULL", []);
        }
        if let Some(after) = filter.after {
            conditions.and(if filter.newest_first { "id < {}" } else { "id > {}" }, [after.into()]);
        }
        let order = if filter.newest_first { "DESC" } else { "ASC" };
        let Conditions { sql, mut binds } = conditions;
        binds.push(filter.limit.into());
        let sql = format!("{sql} ORDER BY id {order} LIMIT ${}", binds.len());
        self.pool().list(&sql, binds).await
    }
}
