//! Disks' rows and the quota they take. Every call may be repeated: it compares what is requested with what is there, and changes the
//! difference in one transaction, fenced so that usage moves exactly with the rows. When another change was faster, the call reads again.

use super::StorageService;
use crate::plan::{self, ConfirmPlan};
use domain::{
    DiskId, ErrorKind, InstanceId, Problem, ProjectId, Timestamp, instance::DiskPool, quota::QuotaAmounts, validate,
};
use operation::{COMMIT_ATTEMPTS, check_quota, commit_problem, contended, read_problem};
use proto::{convert::parse, storage::v1 as pb};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{
    CommitError, Constraint, DiskConfirm, DiskDelete, DiskInsert, DiskRelease, DiskResize, DiskRow, DiskState, Guard,
    StorageUsageAdd, Unit,
};

/// How long a reservation stands when the caller doesn't say, and the longest that it may, in seconds.
const TTL_SECS: u64 = 60;
const TTL_SECS_MAX: u64 = 3600;
const ROLE_BYTES_MAX: usize = 32;

fn reservation(disk: &pb::DiskReservation, now: Timestamp, ttl_secs: u64) -> Result<DiskRow, Problem> {
    let role_ok = (1..=ROLE_BYTES_MAX).contains(&disk.role.len()) && disk.role.bytes().all(|b| b.is_ascii_graphic());
    if !role_ok {
        return Err(Problem::invalid("role", "must be a short word"));
    }
    if DiskPool::parse(&disk.pool).is_none() {
        let known = DiskPool::ALL.map(DiskPool::as_str).join("`, `");
        return Err(Problem::invalid("pool", format!("there is no pool `{}`, only: `{known}`", disk.pool)));
    }
    check_size(disk.size_gib)?;
    Ok(DiskRow {
        id: parse("disk_id", &disk.disk_id)?,
        project_id: parse("project_id", &disk.project_id)?,
        instance_id: parse("instance_id", &disk.instance_id)?,
        role: disk.role.clone(),
        pool: disk.pool.clone(),
        size_gib: disk.size_gib,
        host_id: None,
        epoch: 0,
        state: DiskState::Reserved,
        expires_at: Some(now.plus_secs(ttl_secs)),
        generation: 1,
        created_at: now,
    })
}

fn check_size(size_gib: u64) -> Result<(), Problem> {
    validate::check(|v| validate::instance::disk_gib(v, "size_gib", size_gib))
}

fn instance_ids(texts: &[String]) -> Result<Vec<InstanceId>, Problem> {
    let ids: BTreeSet<InstanceId> = texts.iter().map(|text| parse("instance_ids", text)).collect::<Result<_, _>>()?;
    Ok(ids.into_iter().collect())
}

/// Adds (or with `sign` -1 releases) what is in `sums`.
fn move_usage(unit: &mut Unit, sums: &BTreeMap<ProjectId, i64>, sign: i64) {
    for (project_id, disk_gib) in sums.iter().filter(|(_, gib)| **gib != 0) {
        unit.push(StorageUsageAdd::disk(*project_id, sign * disk_gib));
    }
}

impl StorageService {
    async fn load(&self, ids: impl IntoIterator<Item = DiskId>) -> Result<HashMap<DiskId, DiskRow>, Problem> {
        let ids: Vec<DiskId> = ids.into_iter().collect();
        let rows = self.store.disk_load_many(&ids).await.map_err(read_problem)?;
        Ok(rows.into_iter().map(|row| (row.id, row)).collect())
    }

