//! User accounts. Written by the api-gateway. Deleting one takes its bindings, keys and refresh tokens along.

use crate::{Page, ReadError, Store, engine::read::Count};
use domain::{Name, Timestamp, UserId};

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
    /// A field that is `None` stays as it is.
    UserUpdate {
        id: UserId,
        expected_generation: i64,
        password_hash: Option<String>,
        system_admin: Option<bool>,
        enabled: Option<bool>,
    }
    on user_account, Change by (id), guard UserGeneration:
    "UPDATE user_account SET password_hash = COALESCE(r.password_hash, user_account.password_hash),
        system_admin = COALESCE(r.system_admin, user_account.system_admin),
        enabled = COALESCE(r.enabled, user_account.enabled), generation = r.expected_generation + 1
     FROM {rows} WHERE user_account.id = r.id AND user_account.generation = r.expected_generation"
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
