//! Backups of the database.

use domain::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    pub name: String,
    /// Where it lies on the API's machine.
    pub path: String,
    pub size_bytes: u64,
    /// In lower-case hexadecimal digits; empty when the file beside the copy is gone.
    pub sha256: String,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}
