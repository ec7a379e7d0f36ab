//! The API under `/v1`: what it does per route (`routes`), and what its JSON looks like (`view`). Another API dialect is a folder beside
//! this one.

pub mod answer;
pub mod check;
pub mod describe;
pub mod routes;
pub mod scope;
pub mod view;

use crate::http::dialect::Dialect;
use http::Method;

/// The dialect with its routes and the description of them, which it serves.
pub fn dialect() -> Result<Dialect, serde_json::Error> {
    let (router, api) = routes::build();
    let document = serde_json::to_vec(&api)?.into();
    let router = router.layer(axum::Extension(routes::system::Document(document)));
    let unlimited = |method: &Method, path: &str| method == Method::PUT && path.starts_with("/v1/images/");
    Ok(Dialect { unlimited, ..Dialect::new("", router) })
}
