//! User accounts. Written by the api-gateway. Deleting one takes its bindings, keys and refresh tokens along.

use crate::{Page, ReadError, Store, engine::read::Count};
use domain::{Name, ProjectId, Timestamp, UserId};

op! {
    /// The row starts at generation 1.
    UserInsert {
        id: UserId,
        name: Name,
        /// argon2id, PHC text.
        password_hash: String,
        system_admin: bool,
        enabled: bool,
        created_at: Timestamp,
    }
    on user_account, Insert by (id): insert { generation = "1" }
}

op! {
    /// A field that is `None` stays as it is. A new password, and disabling, end the sessions of before.
    UserUpdate {
        id: UserId,
        expected_generation: i64,
        password_hash: Option<String>,
        system_admin: Option<bool>,
        enabled: Option<bool>,
        home_project_id: Option<ProjectId>,
    }
    on user_account, Change by (id), guard UserGeneration:
    "UPDATE user_account SET password_hash = COALESCE(r.password_hash, user_account.password_hash),
        system_admin = COALESCE(r.system_admin, user_account.system_admin),
        enabled = COALESCE(r.enabled, user_account.enabled),
        home_project_id = COALESCE(r.home_project_id, user_account.home_project_id),
        session_version = user_account.session_version
            + CASE WHEN r.password_hash IS NOT NULL OR NOT COALESCE(r.enabled, TRUE) THEN 1 ELSE 0 END,
        generation = r.expected_generation + 1
     FROM {rows} WHERE user_account.id = r.id AND user_account.generation = r.expected_generation"
}

op! {
    /// Gives a home to a user who has none yet.
    UserHomeDefault { user_id: UserId, project_id: ProjectId }
    on user_account, Change by (user_id):
    "UPDATE user_account SET home_project_id = r.project_id FROM {rows}
     WHERE user_account.id = r.user_id AND user_account.home_project_id IS NULL"
}

op! {
    /// Takes the home away, if it is this project.
    UserHomeClear { user_id: UserId, project_id: ProjectId }
    on user_account, Change by (user_id):
    "UPDATE user_account SET home_project_id = NULL FROM {rows}
     WHERE user_account.id = r.user_id AND user_account.home_project_id = r.project_id"
}

op! {
    UserDelete { id: UserId }
    on user_account, Change by (id):
    "DELETE FROM user_account WHERE id IN (SELECT r.id FROM {rows})"
}

row! {
    pub struct UserRow of user_account {
        pub id: UserId,
        pub name: Name,
        pub password_hash: String,
        pub system_admin: bool,
        pub enabled: bool,
        pub generation: i64,
        pub session_version: i64,
        pub home_project_id: Option<ProjectId>,
        pub created_at: Timestamp,
    }
}

impl Store {
    pub async fn user_find(&self, id: UserId) -> Result<Option<UserRow>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn user_find_by_name(&self, name: &str) -> Result<Option<UserRow>, ReadError> {
        self.pool().find("WHERE name = $1", [name.into()]).await
    }

    pub async fn user_list(&self, page: Page) -> Result<Vec<UserRow>, ReadError> {
        self.pool().page(None, page).await
    }

    /// 0 on a fresh installation.
    pub async fn user_count(&self) -> Result<i64, ReadError> {
        let count: Count = self.pool().fetch_one("SELECT count(*) AS n FROM user_account", []).await?;
        Ok(count.n)
    }
}
