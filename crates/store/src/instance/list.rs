//! Lists of instances: filtered for people, by host and by deadline for the reconciler, summed for the checker.

use super::InstanceRow;
use crate::{
    ReadError, Store,
    engine::read::{Bind, IdRow, text_array},
};
use domain::{HostId, ImageId, InstanceId, ProjectId, Timestamp, flavor::Size, instance::InstanceState};
use sqlx::AssertSqlSafe;
use std::collections::HashSet;

/// Which instances. Every condition that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceFilter {
    pub project_id: Option<ProjectId>,
    /// Any of these; empty: any at all.
    pub state: Vec<InstanceState>,
    pub host_id: Option<HostId>,
    pub image_id: Option<ImageId>,
    pub name: Option<String>,
    pub name_prefix: Option<String>,
    /// Key and value, all of them.
    pub tag: Vec<(String, String)>,
    /// The last id of the page before, in the order of the list.
    pub after: Option<InstanceId>,
    pub limit: u32,
    pub newest_first: bool,
}

/// What a host's instances claim in sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostClaims {
    pub host_id: HostId,
    pub instances: i64,
    pub claim: Size,
}

row! {
    struct ClaimColumns { host_id: HostId, instances: i64, vcpus: u32, memory_mib: u64, disk_gib: u64 }
}

/// A `WHERE` that grows, with its binds.
#[derive(Default)]
pub(crate) struct Conditions {
    pub(crate) sql: String,
    pub(crate) binds: Vec<Bind>,
}

impl Conditions {
    /// `{}` in `sql` becomes the parameter's number.
    pub(crate) fn and(&mut self, sql: &str, binds: impl IntoIterator<Item = Bind>) {
        self.sql.push_str(if self.sql.is_empty() { "WHERE " } else { " AND " });
        let mut parts = sql.split("{}");
        self.sql.push_str(parts.next().unwrap_or_default());
        for (part, bind) in parts.zip(binds) {
            self.binds.push(bind);
            self.sql.push_str(&format!("${}{part}", self.binds.len()));
        }
    }
}

impl Store {
    /// Ordered by id, which is by creation.
    pub async fn instance_list(&self, filter: &InstanceFilter) -> Result<Vec<InstanceRow>, ReadError> {
        let mut conditions = Conditions::default();
        if let Some(project_id) = filter.project_id {
            conditions.and("project_id = {}", [project_id.into()]);
        }
        if let Some(host_id) = filter.host_id {
            conditions.and("host_id = {}", [host_id.into()]);
        }
        if let Some(image_id) = filter.image_id {
            conditions.and("image_id = {}", [image_id.into()]);
        }
        if !filter.state.is_empty() {
            let states = filter.state.iter().map(|state| state.as_str());
            let texts = self.pool().pick(
                "state IN (SELECT value FROM json_each({}))",
                "state IN (SELECT jsonb_array_elements_text({}::jsonb))",
            );
            conditions.and(texts, [text_array(states)]);
        }
        if let Some(name) = &filter.name {
            conditions.and("name = {}", [name.as_str().into()]);
        }
        if let Some(prefix) = &filter.name_prefix {
            let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
            conditions.and("substr(name, 1, CAST({} AS INTEGER)) = {}", [length.into(), prefix.as_str().into()]);
        }
        for (key, value) in &filter.tag {
            let has = self.pool().pick(
                "EXISTS (SELECT 1 FROM json_each(tags) AS tag WHERE tag.key = {} AND tag.value = {})",
                "tags::jsonb ->> {} = {}",
            );
            conditions.and(has, [key.as_str().into(), value.as_str().into()]);
        }
        if let Some(after) = filter.after {
            conditions.and(if filter.newest_first { "id < {}" } else { "id > {}" }, [after.into()]);
        }
        let order = if filter.newest_first { "DESC" } else { "ASC" };
        conditions.binds.push(filter.limit.into());
        let Conditions { sql, binds } = conditions;
        let sql = format!("{sql} ORDER BY id {order} LIMIT ${}", binds.len());
        self.pool().list(&sql, binds).await
    }

    /// All that the host holds, by id: a row stands until its end on the host is proven.
    pub async fn instance_list_of_host(&self, host_id: HostId) -> Result<Vec<InstanceId>, ReadError> {
        let sql = "SELECT id FROM instance WHERE host_id = $1 ORDER BY id";
        let rows: Vec<IdRow> = self.pool().fetch_all(sql, [host_id.into()]).await?;
        Ok(instance_ids(rows))
    }

    /// Those whose deadline has passed, the longest overdue first.
    pub async fn instance_deadline_passed(&self, now: Timestamp, limit: u32) -> Result<Vec<InstanceId>, ReadError> {
        let sql = "SELECT id FROM instance WHERE deadline_at IS NOT NULL AND deadline_at <= $1
            ORDER BY deadline_at, id LIMIT $2";
        let rows: Vec<IdRow> = self.pool().fetch_all(sql, [now.into(), limit.into()]).await?;
        Ok(instance_ids(rows))
    }

    /// Those that aren't settled, by id: what must be taken up after a start. What is shown as failed may still be on its way.
    pub async fn instance_list_unsettled(
        &self,
        after: Option<InstanceId>,
        limit: u32,
    ) -> Result<Vec<InstanceRow>, ReadError> {
        // As the partial index has it.
        let sql = "WHERE state NOT IN ('running', 'paused', 'stopped', 'suspended') AND id > $1 ORDER BY id LIMIT $2";
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.pool().list(sql, [after.into(), limit.into()]).await
    }

    /// Those of `ids` that there aren't any more.
    pub async fn instance_gone(&self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, ReadError> {
        let sql = format!("SELECT id FROM instance WHERE id {}", self.pool().in_texts(1));
        let there: Vec<IdRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(ids)]).await?;
        let there: HashSet<InstanceId> = instance_ids(there).into_iter().collect();
        Ok(ids.iter().copied().filter(|id| !there.contains(id)).collect())
    }

    /// What instances claim, by host: the invariant checker compares it with what hosts count as used.
    pub async fn instance_host_claims(&self) -> Result<Vec<HostClaims>, ReadError> {
        let sql = "SELECT host_id, count(*) AS instances, CAST(sum(claim_vcpus) AS BIGINT) AS vcpus,
                CAST(sum(claim_memory_mib) AS BIGINT) AS memory_mib, CAST(sum(claim_disk_gib) AS BIGINT) AS disk_gib
            FROM instance WHERE host_id IS NOT NULL GROUP BY host_id ORDER BY host_id";
        let rows: Vec<ClaimColumns> = self.pool().fetch_all(sql, []).await?;
        let claims = rows.into_iter().map(|row| HostClaims {
            host_id: row.host_id,
            instances: row.instances,
            claim: Size { vcpus: row.vcpus, memory_mib: row.memory_mib, disk_gib: row.disk_gib },
        });
        Ok(claims.collect())
    }
}

fn instance_ids(rows: Vec<IdRow>) -> Vec<InstanceId> {
    // Only this crate writes the column, from an id.
    rows.iter().filter_map(|row| row.id.parse().ok()).collect()
}
