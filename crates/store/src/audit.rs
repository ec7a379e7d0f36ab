//! The audit log: who asked for what, and what came of it. Append-only; every service writes it in the transaction of the change.

use crate::{
    Page, ReadError, Store,
    engine::{
        rows::{Column, SqlType},
        unit::{Class, Kind, OpKind, target_of},
    },
};
use domain::{AuditId, ProjectId, Timestamp, event::AuditEntry};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Appends one line.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditInsert(pub AuditEntry);

/// Adds to the count of a line that is there, or appends it.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditAdd(pub AuditEntry);

impl Serialize for AuditAdd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        AuditLine(&self.0).serialize(serializer)
    }
}

impl Serialize for AuditInsert {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        AuditLine(&self.0).serialize(serializer)
    }
}

/// An entry as the statements' row.
struct AuditLine<'a>(&'a AuditEntry);

impl Serialize for AuditLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &entry.id.json())?;
        map.serialize_entry("at", &entry.at.json())?;
        map.serialize_entry("principal", &entry.principal)?;
        map.serialize_entry("principal_name", &entry.principal_name)?;
        map.serialize_entry("project_id", &entry.project_id.json())?;
        map.serialize_entry("action", &entry.action)?;
        map.serialize_entry("object_kind", &entry.object_kind)?;
        map.serialize_entry("object_id", &entry.object_id)?;
        map.serialize_entry("request_id", &entry.request_id)?;
        map.serialize_entry("outcome", &entry.outcome)?;
        map.serialize_entry("detail", &entry.detail)?;
        map.serialize_entry("count", &entry.count)?;
        map.end()
    }
}

const COLUMNS: &[(&str, SqlType)] = &[
    ("id", AuditId::TYPE),
    ("at", Timestamp::TYPE),
    ("principal", String::TYPE),
    ("principal_name", String::TYPE),
    ("project_id", ProjectId::TYPE),
    ("action", String::TYPE),
    ("object_kind", String::TYPE),
    ("object_id", String::TYPE),
    ("request_id", String::TYPE),
    ("outcome", String::TYPE),
    ("detail", String::TYPE),
    ("count", i64::TYPE),
];

macro_rules! insert_line {
    ($($tail:literal)?) => {
        concat!(
            "INSERT INTO audit (id, at, principal, principal_name, project_id, action, object_kind, object_id, request_id,
                outcome, detail, count)
            SELECT r.id, r.at, r.principal, r.principal_name, r.project_id, r.action, r.object_kind, r.object_id, r.request_id,
                r.outcome, r.detail, r.count FROM {rows}" $(, $tail)?
        )
    };
}

impl OpKind for AuditAdd {
    const KIND: Kind = Kind {
        name: "AuditAdd",
        table: "audit",
        class: Class::Insert,
        guard: None,
        columns: COLUMNS,
        sql: insert_line!(" WHERE TRUE ON CONFLICT (id) DO UPDATE SET count = audit.count + excluded.count"),
        ensure: None,
    };

    fn target(&self) -> u64 {
        target_of("audit", self.0.id)
    }
}

impl OpKind for AuditInsert {
    const KIND: Kind = Kind {
        name: "AuditInsert",
        table: "audit",
        class: Class::Insert,
        guard: None,
        columns: COLUMNS,
        sql: insert_line!(),
        ensure: None,
    };

    fn target(&self) -> u64 {
        target_of("audit", self.0.id)
    }
}

op! {
    /// Forgets lines that are older than `before`, at most 2,000: see [`crate::Retention`].
    AuditExpire { before: Timestamp }
    on audit, Change by (before): expire id by at
}

record! {
    AuditEntry, of audit {
        id, at, principal, principal_name, project_id, action, object_kind, object_id, request_id, outcome, detail, count
    }
}

impl Store {
    /// Of one project, or (`None`) of all and of the system.
    pub async fn audit_list(&self, project_id: Option<ProjectId>, page: Page) -> Result<Vec<AuditEntry>, ReadError> {
        self.pool().page(project_id, page).await
    }
}
