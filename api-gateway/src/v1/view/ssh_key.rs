//! SSH keys.

use domain::{Name, ProjectId, SshKeyId, Timestamp, ssh_key::SshKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = SshKey)]
pub struct SshKeyView {
    #[schema(value_type = String, format = "uuid")]
    pub id: SshKeyId,
    #[schema(value_type = String, format = "uuid")]
    pub project_id: ProjectId,
    #[schema(value_type = String)]
    pub name: Name,
    /// One line: type, base64, comment.
    pub public_key: String,
    /// As `ssh-keygen -l` prints it.
    pub fingerprint: String,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<SshKey> for SshKeyView {
    fn from(key: SshKey) -> Self {
        Self {
            id: key.id,
            project_id: key.project_id,
            name: key.name,
            public_key: key.public_key,
            fingerprint: key.fingerprint,
            generation: key.generation,
            created_at: key.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SshKeyCreate {
    #[schema(value_type = String)]
    pub name: Name,
    /// The line of a `.pub` file.
    pub public_key: String,
}
