//! Projects, and who has which role in them. Written by the api-gateway. A project is deleted only when nothing is left in it; its
//! bindings, keys, limit and usage rows go with it.

use crate::{
    Page, ReadError, Store,
    engine::read::{IdRow, text_array},
};
use domain::{Name, ProjectId, Timestamp, UserId, policy::Role};
use sqlx::AssertSqlSafe;
use std::collections::HashSet;

op! {
    /// The row starts at generation 1.
    ProjectInsert { id: ProjectId, name: Name, description: String, created_at: Timestamp }
    on project, Insert by (id): insert { generation = "1" }
}

op! {
    ProjectUpdate { id: ProjectId, expected_generation: i64, name: Name, description: String }
    on project, Change by (id), guard ProjectGeneration:
    "UPDATE project SET name = r.name, description = r.description, generation = r.expected_generation + 1
     FROM {rows} WHERE project.id = r.id AND project.generation = r.expected_generation"
}

op! {
    /// Only when it has no instances, images, disks, ports or floating IPs, and no network or security group but the `default` ones (else,
    /// or when it is gone already: `ProjectInUse`). The default ones go with it.
    ProjectDelete { id: ProjectId }
    on project, Change by (id), guard ProjectInUse:
    "DELETE FROM project WHERE id IN (SELECT r.id FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.project_id = project.id)
     AND NOT EXISTS (SELECT 1 FROM image WHERE image.project_id = project.id)
     AND NOT EXISTS (SELECT 1 FROM disk WHERE disk.project_id = project.id)
     AND NOT EXISTS (SELECT 1 FROM port WHERE port.project_id = project.id)
     AND NOT EXISTS (SELECT 1 FROM floating_ip WHERE floating_ip.project_id = project.id)
     AND NOT EXISTS (SELECT 1 FROM network WHERE network.project_id = project.id AND network.name <> 'default')
     AND NOT EXISTS (SELECT 1 FROM security_group AS g WHERE g.project_id = project.id AND g.name <> 'default')"
}

op! {
    /// Gives the role, or replaces the one there is.
    RoleBindingPut { project_id: ProjectId, user_id: UserId, role: Role, created_at: Timestamp }
    on role_binding, Insert by (project_id, user_id): insert
    "WHERE TRUE ON CONFLICT (project_id, user_id) DO UPDATE SET role = excluded.role"
}

op! {
    RoleBindingDelete { project_id: ProjectId, user_id: UserId }
    on role_binding, Change by (project_id, user_id):
    "DELETE FROM role_binding WHERE (project_id, user_id) IN (SELECT r.project_id, r.user_id FROM {rows})"
}

row! {
    pub struct ProjectRow of project {
        pub id: ProjectId,
        pub name: Name,
        pub description: String,
        pub generation: i64,
        pub created_at: Timestamp,
    }
}

row! {
    pub struct RoleBindingRow of role_binding {
        pub project_id: ProjectId,
        pub user_id: UserId,
        pub role: Role,
        pub created_at: Timestamp,
    }
}

row! {
    /// A binding with its user's name.
    pub struct RoleMemberRow {
        pub project_id: ProjectId,
        pub user_id: UserId,
        pub user_name: Name,
        pub role: Role,
        pub created_at: Timestamp,
    }
}

impl Store {
    pub async fn project_find(&self, id: ProjectId) -> Result<Option<ProjectRow>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn project_find_by_name(&self, name: &str) -> Result<Option<ProjectRow>, ReadError> {
        self.pool().find("WHERE name = $1", [name.into()]).await
    }

    pub async fn project_list(&self, page: Page) -> Result<Vec<ProjectRow>, ReadError> {
        self.pool().page(None, page).await
    }

    /// Those of `ids` that there aren't any more.
    pub async fn project_gone(&self, ids: &[ProjectId]) -> Result<Vec<ProjectId>, ReadError> {
        let sql = format!("SELECT id FROM project WHERE id {}", self.pool().in_texts(1));
        let there: Vec<IdRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(ids)]).await?;
        let there: HashSet<String> = there.into_iter().map(|row| row.id).collect();
        Ok(ids.iter().copied().filter(|id| !there.contains(&id.to_string())).collect())
    }

    /// Those in which the user has a role.
    pub async fn project_list_of_user(&self, user_id: UserId, page: Page) -> Result<Vec<ProjectRow>, ReadError> {
        let sql = "SELECT p.id, p.name, p.description, p.generation, p.created_at
            FROM project AS p JOIN role_binding AS b ON b.project_id = p.id
            WHERE b.user_id = $1 AND p.id > $2 ORDER BY p.id LIMIT $3";
        self.pool().fetch_all(sql, [user_id.into(), page.after_text().into(), page.limit.into()]).await
    }

    /// Ordered by project.
    pub async fn role_binding_list_of_user(&self, user_id: UserId) -> Result<Vec<RoleBindingRow>, ReadError> {
        self.pool().list("WHERE user_id = $1 ORDER BY project_id", [user_id.into()]).await
    }

    /// Ordered by user.
    pub async fn role_binding_list_of_project(&self, project_id: ProjectId) -> Result<Vec<RoleMemberRow>, ReadError> {
        let sql = "SELECT b.project_id, b.user_id, u.name AS user_name, b.role, b.created_at
            FROM role_binding AS b JOIN user_account AS u ON u.id = b.user_id
            WHERE b.project_id = $1 ORDER BY b.user_id";
        self.pool().fetch_all(sql, [project_id.into()]).await
    }
}
