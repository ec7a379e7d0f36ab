//! Limits (written by the api-gateway) and usage (written by the service that owns the objects, in the transaction that changes them).
//! Usage is a sum over a batch: what is given back in it counts before what is taken.

use crate::{ReadError, Store};
use domain::{ProjectId, quota::QuotaAmounts};

op! {
    /// Sets all four limits. `expected_generation` 0 means any; starts at generation 1.
    QuotaLimitPut {
        project_id: ProjectId,
        instances: i64,
        vcpus: i64,
        memory_mib: i64,
        disk_gib: i64,
        expected_generation: i64,
    }
    on quota_limit, Insert by (project_id), guard QuotaGeneration:
    "INSERT INTO quota_limit (project_id, instances, vcpus, memory_mib, disk_gib, generation)
     SELECT r.project_id, r.instances, r.vcpus, r.memory_mib, r.disk_gib, r.expected_generation + 1 FROM {rows}
     WHERE r.expected_generation = 0
        OR EXISTS (SELECT 1 FROM quota_limit AS there WHERE there.project_id = r.project_id)
     ON CONFLICT (project_id) DO UPDATE SET instances = excluded.instances, vcpus = excluded.vcpus,
        memory_mib = excluded.memory_mib, disk_gib = excluded.disk_gib, generation = quota_limit.generation + 1
     WHERE excluded.generation IN (1, quota_limit.generation + 1)"
}

op! {
    /// Takes (or with negative amounts gives back) what instances use. An amount that rises must stay within the limit; a project
    /// without a limit has none left.
    ComputeUsageAdd { project_id: ProjectId, instances: i64, vcpus: i64, memory_mib: i64 }
    on compute_usage, Add by (project_id), guard ComputeQuota,
    ensure "INSERT INTO compute_usage (project_id, instances, vcpus, memory_mib)
     SELECT DISTINCT r.project_id, 0, 0, 0 FROM {rows}
     WHERE EXISTS (SELECT 1 FROM project WHERE project.id = r.project_id)
     ON CONFLICT (project_id) DO NOTHING":
    "UPDATE compute_usage SET instances = compute_usage.instances + s.instances,
        vcpus = compute_usage.vcpus + s.vcpus, memory_mib = compute_usage.memory_mib + s.memory_mib
     FROM (SELECT r.project_id, CAST(sum(r.instances) AS BIGINT) AS instances, CAST(sum(r.vcpus) AS BIGINT) AS vcpus,
            CAST(sum(r.memory_mib) AS BIGINT) AS memory_mib FROM {rows} GROUP BY r.project_id) AS s
        LEFT JOIN quota_limit AS q ON q.project_id = s.project_id
     WHERE compute_usage.project_id = s.project_id
     AND (s.instances <= 0 OR compute_usage.instances + s.instances <= COALESCE(q.instances, 0))
     AND (s.vcpus <= 0 OR compute_usage.vcpus + s.vcpus <= COALESCE(q.vcpus, 0))
     AND (s.memory_mib <= 0 OR compute_usage.memory_mib + s.memory_mib <= COALESCE(q.memory_mib, 0))"
}

op! {
    /// Takes (or with a negative amount gives back) what disks use; as [`ComputeUsageAdd`].
    StorageUsageAdd { project_id: ProjectId, disk_gib: i64 }
    on storage_usage, Add by (project_id), guard StorageQuota,
    ensure "INSERT INTO storage_usage (project_id, disk_gib)
     SELECT DISTINCT r.project_id, 0 FROM {rows}
     WHERE EXISTS (SELECT 1 FROM project WHERE project.id = r.project_id)
     ON CONFLICT (project_id) DO NOTHING":
    "UPDATE storage_usage SET disk_gib = storage_usage.disk_gib + s.disk_gib
     FROM (SELECT r.project_id, CAST(sum(r.disk_gib) AS BIGINT) AS disk_gib FROM {rows} GROUP BY r.project_id) AS s
        LEFT JOIN quota_limit AS q ON q.project_id = s.project_id
     WHERE storage_usage.project_id = s.project_id
     AND (s.disk_gib <= 0 OR storage_usage.disk_gib + s.disk_gib <= COALESCE(q.disk_gib, 0))"
}

row! {
    struct LimitRow {
        project_id: ProjectId,
        instances: i64,
        vcpus: i64,
        memory_mib: i64,
        disk_gib: i64,
        generation: i64,
    }
}

row! {
    struct UsageRow { instances: i64, vcpus: i64, memory_mib: i64, disk_gib: i64 }
}

/// A project's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaLimitRow {
    pub project_id: ProjectId,
    pub limit: QuotaAmounts,
    pub generation: i64,
}

impl From<LimitRow> for QuotaLimitRow {
    fn from(row: LimitRow) -> Self {
        let LimitRow { project_id, instances, vcpus, memory_mib, disk_gib, generation } = row;
        Self { project_id, limit: QuotaAmounts { instances, vcpus, memory_mib, disk_gib }, generation }
    }
}

impl Store {
    pub async fn quota_limit_find(&self, project_id: ProjectId) -> Result<Option<QuotaLimitRow>, ReadError> {
        let sql = "SELECT project_id, instances, vcpus, memory_mib, disk_gib, generation
            FROM quota_limit WHERE project_id = $1";
        let row: Option<LimitRow> = self.pool().fetch_optional(sql, [project_id.into()]).await?;
        Ok(row.map(QuotaLimitRow::from))
    }

    /// What the project uses, of compute and storage.
    pub async fn quota_usage(&self, project_id: ProjectId) -> Result<QuotaAmounts, ReadError> {
        let sql = "SELECT COALESCE((SELECT instances FROM compute_usage WHERE project_id = $1), 0) AS instances,
            COALESCE((SELECT vcpus FROM compute_usage WHERE project_id = $1), 0) AS vcpus,
            COALESCE((SELECT memory_mib FROM compute_usage WHERE project_id = $1), 0) AS memory_mib,
            COALESCE((SELECT disk_gib FROM storage_usage WHERE project_id = $1), 0) AS disk_gib";
        let UsageRow { instances, vcpus, memory_mib, disk_gib } =
            self.pool().fetch_one(sql, [project_id.into()]).await?;
        Ok(QuotaAmounts { instances, vcpus, memory_mib, disk_gib })
    }
}
