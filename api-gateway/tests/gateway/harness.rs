//! A running gateway, and people to ask it.

use api_gateway::{Config, Deps, http::dialect::Dialect};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use service_kit::transport::{self, GrpcTarget};
use std::{path::Path, sync::Arc, time::Duration};
use store::{Store, StoreConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The places of the managers' pools: few enough to be taken.
const SHARED: usize = 12;
pub const PASSWORD: &str = "correct horse battery";

/// One installation: its directory outlives restarts.
pub struct World {
    pub dir: Arc<TempDir>,
    pub base: String,
    pub store: Store,
    pub config: Config,
    /// Where (simulated) agents attach.
    pub cluster: GrpcTarget,
    pub storage: GrpcTarget,
    pub resource: GrpcTarget,
    pub http: reqwest::Client,
    shutdown: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

/// Somebody with a token.
#[derive(Clone)]
pub struct Person {
    pub http: reqwest::Client,
    pub base: String,
    pub token: String,
    /// What requests name in `X-Iaas-Project`.
    pub project: Option<String>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.body
    }

    /// Checks that this is a problem document of that status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        self.assert_problem();
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.text);
        self.body
    }

    /// Checks what every error must be.
    #[track_caller]
    pub fn assert_problem(&self) {
        let kind = self.headers.get("content-type").and_then(|v| v.to_str().ok());
        assert_eq!(kind, Some("application/problem+json"), "{} {}", self.status, self.text);
        let body = &self.body;
        assert_eq!(body["status"].as_u64(), Some(u64::from(self.status.as_u16())), "{}", self.text);
        for field in ["type", "title", "code", "detail", "request_id"] {
            assert!(body[field].as_str().is_some_and(|t| !t.is_empty()), "{field} is missing: {}", self.text);
        }
        let id = self.headers.get("x-request-id").and_then(|v| v.to_str().ok());
        assert_eq!(body["request_id"].as_str(), id, "{}", self.text);
    }
}

pub async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer { status, headers, body, text }
}

impl Person {
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        match &self.project {
            Some(project) => request.header("x-iaas-project", project),
            None => request,
        }
    }

    /// The same person, whose requests name a project.
    pub fn within(&self, project: &str) -> Self {
        Self { project: Some(project.to_owned()), ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PATCH, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }
}

pub fn config(dir: &Path) -> Config {
    let mut config = Config::default();
    config.api.listen = ([127, 0, 0, 1], 0).into();
    config.api.drain_timeout_secs = 5;
    config.identity.state_dir = dir.join("state");
    config
}

pub fn key(comment: &str) -> String {
    format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtwGcWB2gCgPhk {comment}")
}

