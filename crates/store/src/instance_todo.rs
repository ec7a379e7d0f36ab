//! What is left to do for instances, as rows: written in the transaction that makes the work, deleted when it is done. So what a crash
//! interrupts is found without reading all instances, disks and ports. Written by the cluster-manager.

use crate::{ReadError, Store};
use domain::{InstanceId, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceTodo {
    /// The row is gone; the owners of its disks and ports must be told.
    RemoveClaims,
    /// A NIC is no longer desired; its port is to be removed once the host proves that it is detached.
    RemovePorts,
    /// It is being preempted: it is to be deleted once it has stopped, or its notice is over.
    Preempt,
}

impl InstanceTodo {
    pub const ALL: [Self; 3] = [Self::RemoveClaims, Self::RemovePorts, Self::Preempt];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RemoveClaims => "remove_claims",
            Self::RemovePorts => "remove_ports",
            Self::Preempt => "preempt",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|todo| todo.as_str() == text)
    }
}

op! {
    /// The work is made by this unit. Asked for twice it is one.
    InstanceTodoPut { todo: InstanceTodo, instance_id: InstanceId, created_at: Timestamp }
    on instance_todo, Insert by (todo, instance_id): insert
    "WHERE TRUE ON CONFLICT (todo, instance_id) DO UPDATE SET created_at = excluded.created_at"
}

op! {
    /// The work that was there at `created_at` is done. What was asked for since then stays.
    InstanceTodoDone { todo: InstanceTodo, instance_id: InstanceId, created_at: Timestamp }
    on instance_todo, Change by (todo, instance_id):
    "DELETE FROM instance_todo WHERE (todo, instance_id, created_at) IN (SELECT r.todo, r.instance_id, r.created_at FROM {rows})"
}

row! {
    #[derive(Eq)]
    pub struct InstanceTodoRow of instance_todo {
        pub todo: InstanceTodo,
        pub instance_id: InstanceId,
        pub created_at: Timestamp,
    }
}

impl InstanceTodoRow {
    #[must_use]
    pub fn done(&self) -> InstanceTodoDone {
        InstanceTodoDone { todo: self.todo, instance_id: self.instance_id, created_at: self.created_at }
    }
}

impl Store {
    /// By instance, so that the same rows are found again until they are done: give `after` to come past them.
    pub async fn instance_todo_list(
        &self,
        todo: InstanceTodo,
        after: Option<InstanceId>,
        limit: u32,
    ) -> Result<Vec<InstanceTodoRow>, ReadError> {
        let sql = "WHERE todo = $1 AND instance_id > $2 ORDER BY instance_id LIMIT $3";
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        self.pool().list(sql, [todo.as_str().into(), after.into(), limit.into()]).await
    }
}