    /// Reserves all or none. A reservation that stands already is not counted again.
    pub(super) async fn disks_reserve(
        &self,
        request: pb::ReserveDisksRequest,
    ) -> Result<pb::ReserveDisksResponse, Problem> {
        let ttl_secs = match u64::from(request.ttl_secs) {
            0 => TTL_SECS,
            requested => requested.min(TTL_SECS_MAX),
        };
        let now = Timestamp::now();
        let requested: Vec<DiskRow> =
            request.disks.iter().map(|disk| reservation(disk, now, ttl_secs)).collect::<Result<_, _>>()?;
        for _ in 0..COMMIT_ATTEMPTS {
            let there = self.load(requested.iter().map(|disk| disk.id)).await?;
            let mut fresh: Vec<&DiskRow> = Vec::new();
            for disk in &requested {
                match there.get(&disk.id) {
                    Some(standing) => plan::same_reservation(standing, disk)?,
                    None if fresh.iter().any(|f| f.id == disk.id) => {}
                    None => fresh.push(disk),
                }
            }
            let sums = plan::usage_by_project(fresh.iter().copied());
            let mut unit = Unit::new();
            move_usage(&mut unit, &sums, 1);
            unit.extend(fresh.iter().map(|disk| insertion(disk)));
            match self.store.commit(unit).await {
                Ok(()) => return Ok(pb::ReserveDisksResponse {}),
                // A repeat of this call won.
                Err(CommitError::Guard(Guard::DiskExists)) => {}
                Err(CommitError::Guard(Guard::StorageQuota)) => {
                    self.check_quota(&sums).await?;
                }
                Err(CommitError::Constraint(Constraint::DiskRole)) => {
                    return Err(Problem::new(
                        ErrorKind::AlreadyExists,
                        "disk_role_taken",
                        "the instance has a disk of that role already",
                    ));
                }
                Err(error) => return Err(commit_problem(error)),
            }
        }
        Err(contended("the project's storage"))
    }

    /// Refuses what the quotas don't leave by their figures as they are now.
    async fn check_quota(&self, requested: &BTreeMap<ProjectId, i64>) -> Result<(), Problem> {
        for (project_id, disk_gib) in requested {
            let requested = QuotaAmounts { disk_gib: *disk_gib, ..QuotaAmounts::NONE };
            check_quota(&self.store, *project_id, &requested).await?;
        }
        Ok(())
    }

    pub(super) async fn disks_confirm(
        &self,
        request: pb::ConfirmDisksRequest,
    ) -> Result<pb::ConfirmDisksResponse, Problem> {
        let mut requested: BTreeMap<DiskId, DiskConfirm> = BTreeMap::new();
        for disk in &request.disks {
            let confirm = DiskConfirm {
                id: parse("disk_id", &disk.disk_id)?,
                instance_id: parse("instance_id", &disk.instance_id)?,
                host_id: parse("host_id", &disk.host_id)?,
                epoch: disk.epoch,
            };
            requested.insert(confirm.id, confirm);
        }
        // Most reservations stand, so the rows are read only when one doesn't.
        let mut unit = Unit::new();
        unit.extend(requested.values().cloned());
        match self.store.commit(unit).await {
            Ok(()) => return Ok(pb::ConfirmDisksResponse::default()),
            Err(CommitError::Guard(Guard::DiskState)) => {}
            Err(error) => return Err(commit_problem(error)),
        }
        for _ in 0..COMMIT_ATTEMPTS {
            let there = self.load(requested.keys().copied()).await?;
            let mut unit = Unit::new();
            let mut expired_disk_ids = Vec::new();
            for confirm in requested.values() {
                match plan::plan_confirm(there.get(&confirm.id), confirm) {
                    ConfirmPlan::Confirm => unit.push(confirm.clone()),
                    ConfirmPlan::Done => {}
                    ConfirmPlan::Expired => expired_disk_ids.push(confirm.id.to_string()),
                }
            }
            match self.store.commit(unit).await {
                Ok(()) => return Ok(pb::ConfirmDisksResponse { expired_disk_ids }),
                Err(CommitError::Guard(Guard::DiskState)) => {}
                Err(error) => return Err(commit_problem(error)),
            }
        }
        Err(contended("the disks"))
    }