impl World {
    pub async fn start() -> Self {
        Self::start_with_dialects(vec![]).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("tempdir"));
        let mut config = config(dir.path());
        change(&mut config);
        Self::run(dir, config, vec![]).await
    }

    /// With API dialects beside v1.
    pub async fn start_with_dialects(dialects: Vec<Dialect>) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("tempdir"));
        let config = config(dir.path());
        Self::run(dir, config, dialects).await
    }

    /// In a directory of the caller's.
    pub async fn start_in(dir: TempDir) -> Self {
        let dir = Arc::new(dir);
        let config = config(dir.path());
        Self::run(dir, config, vec![]).await
    }

    /// The address of another gateway of the same installation.
    pub async fn another_gateway(&mut self) -> String {
        let deps = Deps {
            store: self.store.clone(),
            cluster: self.cluster.clone(),
            storage: self.storage.clone(),
            resource: self.resource.clone(),
            metrics: service_kit::metrics::install(),
        };
        let gateway = api_gateway::bind(self.config.clone(), deps, self.shutdown.clone()).await.expect("it binds");
        let port = gateway.local_addr().expect("an address").port();
        self.running.push(tokio::spawn(async move { gateway.run().await.expect("the gateway serves") }));
        format!("http://localhost:{port}")
    }

    async fn run(dir: Arc<TempDir>, config: Config, dialects: Vec<Dialect>) -> Self {
        service_kit::install_crypto();
        let url = format!("sqlite://{}", dir.path().join("iaas.db").display());
        let store = Store::open(&StoreConfig::new(url)).await.expect("the store opens");
        let shutdown = CancellationToken::new();
        let (storage_listener, storage) = transport::in_process();
        let (cluster_listener, cluster) = transport::in_process();
        let mut running = Vec::new();
        let storage_config = storage_manager::Config {
            directory: dir.path().join("objects"),
            uploads_max: SHARED,
            // How full this machine is doesn't matter here.
            free_gib_min: 0,
            ..storage_manager::Config::default()
        };
        let deps = storage_manager::Deps { store: store.clone(), listener: storage_listener };
        let serving = storage_manager::serve(storage_config, deps, shutdown.clone());
        running.push(tokio::spawn(async move { serving.await.expect("the storage-manager serves") }));
        let (resource_listener, resource) = transport::in_process();
        // Addresses rest for no time: tests give them back and take them again.
        let resource_config = resource_manager::Config { quarantine_secs: 0, ..resource_manager::Config::default() };
        let deps = resource_manager::Deps { store: store.clone(), listener: resource_listener };
        let serving = resource_manager::serve(resource_config, deps, shutdown.clone());
        running.push(tokio::spawn(async move { serving.await.expect("the resource-manager serves") }));
        let links = cluster_manager::AgentLinks {
            cluster_url: "https://{host}:7481".into(),
            storage_url: "https://{host}:7482".into(),
            resource_url: String::new(),
        };
        let ca = service_kit::tls::Ca::open_or_create(&dir.path().join("ca")).expect("a CA");
        let admission = Some(cluster_manager::Admission { ca, links });
        let cluster_config = cluster_manager::Config { console_sessions_max: SHARED, ..Default::default() };
        let deps = cluster_manager::Deps {
            store: store.clone(),
            listener: cluster_listener,
            storage: storage.clone(),
            resource: resource.clone(),
            admission,
        };
        let serving = cluster_manager::serve(cluster_config, deps, shutdown.clone());
        running.push(tokio::spawn(async move { serving.await.expect("the cluster-manager serves") }));
        let deps = Deps {
            store: store.clone(),
            cluster: cluster.clone(),
            storage: storage.clone(),
            resource: resource.clone(),
            metrics: service_kit::metrics::install(),
        };
        let gateway = api_gateway::bind(config.clone(), deps, shutdown.clone()).await.expect("the gateway binds");
        let gateway = dialects.into_iter().fold(gateway, api_gateway::Gateway::with_dialect);
        let port = gateway.local_addr().expect("an address").port();
        running.push(tokio::spawn(async move { gateway.run().await.expect("the gateway serves") }));
        let scheme = if config.api.uses_tls() { "https" } else { "http" };
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self {
            dir,
            base: format!("{scheme}://localhost:{port}"),
            store,
            config,
            cluster,
            storage,
            resource,
            http,
            shutdown,
            running,
        }
    }

    /// Stops everything as SIGTERM would, and waits.
    pub async fn stop(self) -> (Arc<TempDir>, Config) {
        self.shutdown.cancel();
        for task in self.running {
            tokio::time::timeout(Duration::from_secs(20), task).await.expect("it drains").expect("it ends well");
        }
        self.store.close().await;
        (self.dir, self.config)
    }

    pub async fn restart(self) -> Self {
        let (dir, config) = self.stop().await;
        Self::run(dir, config, vec![]).await
    }

    pub fn admin_password(&self) -> String {
        let path = self.config.identity.admin_password_path();
        std::fs::read_to_string(path).expect("the first password's file").trim().to_owned()
    }

    pub fn nobody(&self) -> Person {
        Person { http: self.http.clone(), base: self.base.clone(), token: "none".into(), project: None }
    }

    pub async fn login(&self, name: &str, password: &str) -> Person {
        let body = json!({"username": name, "password": password});
        let answer = self.nobody().post("/v1/auth/login", body).await.expect(200);
        Person { token: answer["access_token"].as_str().expect("a token").to_owned(), ..self.nobody() }
    }

    pub async fn admin(&self) -> Person {
        self.login("admin", &self.admin_password()).await
    }

    pub async fn project(&self, admin: &Person, name: &str) -> String {
        let made = admin.post("/v1/projects", json!({"name": name})).await.expect(201);
        made["id"].as_str().expect("an id").to_owned()
    }

    /// A new user with a role in a project.
    pub async fn user(&self, admin: &Person, name: &str, project: &str, role: &str) -> Person {
        admin.post("/v1/users", json!({"name": name, "password": PASSWORD})).await.expect(201);
        admin.put(&format!("/v1/projects/{project}/members/{name}"), json!({"role": role})).await.expect(200);
        self.login(name, PASSWORD).await
    }
}

/// Asks until the answer holds something.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Person {
    /// The lines of the audit log that hold `condition`, when there are some.
    pub async fn audited(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Vec<Value> {
        eventually(what, async || {
            let audit = self.get("/v1/audit?limit=1000").await.expect(200);
            let lines: Vec<Value> =
                audit["items"].as_array().expect("items").iter().filter(|line| condition(line)).cloned().collect();
            (!lines.is_empty()).then_some(lines)
        })
        .await
    }

    /// Asks in a task of its own: it is under way although nobody polls.
    pub fn get_later(self, path: &str) -> JoinHandle<Answer> {
        let path = path.to_owned();
        tokio::spawn(async move { self.get(&path).await })
    }
}
