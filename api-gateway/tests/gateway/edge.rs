//! The edge around any router: whatever happens inside, what leaves is ours.

use api_gateway::{
    app::{App, Services},
    auth::{Auth, master_key::MasterKey},
    http::{
        dialect::Dialect,
        edge::{self, Edge},
    },
};
use axum::{Router, body::Body, http::Request, response::Response, routing::get};
use http_body_util::BodyExt;
use serde_json::Value;
use service_kit::transport;
use std::{net::Ipv4Addr, sync::Arc};
use store::{Store, StoreConfig};
use tokio_util::sync::CancellationToken;

async fn app(dir: &std::path::Path) -> App {
    let mut config = crate::harness::config(dir);
    config.api.request_timeout_secs = 1;
    let store = Store::open(&StoreConfig::new(format!("sqlite://{}/edge.db", dir.display()))).await.expect("a store");
    let master = MasterKey::open_or_create(&config.identity.master_key_path()).expect("a key");
    let auth = Auth::new(&config, store.clone(), Arc::new(master));
    let channel = || transport::in_process().1.channel().expect("a channel");
    let metrics = service_kit::metrics::install();
    let services = Services { cluster: channel(), storage: channel(), resource: channel() };
    App::new(config, store, services, auth, metrics, CancellationToken::new())
}

async fn ask(edge: &Edge, path: &str) -> (http::response::Parts, Value) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let response: Response = edge::handle(edge, Ipv4Addr::LOCALHOST.into(), request).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn panics_time_limits_and_foreign_errors_are_problem_documents() {
    let dir = tempfile::tempdir().expect("tempdir");
    let app = app(dir.path()).await;
    let router = Router::new()
        .route(
            "/panics",
            get(|| async {
                if true {
                    panic!("the secret is 42")
                }
            }),
        )
        .route("/never", get(|| async { std::future::pending::<()>().await }))
        .route("/plain", get(|| async { (http::StatusCode::IM_A_TEAPOT, "a library's own words") }))
        .route("/fine", get(|| async { "fine" }));
    let edge = Edge::new(app, vec![Dialect::new("", router)], false);
    for (path, status, code) in [
        ("/panics", 500, "internal"),
        ("/never", 504, "request_timeout"),
        ("/plain", 400, "invalid_argument"),
        ("/nowhere", 404, "route_not_found"),
    ] {
        let (parts, body) = ask(&edge, path).await;
        assert_eq!(body["code"], code, "{path}: {body}");
        assert_eq!(parts.status.as_u16(), status, "{path}");
        assert_eq!(parts.headers["content-type"], "application/problem+json", "{path}");
        assert_eq!(body["request_id"].as_str(), parts.headers["x-request-id"].to_str().ok(), "{path}");
        assert!(!body.to_string().contains("the secret") && !body.to_string().contains("own words"), "{body}");
    }
    let (parts, _) = ask(&edge, "/fine").await;
    assert_eq!(parts.status.as_u16(), 200);
    for (name, value) in [("x-content-type-options", "nosniff"), ("cache-control", "no-store")] {
        assert_eq!(parts.headers[name], value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_test_the_work_path() {
    let world = crate::harness::World::start().await;
    let nobody = world.nobody();
    nobody.get("/healthz").await.expect(200);
    let ready = nobody.get("/readyz").await.expect(200);
    let checks = ready["checks"].as_array().expect("checks");
    let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["database", "cluster-manager", "storage-manager", "resource-manager"]);
    nobody.get("/metrics").await.problem(401, "token_invalid");
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    world.user(&admin, "ann", "blue", "admin").await.get("/metrics").await.problem(403, "permission_denied");
    let metrics = admin.get("/metrics").await;
    assert!(metrics.text.contains("iaas_http_requests_total"), "{}", metrics.text);
    assert!(metrics.text.contains("iaas_store_commits_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn not_ready_without_the_services_behind_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let config = crate::harness::config(dir.path());
    let store =
        Store::open(&StoreConfig::new(format!("sqlite://{}/x.db", dir.path().display()))).await.expect("a store");
    let gone = || transport::in_process().1;
    let metrics = service_kit::metrics::install();
    let deps = api_gateway::Deps { store, cluster: gone(), storage: gone(), resource: gone(), metrics };
    let shutdown = CancellationToken::new();
    let gateway = api_gateway::bind(config, deps, shutdown.clone()).await.expect("it binds");
    let base = format!("http://{}", gateway.local_addr().expect("an address"));
    let running = tokio::spawn(gateway.run());
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let refused = crate::harness::answer(http.get(format!("{base}/readyz"))).await.problem(503, "not_ready");
    let detail = refused["detail"].as_str().expect("a detail");
    for role in ["cluster-manager", "storage-manager", "resource-manager"] {
        assert!(detail.contains(role), "{detail}");
    }
    assert!(
        !detail.contains("the service doesn't answer") && !detail.contains("no answer"),
        "reasons are for admins: {detail}"
    );
    shutdown.cancel();
    running.await.expect("it ends").expect("well");
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let dir = tempfile::tempdir().expect("tempdir");
    let mut config = crate::harness::config(dir.path());
    config.api.listen = taken.local_addr().expect("its address");
    let store =
        Store::open(&StoreConfig::new(format!("sqlite://{}/x.db", dir.path().display()))).await.expect("a store");
    let target = || transport::in_process().1;
    let deps = api_gateway::Deps {
        store,
        cluster: target(),
        storage: target(),
        resource: target(),
        metrics: service_kit::metrics::install(),
    };
    let refused = api_gateway::bind(config, deps, CancellationToken::new()).await.err().expect("refused");
    assert!(format!("{refused:#}").contains("api.listen"), "{refused:#}");
}
