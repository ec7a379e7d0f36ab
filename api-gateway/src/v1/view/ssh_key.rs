//! SSH keys.

pub use api_types::SshKey as SshKeyView;

use domain::Name;
use serde::Deserialize;
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SshKeyCreate {
    #[schema(value_type = String)]
    pub name: Name,
    /// The line of a `.pub` file.
    pub public_key: String,
}
