//! Events. Append-only, written by every service in the transaction of the change. Ids are given last before the commit under the lock on
//! `event_head`, so that id order is commit order: a reader that remembers the last id it saw misses nothing.

use crate::{
    ReadError, Store,
    engine::{
        read::text_array,
        rows::Column,
        unit::{Class, Kind, OpKind},
    },
};
use domain::{
    ProjectId, Timestamp,
    event::{Event, NewEvent},
};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Appends one event; the commit gives it its id.
#[derive(Debug, Clone, PartialEq)]
pub struct EventInsert(pub NewEvent);

impl Serialize for EventInsert {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = &self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("at", &event.at.json())?;
        map.serialize_entry("project_id", &event.project_id.json())?;
        map.serialize_entry("kind", &event.kind)?;
        map.serialize_entry("object_kind", &event.object_kind)?;
        map.serialize_entry("object_id", &event.object_id)?;
        map.serialize_entry("message", &event.message)?;
        map.serialize_entry("request_id", &event.request_id)?;
        map.serialize_entry("data", &event.data.json())?;
        map.end()
    }
}

impl OpKind for EventInsert {
    const KIND: Kind = Kind {
        name: "EventInsert",
        table: "event",
        // Rows don't name theirs: the writer does.
        class: Class::Add,
        guard: None,
        columns: &[
            ("id", i64::TYPE),
            ("at", Timestamp::TYPE),
            ("project_id", ProjectId::TYPE),
            ("kind", String::TYPE),
            ("object_kind", String::TYPE),
            ("object_id", String::TYPE),
            ("message", String::TYPE),
            ("request_id", String::TYPE),
            ("data", serde_json::Value::TYPE),
        ],
        sql: "INSERT INTO event (id, at, project_id, kind, object_kind, object_id, message, request_id, data)
            SELECT r.id, r.at, r.project_id, r.kind, r.object_kind, r.object_id, r.message, r.request_id, r.data FROM {rows}",
        ensure: None,
    };

    fn target(&self) -> u64 {
        0
    }
}

/// The first events of each project, of which the first ones of all are taken: reading `project_id IN (…)` in the order of ids would make the
/// database sort everything that the projects have behind the id.
pub(crate) const AMONG_SQLITE: &str = "WHERE id IN (SELECT e.id FROM json_each($1) AS p CROSS JOIN event AS e
    WHERE e.id IN (SELECT i.id FROM event AS i WHERE i.project_id = p.value AND i.id > $2 ORDER BY i.id LIMIT $3)
    ORDER BY e.id LIMIT $3) ORDER BY id";
const AMONG_POSTGRES: &str = "WHERE id = ANY (ARRAY(SELECT x.id FROM jsonb_array_elements_text($1::jsonb) AS p (project_id)
    CROSS JOIN LATERAL (SELECT i.id FROM event AS i WHERE i.project_id = p.project_id AND i.id > $2 ORDER BY i.id LIMIT $3) AS x
    ORDER BY x.id LIMIT $3)) ORDER BY id";

op! {
    /// Forgets those that happened before `before`, at most 2,000: see [`crate::Retention`].
    EventExpire { before: Timestamp }
    on event, Change by (before): expire id by at
}

record! { Event, of event { id, at, project_id, kind, object_kind, object_id, message, request_id, data } }

row! {
    struct HeadRow { oldest: i64, newest: i64 }
}

impl Store {
    /// Those with greater ids than `id`, the oldest first: of one project, or (`None`) all.
    pub async fn event_after(
        &self,
        id: i64,
        project_id: Option<ProjectId>,
        limit: u32,
    ) -> Result<Vec<Event>, ReadError> {
        match project_id {
            Some(project_id) => {
                let sql = "WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3";
                self.pool().list(sql, [project_id.into(), id.into(), limit.into()]).await
            }
            None => self.pool().list("WHERE id > $1 ORDER BY id LIMIT $2", [id.into(), limit.into()]).await,
        }
    }

    /// Those of some projects with greater ids than `id`, the oldest first. Each project's index is read from `id` on, never more than `limit` of it.
    pub async fn event_after_among(
        &self,
        id: i64,
        projects: &[ProjectId],
        limit: u32,
    ) -> Result<Vec<Event>, ReadError> {
        let sql = self.pool().pick(AMONG_SQLITE, AMONG_POSTGRES);
        self.pool().list(sql, [text_array(projects), id.into(), limit.into()]).await
    }

    /// (oldest, newest) id. Without events the oldest is the one that comes next: `newest + 1`. A reader whose last id is smaller than
    /// `oldest - 1` has missed some.
    pub async fn event_head(&self) -> Result<(i64, i64), ReadError> {
        let sql =
            "SELECT COALESCE((SELECT min(id) FROM event), last_id + 1) AS oldest, last_id AS newest FROM event_head";
        let HeadRow { oldest, newest } = self.pool().fetch_one(sql, []).await?;
        Ok((oldest, newest))
    }

    /// The last events of an object, the oldest first. The object may be gone.
    pub async fn event_last_of_object(&self, object_id: &str, limit: u32) -> Result<Vec<Event>, ReadError> {
        let sql = "WHERE object_id = $1 ORDER BY id DESC LIMIT $2";
        let mut events: Vec<Event> = self.pool().list(sql, [object_id.into(), limit.into()]).await?;
        events.reverse();
        Ok(events)
    }

    /// An object's timeline, the oldest first. The object may be gone.
    pub async fn event_of_object(&self, object_id: &str, after: i64, limit: u32) -> Result<Vec<Event>, ReadError> {
        let sql = "WHERE object_id = $1 AND id > $2 ORDER BY id LIMIT $3";
        self.pool().list(sql, [object_id.into(), after.into(), limit.into()]).await
    }
}
