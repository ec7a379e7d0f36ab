//! SSH public keys of a project. Written by the api-gateway. Instances carry copies, so deleting one changes no instance.

use crate::{Page, ReadError, Store};
use domain::{Name, ProjectId, SshKeyId, Timestamp, ssh_key::SshKey};

op! {
    /// Starts at generation 1.
    SshKeyInsert {
        id: SshKeyId,
        project_id: ProjectId,
        name: Name,
        public_key: String,
        fingerprint: String,
        created_at: Timestamp,
    }
    on ssh_key, Insert by (id):
    "INSERT INTO ssh_key (id, project_id, name, public_key, fingerprint, generation, created_at)
     SELECT r.id, r.project_id, r.name, r.public_key, r.fingerprint, 1, r.created_at FROM {rows}"
}

op! {
    SshKeyDelete { id: SshKeyId }
    on ssh_key, Change by (id):
    "DELETE FROM ssh_key WHERE id IN (SELECT r.id FROM {rows})"
}

row! {
    struct SshKeyRow {
        id: SshKeyId,
        project_id: ProjectId,
        name: Name,
        public_key: String,
        fingerprint: String,
        generation: i64,
        created_at: Timestamp,
    }
}

impl From<SshKeyRow> for SshKey {
    fn from(row: SshKeyRow) -> Self {
        let SshKeyRow { id, project_id, name, public_key, fingerprint, generation, created_at } = row;
        Self { id, project_id, name, public_key, fingerprint, generation, created_at }
    }
}

impl Store {
    pub async fn ssh_key_find(&self, project_id: ProjectId, id: SshKeyId) -> Result<Option<SshKey>, ReadError> {
        let sql = "SELECT id, project_id, name, public_key, fingerprint, generation, created_at
            FROM ssh_key WHERE id = $1 AND project_id = $2";
        let row: Option<SshKeyRow> = self.pool().fetch_optional(sql, [id.into(), project_id.into()]).await?;
        Ok(row.map(SshKey::from))
    }

    pub async fn ssh_key_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<SshKey>, ReadError> {
        let sql = "SELECT id, project_id, name, public_key, fingerprint, generation, created_at
            FROM ssh_key WHERE project_id = $1 AND name = $2";
        let row: Option<SshKeyRow> = self.pool().fetch_optional(sql, [project_id.into(), name.into()]).await?;
        Ok(row.map(SshKey::from))
    }

    pub async fn ssh_key_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<SshKey>, ReadError> {
        let sql = "SELECT id, project_id, name, public_key, fingerprint, generation, created_at
            FROM ssh_key WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3";
        let binds = [project_id.into(), page.after_text().into(), page.limit.into()];
        let rows: Vec<SshKeyRow> = self.pool().fetch_all(sql, binds).await?;
        Ok(rows.into_iter().map(SshKey::from).collect())
    }
}