    pub(super) async fn disk_resize(&self, request: pb::ResizeDiskRequest) -> Result<pb::ResizeDiskResponse, Problem> {
        let (disk_id, instance_id): (DiskId, InstanceId) =
            (parse("disk_id", &request.disk_id)?, parse("instance_id", &request.instance_id)?);
        check_size(request.size_gib)?;
        for _ in 0..COMMIT_ATTEMPTS {
            let there = self.store.disk_find(disk_id).await.map_err(read_problem)?;
            let disk = there
                .filter(|disk| disk.instance_id == instance_id)
                .ok_or_else(|| Problem::not_found("disk", disk_id))?;
            if disk.state == DiskState::Releasing {
                return Err(Problem::invalid_state(format!("the disk {disk_id} is being released")));
            }
            if disk.generation == request.generation && disk.size_gib == request.size_gib {
                return Ok(pb::ResizeDiskResponse {});
            }
            if disk.generation >= request.generation {
                return Err(Problem::new(
                    ErrorKind::StaleGeneration,
                    "stale_generation",
                    format!("the disk {disk_id} was resized by a later change"),
                ));
            }
            let sums = BTreeMap::from([(disk.project_id, plan::gib(request.size_gib) - plan::gib(disk.size_gib))]);
            let mut unit = Unit::new().op(DiskResize {
                id: disk_id,
                expected_generation: disk.generation,
                size_gib: request.size_gib,
                generation: request.generation,
            });
            move_usage(&mut unit, &sums, 1);
            match self.store.commit(unit).await {
                Ok(()) => return Ok(pb::ResizeDiskResponse {}),
                Err(CommitError::Guard(Guard::DiskState)) => {}
                Err(CommitError::Guard(Guard::StorageQuota)) => {
                    self.check_quota(&sums).await?;
                }
                Err(error) => return Err(commit_problem(error)),
            }
        }
        Err(contended("the disk"))
    }

    pub(super) async fn disks_release(
        &self,
        request: pb::ReleaseDisksRequest,
    ) -> Result<pb::ReleaseDisksResponse, Problem> {
        let ids = instance_ids(&request.instance_ids)?;
        for _ in 0..COMMIT_ATTEMPTS {
            let rows = self.store.disk_load_many_of_instances(&ids).await.map_err(read_problem)?;
            let mut unit = Unit::new();
            move_usage(&mut unit, &plan::usage_by_project(&rows), -1);
            for disk in rows.iter().filter(|disk| disk.state != DiskState::Releasing) {
                unit.push(DiskRelease { id: disk.id, expected_generation: disk.generation });
            }
            match self.store.commit(unit).await {
                Ok(()) => return Ok(pb::ReleaseDisksResponse {}),
                Err(CommitError::Guard(Guard::DiskState)) => {}
                Err(error) => return Err(commit_problem(error)),
            }
        }
        Err(contended("the disks"))
    }

    pub(super) async fn disks_remove(
        &self,
        request: pb::RemoveDisksRequest,
    ) -> Result<pb::RemoveDisksResponse, Problem> {
        let ids = instance_ids(&request.instance_ids)?;
        for _ in 0..COMMIT_ATTEMPTS {
            let rows = self.store.disk_load_many_of_instances(&ids).await.map_err(read_problem)?;
            let mut unit = Unit::new();
            move_usage(&mut unit, &plan::usage_by_project(&rows), -1);
            for disk in &rows {
                unit.push(DiskDelete { id: disk.id, expected_state: disk.state, expected_generation: disk.generation });
            }
            match self.store.commit(unit).await {
                Ok(()) => return Ok(pb::RemoveDisksResponse {}),
                Err(CommitError::Guard(Guard::DiskState)) => {}
                Err(error) => return Err(commit_problem(error)),
            }
        }
        Err(contended("the disks"))
    }
}

fn insertion(disk: &DiskRow) -> DiskInsert {
    DiskInsert {
        id: disk.id,
        project_id: disk.project_id,
        instance_id: disk.instance_id,
        role: disk.role.clone(),
        pool: disk.pool.clone(),
        size_gib: disk.size_gib,
        expires_at: disk.expires_at.unwrap_or(disk.created_at),
        generation: disk.generation,
        created_at: disk.created_at,
    }
}
