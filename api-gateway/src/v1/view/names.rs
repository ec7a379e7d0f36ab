//! The closed lists of values, as the API's description names them.

pub use api_types::names::*;

use crate::app::instance_wait::WaitTarget;
use serde::Serialize;
use utoipa::ToSchema;

/// What is waited for.
#[derive(Serialize, ToSchema)]
#[schema(as = WaitTarget)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code)]
pub enum WaitTargetName {
    Running,
    Stopped,
    Paused,
    Guest,
    Deleted,
}

const _: fn(WaitTarget) = |target| match target {
    WaitTarget::Running | WaitTarget::Stopped | WaitTarget::Paused | WaitTarget::Guest | WaitTarget::Deleted => {}
};
