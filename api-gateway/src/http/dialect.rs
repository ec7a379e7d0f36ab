//! API dialects: each a set of routes over `app`, with its own way to authenticate and its own shape of errors. `v1` is one; another is a folder,
//! or a crate, beside it.

use crate::{app::App, http::problem};
use axum::{Router, response::Response};
use domain::Problem;
use http::Method;

pub struct Dialect {
    /// The paths that begin with this are the dialect's. The empty prefix has all that no other dialect has.
    pub prefix: &'static str,
    /// Its routes, each with its whole path.
    pub router: Router<App>,
    /// How it shows a problem, whoever met it: a route, or the edge. The second argument is the request's id.
    pub render: fn(&Problem, &str) -> Response,
    /// Whether a request may last as long as it likes: then it has no time limit.
    pub unlimited: fn(&Method, &str) -> bool,
}

impl Dialect {
    /// A dialect whose errors are RFC 9457 documents and whose requests all have a time limit.
    #[must_use]
    pub fn new(prefix: &'static str, router: Router<App>) -> Self {
        Self { prefix, router, render: problem::render, unlimited: |_, _| false }
    }
}
