//! What the answers of mutations have in common: a dry run's plan, an object with its generation, nothing.

use super::view::plan::{DryRun, plan_view};
use crate::{
    app::plan::{Done, Plan},
    http::{problem::ApiResult, reply},
};
use http::StatusCode;
use serde::Serialize;

pub fn planned(plan: Plan) -> ApiResult {
    reply::json(StatusCode::OK, &DryRun { dry_run: true, plan: plan_view(plan) })
}

/// The answer of a deletion.
pub fn deleted(done: Done<()>) -> ApiResult {
    match done {
        Done::Plan(plan) => planned(plan),
        Done::Change(()) => Ok(reply::no_content()),
    }
}

/// An object, with its generation as the ETag.
pub fn object<T, V: Serialize>(
    status: StatusCode,
    done: Done<T>,
    generation: impl Fn(&T) -> i64,
    view: impl FnOnce(T) -> V,
) -> ApiResult {
    match done {
        Done::Plan(plan) => planned(plan),
        Done::Change(object) => reply::object(status, generation(&object), &view(object)),
    }
}

/// Something without a generation.
pub fn plain<T, V: Serialize>(status: StatusCode, done: Done<T>, view: impl FnOnce(T) -> V) -> ApiResult {
    match done {
        Done::Plan(plan) => planned(plan),
        Done::Change(done) => reply::json(status, &view(done)),
    }
}
