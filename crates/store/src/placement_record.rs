//! What placement refused, and what it decided of instances that are gone. Written by the cluster-manager, kept for a time and to a number
//! per project.
//!
//! A decision that stands is in its instance's row, so that a create writes no row for it; the unit that ends the instance moves it here.
//! Refusals come after their answer was given, many in one unit: nothing in them may fail it, so there is no foreign key.

use crate::{ReadError, Store, engine::read::Bind, instance::Conditions};
use domain::{
    InstanceId, Name, PlacementRecordId, ProjectId, Timestamp,
    explain::PlacementRecord,
    placement::{KeptPlacement, PlacementOutcome},
};
use std::collections::BTreeSet;

op! {
    PlacementRecordInsert {
        id: PlacementRecordId,
        project_id: ProjectId,
        instance_id: InstanceId,
        instance_name: Name,
        outcome: PlacementOutcome,
        record: Option<PlacementRecord>,
        kept_at: Timestamp,
    }
    on placement_record, Insert by (id): insert
}

op! {
    /// Keeps the decision of an instance whose row goes in this unit, if it has one.
    PlacementRecordKeep { id: PlacementRecordId, instance_id: InstanceId, kept_at: Timestamp }
    on placement_record, Insert by (id):
    "INSERT INTO placement_record (id, project_id, instance_id, instance_name, outcome, record, kept_at)
     SELECT r.id, i.project_id, i.id, i.name, 'placed', i.placement, r.kept_at
     FROM {rows} JOIN instance AS i ON i.id = r.instance_id WHERE i.placement <> '{}'"
}

op! {
    /// At most 2,000: see [`crate::Retention`].
    PlacementRecordExpire { before: Timestamp }
    on placement_record, Change by (before): expire id by kept_at
}

op! {
    /// Forgets a project's records up to `last`, at most 2,000.
    PlacementRecordTrim { project_id: ProjectId, last: PlacementRecordId }
    on placement_record, Change by (project_id):
    "DELETE FROM placement_record WHERE id IN (SELECT p.id FROM {rows} JOIN placement_record AS p
        ON p.project_id = r.project_id AND p.id <= r.last ORDER BY p.id LIMIT 2000)"
}

row! {
    struct RecordRow of placement_record {
        id: PlacementRecordId,
        project_id: ProjectId,
        instance_id: InstanceId,
        instance_name: Name,
        outcome: PlacementOutcome,
        record: Option<PlacementRecord>,
        kept_at: Timestamp,
    }
}

impl RecordRow {
    /// `None`: a row without its document, which nobody writes.
    fn kept(self) -> Option<KeptPlacement> {
        let Self { id, project_id, instance_id, instance_name, outcome, record, kept_at } = self;
        Some(KeptPlacement { id, project_id, instance_id, instance_name, outcome, record: record?, kept_at })
    }
}

row! {
    struct CrowdedRow { id: ProjectId }
}

row! {
    struct LastRow { id: PlacementRecordId }
}

/// Which records. Every condition that is given must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlacementRecordFilter {
    /// None: of all projects.
    pub project_id: Option<ProjectId>,
    pub outcome: Option<PlacementOutcome>,
    pub instance_id: Option<InstanceId>,
    pub instance_name: Option<String>,
    /// The last id of the page before, in the order of the list.
    pub after: Option<PlacementRecordId>,
    pub limit: u32,
    pub newest_first: bool,
}

impl Store {
    /// `project_id`: it must be of this project; `None`: of any.
    pub async fn placement_record_find(
        &self,
        project_id: Option<ProjectId>,
        id: PlacementRecordId,
    ) -> Result<Option<KeptPlacement>, ReadError> {
        let row: Option<RecordRow> = self.pool().find("WHERE id = $1", [id.into()]).await?;
        Ok(row.filter(|row| project_id.is_none_or(|p| p == row.project_id)).and_then(RecordRow::kept))
    }

    /// Ordered by id, which is by when it was kept.
    pub async fn placement_record_list(&self, filter: &PlacementRecordFilter) -> Result<Vec<KeptPlacement>, ReadError> {
        let mut conditions = Conditions::default();
        let equal: [(&str, Option<Bind>); 4] = [
            ("project_id = {}", filter.project_id.map(Bind::from)),
            ("outcome = {}", filter.outcome.map(|outcome| outcome.as_str().into())),
            ("instance_id = {}", filter.instance_id.map(Bind::from)),
            ("instance_name = {}", filter.instance_name.as_deref().map(Bind::from)),
        ];
        for (sql, bind) in equal {
            if let Some(bind) = bind {
                conditions.and(sql, [bind]);
            }
        }
        if let Some(after) = filter.after {
            conditions.and(if filter.newest_first { "id < {}" } else { "id > {}" }, [after.into()]);
        }
        let order = if filter.newest_first { "DESC" } else { "ASC" };
        let Conditions { sql, mut binds } = conditions;
        binds.push(filter.limit.into());
        let sql = format!("{sql} ORDER BY id {order} LIMIT ${}", binds.len());
        let rows: Vec<RecordRow> = self.pool().list(&sql, binds).await?;
        Ok(rows.into_iter().filter_map(RecordRow::kept).collect())
    }

    /// Projects that got records since then: no other can have too many by now.
    pub async fn placement_record_projects(&self, since: Timestamp) -> Result<Vec<ProjectId>, ReadError> {
        // In the order of the index by time: asked for distinct projects, SQLite would read all of the index by project.
        let sql = "SELECT project_id AS id FROM placement_record WHERE kept_at >= $1 ORDER BY kept_at";
        let rows: Vec<CrowdedRow> = self.pool().fetch_all(sql, [since.into()]).await?;
        let projects: BTreeSet<ProjectId> = rows.into_iter().map(|row| row.id).collect();
        Ok(projects.into_iter().collect())
    }

    /// The newest record of the project that is one too many when `most` may be kept.
    pub async fn placement_record_excess(
        &self,
        project_id: ProjectId,
        most: u32,
    ) -> Result<Option<PlacementRecordId>, ReadError> {
        let sql = "SELECT id FROM placement_record WHERE project_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2";
        let row: Option<LastRow> = self.pool().fetch_optional(sql, [project_id.into(), most.into()]).await?;
        Ok(row.map(|row| row.id))
    }
}
