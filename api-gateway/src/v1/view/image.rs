//! The bytes of images.

use utoipa::ToSchema;

/// Bytes, for the API's description.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)]
pub struct ImageBytes(Vec<u8>);
