//! A server that answers from a table, over real HTTP, in a thread of its own; and a way to run the binary against it.

use axum::{Router, body::Body, extract::Request, http::StatusCode, response::Response, routing::any};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
    sync::{Arc, mpsc},
};

/// Serves until the test ends.
pub fn serve(router: Router) -> String {
    let (tell, reported) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(format!("http://{}", listener.local_addr().expect("an address"))).expect("the test waits");
            axum::serve(listener, router).await.expect("served");
        });
    });
    reported.recv().expect("an address")
}

/// Answers every request by `METHOD /path`.
pub fn table(answer: impl Fn(&str) -> (u16, Value) + Clone + Send + Sync + 'static) -> String {
    serve(Router::new().fallback(any(move |request: Request| {
        let answer = answer.clone();
        async move {
            let (status, body) = answer(&format!("{} {}", request.method(), request.uri().path()));
            let status = StatusCode::from_u16(status).expect("a status");
            Response::builder().status(status).body(Body::from(body.to_string())).expect("a response")
        }
    })))
}

/// What was requests: `METHOD /path` and the body.
pub type Received = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers as [`table`] does, knowing the body, and keeps what was requests.
pub fn record(answer: impl Fn(&str, &Value) -> (u16, Value) + Clone + Send + Sync + 'static) -> (String, Received) {
    let received = Received::default();
    let keep = received.clone();
    let url = serve(Router::new().fallback(any(move |request: Request| {
        let (answer, keep) = (answer.clone(), keep.clone());
        async move {
            let requests = format!("{} {}", request.method(), request.uri().path());
            let bytes = axum::body::to_bytes(request.into_body(), usize::MAX).await.expect("a body");
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            let (status, reported) = answer(&requests, &body);
            keep.lock().push((requests, body));
            let status = StatusCode::from_u16(status).expect("a status");
            Response::builder().status(status).body(Body::from(reported.to_string())).expect("a response")
        }
    })));
    (url, received)
}

pub fn problem(status: u16, code: &str) -> (u16, Value) {
    let body = json!({
        "type": "about:blank", "title": "t", "status": status, "code": code, "detail": "it failed so", "hint": "do this next",
        "request_id": "req-42",
    });
    (status, body)
}

/// A home of its own.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub fn config(&self) -> PathBuf {
        self.0.path().join(".config/iaas/config.toml")
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    }

    /// A directory with a program of that name in it.
    pub fn program(&self, name: &str, script: &str) -> String {
        let dir = self.0.path().join("bin");
        std::fs::create_dir_all(&dir).expect("made");
        std::fs::write(dir.join(name), script).expect("written");
        std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o755)).expect("permitted");
        dir.display().to_string()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iaasctl"));
        command.args(args).env_clear().env("HOME", self.0.path()).env("PATH", "/usr/bin:/bin");
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Runs it with a token, against `url`.
    pub fn run_at(&self, url: &str, args: &[&str]) -> Output {
        self.command(args).env("IAAS_URL", url).env("IAAS_TOKEN", "iaas_key").output().expect("the binary runs")
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
