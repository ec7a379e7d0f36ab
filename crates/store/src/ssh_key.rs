//! SSH public keys of a project. Written by the api-gateway. Instances carry copies, so deleting one changes no instance.

use crate::{Page, ReadError, Store};
use domain::{Name, ProjectId, SshKeyId, Timestamp, ssh_key::SshKey};

op! {
    /// The row starts at generation 1.
    SshKeyInsert {
        id: SshKeyId,
        project_id: ProjectId,
        name: Name,
        public_key: String,
        fingerprint: String,
        created_at: Timestamp,
    }
    on ssh_key, Insert by (id): insert { generation = "1" }
}

op! {
    /// Gone already: `SshKeyGone`, so that what it took of the quota is released once.
    SshKeyDelete { id: SshKeyId }
    on ssh_key, Change by (id), guard SshKeyGone:
    "DELETE FROM ssh_key WHERE id IN (SELECT r.id FROM {rows})"
}

record! { SshKey, of ssh_key { id, project_id, name, public_key, fingerprint, generation, created_at } }

impl Store {
    pub async fn ssh_key_find(&self, project_id: ProjectId, id: SshKeyId) -> Result<Option<SshKey>, ReadError> {
        self.pool().find("WHERE id = $1 AND project_id = $2", [id.into(), project_id.into()]).await
    }

    pub async fn ssh_key_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<SshKey>, ReadError> {
        self.pool().find("WHERE project_id = $1 AND name = $2", [project_id.into(), name.into()]).await
    }

    pub async fn ssh_key_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<SshKey>, ReadError> {
        self.pool().page(project_id, page).await
    }
}
