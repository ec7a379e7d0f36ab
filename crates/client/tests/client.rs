//! The client against a server whose answers are scripted, over real HTTP: what it repeats, what it never repeats, and what it makes of
//! what it is reported.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        Path, Query, Request, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use client::{
    Client, ClientError, LogFrom, WaitTarget,
    event::EventMessage,
    model::{InstanceCreate, ProjectCreate},
    token::{MemoryVault, TokenVault, Tokens},
    upload,
};
use domain::image::ImagePartKind;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{addr}")
}

fn client(url: &str) -> Client {
    Client::builder(url).api_key("iaas_key").project("demo").build().expect("a client")
}

fn problem(status: u16, code: &str) -> Response {
    let body = json!({
        "type": "about:blank", "title": "t", "status": status, "code": code, "detail": "it failed", "hint": "do this",
        "request_id": "req-7",
    });
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("content-type", "application/problem+json")], body.to_string()).into_response()
}

fn project() -> Value {
    json!({
        "id": "01234567-89ab-7def-8123-456789abcdef", "name": "demo", "description": "", "generation": 1,
        "created_at": "2026-01-31T00:00:00.000Z", "a_field_of_tomorrow": 1,
    })
}

fn instance(state: &str) -> Value {
    json!({
        "id": "01234567-89ab-7def-8123-456789abcdef", "project_id": "01234567-89ab-7def-8123-456789abcdee",
        "name": "hello", "generation": 3, "epoch": null, "host_id": null, "state": state, "step": "fetching image",
        "reason": "", "power": "on", "image_id": "01234567-89ab-7def-8123-456789abcded", "flavor": null, "vcpus": 1,
        "memory_mib": 256, "disk_gib": 1, "zone": null, "on_crash": "restart", "on_host_loss": "wait", "pool": "local",
        "placement": { "group_ids": [], "required_tags": {}, "forbidden_tags": {}, "cpu_features": [], "dedicated": false, "pinning": "none" },
        "tags": {}, "ssh_keys": [], "nics": [], "observed_generation": 3, "crash_count": 0,
        "created_at": "2026-01-31T00:00:00.000Z", "updated_at": "2026-01-31T00:00:00.000Z",
    })
}

/// Answers that are given one after the other, and what was requested.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Response>>>,
    requested: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
}

impl Script {
    async fn start(answers: Vec<Response>) -> (Self, String) {
        let script = Self { answers: Arc::new(Mutex::new(answers.into())), requested: Arc::default() };
        let url = serve(Router::new().fallback(any(Self::answer)).with_state(script.clone())).await;
        (script, url)
    }

    async fn answer(State(script): State<Self>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        let line = format!("{} {}", parts.method, parts.uri);
        script.requested.lock().push((line, parts.headers, body));
        let next = script.answers.lock().pop_front();
        next.unwrap_or_else(|| problem(418, "nothing_is_scripted"))
    }

    fn lines(&self) -> Vec<String> {
        self.requested.lock().iter().map(|(line, ..)| line.clone()).collect()
    }

    fn headers(&self, name: &str) -> Vec<String> {
        let requested = self.requested.lock();
        let text = |h: &HeaderMap| h.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        requested.iter().map(|(_, headers, _)| text(headers)).collect()
    }
}

#[tokio::test]
async fn a_busy_server_is_asked_again_with_the_same_key() {
    let later = |status| {
        let mut response = problem(status, "busy");
        response.headers_mut().insert("retry-after", "1".parse().expect("a header"));
        response
    };
    let (script, url) = Script::start(vec![later(429), later(503), Json(project()).into_response()]).await;
    let request = ProjectCreate { name: "demo".into(), description: String::new() };
    let started = Instant::now();
    let made = client(&url).project_create(&request).await.expect("made at last");
    assert_eq!(made.name.as_str(), "demo");
    assert!(started.elapsed() >= Duration::from_secs(2), "Retry-After is heeded");
    let keys = script.headers("idempotency-key");
    assert_eq!(keys.len(), 3);
    assert!(!keys[0].is_empty() && keys.iter().all(|k| *k == keys[0]), "{keys:?}");
    assert_eq!(script.headers("authorization")[0], "Bearer iaas_key");
    assert_eq!(script.headers("x-iaas-project")[0], "demo");
    let other = client(&url).project_create(&request).await.expect_err("nothing is scripted");
    assert_eq!((other.status(), other.code()), (Some(418), "nothing_is_scripted"));
    assert_ne!(script.headers("idempotency-key")[3], keys[0], "another call, another key");
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_made_again_with_the_same_key() {
    // The first connection is closed in the middle of the answer's head, the second answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let served = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let body = project().to_string();
        let whole =
            format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let mut keys = Vec::new();
        for answer in ["HTTP/1.1 201 Cre", &whole] {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let (mut head, mut buffer) = (String::new(), [0; 4096]);
            while !head.contains("\"demo\"") {
                let n = socket.read(&mut buffer).await.expect("bytes");
                head.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            let key = head.lines().find_map(|l| l.strip_prefix("idempotency-key: ")).expect("a key");
            keys.push(key.to_owned());
            socket.write_all(answer.as_bytes()).await.expect("written");
        }
        keys
    });
    let request = ProjectCreate { name: "demo".into(), description: String::new() };
    client(&url).project_create(&request).await.expect("made");
    let keys = served.await.expect("no panic");
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn what_is_refused_is_not_repeated_and_keeps_its_words() {
    let (script, url) = Script::start(vec![problem(403, "quota_exceeded")]).await;
    let error = client(&url).instance_create(&InstanceCreate::new("a", "b").size(1, 64, 0)).await.expect_err("refused");
    let refused = error.problem().expect("a problem");
    assert_eq!((refused.status, refused.code.as_str(), refused.request_id.as_str()), (403, "quota_exceeded", "req-7"));
    assert_eq!(refused.hint.as_deref(), Some("do this"));
    assert_eq!(script.lines(), ["POST /v1/instances"]);
}

#[tokio::test]
async fn what_is_no_answer_of_this_api_is_said() {
    let html = (StatusCode::BAD_GATEWAY, "<html>proxy</html>").into_response();
    let (_, url) = Script::start(vec![html, "not JSON".into_response()]).await;
    let error = client(&url).whoami().await.expect_err("a proxy's page");
    assert_eq!((error.status(), error.code()), (Some(502), "not_a_problem_document"));
    assert!(matches!(client(&url).whoami().await, Err(ClientError::Answer { status: 200, .. })));
    let nobody = Client::builder("http://127.0.0.1:1").retry_budget(Duration::ZERO).build().expect("a client");
    assert!(matches!(nobody.whoami().await, Err(ClientError::Unreachable { .. })));
}

/// A server that knows one access token and one refresh token at a time.
#[derive(Clone)]
struct Sessions {
    current: Arc<Mutex<(String, String)>>,
    refreshes: Arc<AtomicUsize>,
}

impl Sessions {
    async fn start() -> (Self, String) {
        let current = Arc::new(Mutex::new(("access-0".to_owned(), "refresh-0".to_owned())));
        let sessions = Self { current, refreshes: Arc::default() };
        let router = Router::new()
            .route("/v1/whoami", get(Self::whoami))
            .route("/v1/auth/refresh", post(Self::refresh))
            .with_state(sessions.clone());
        let url = serve(router).await;
        (sessions, url)
    }

    async fn whoami(State(sessions): State<Self>, headers: HeaderMap) -> Response {
        let expected = format!("Bearer {}", sessions.current.lock().0);
        if headers["authorization"] != expected.as_str() {
            return problem(401, "token_expired");
        }
        let user = json!({ "id": "01234567-89ab-7def-8123-456789abcdef", "name": "ann", "system_admin": false });
        Json(json!({ "user": user, "projects": [] })).into_response()
    }

    async fn refresh(State(sessions): State<Self>, Json(body): Json<Value>) -> Response {
        let mut current = sessions.current.lock();
        if body["refresh_token"] != current.1.as_str() {
            return problem(401, "refresh_reused");
        }
        let n = sessions.refreshes.fetch_add(1, Ordering::SeqCst) + 1;
        *current = (format!("access-{n}"), format!("refresh-{n}"));
        Json(json!({ "access_token": current.0, "refresh_token": current.1, "token_type": "Bearer", "expires_in": 60 }))
            .into_response()
    }
}

#[tokio::test]
async fn tokens_renew_themselves_once_for_all_who_wait() {
    let (sessions, url) = Sessions::start().await;
    let stale = Tokens { access_token: "old".into(), refresh_token: "refresh-0".into() };
    let vault = Arc::new(MemoryVault::new(stale));
    let client = Client::builder(&url).vault(vault.clone()).build().expect("a client");
    let answers = futures::future::join_all((0..10).map(|_| client.whoami())).await;
    assert!(answers.iter().all(|a| a.as_ref().is_ok_and(|who| who.user.name == "ann")), "{answers:?}");
    assert_eq!(sessions.refreshes.load(Ordering::SeqCst), 1, "a refresh token works once");
    let kept = vault.load().expect("a vault").expect("tokens");
    assert_eq!((kept.access_token.as_str(), kept.refresh_token.as_str()), ("access-1", "refresh-1"));
}

#[tokio::test]
async fn tokens_that_another_process_renewed_are_taken_over() {
    let (sessions, url) = Sessions::start().await;
    let vault = Arc::new(MemoryVault::new(Tokens { access_token: "old".into(), refresh_token: "used".into() }));
    let client = Client::builder(&url).vault(vault.clone()).build().expect("a client");
    assert!(matches!(client.whoami().await, Err(ClientError::LoggedOut)), "a refresh that is refused ends the session");
    vault.save(&Tokens { access_token: "access-0".into(), refresh_token: "refresh-0".into() }).expect("kept");
    client.whoami().await.expect("logged in again");
    assert_eq!(sessions.refreshes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let page = |cursor: Value| Json(json!({ "items": [project(), project()], "next_cursor": cursor })).into_response();
    let (script, url) = Script::start(vec![page(json!("a b")), page(Value::Null)]).await;
    let all = client(&url).projects().limit(2).all().await.expect("a list");
    assert_eq!(all.len(), 4);
    assert_eq!(script.lines(), ["GET /v1/projects?limit=2", "GET /v1/projects?limit=2&cursor=a+b"]);
}

#[tokio::test]
async fn a_dry_run_and_a_precondition_are_asked_for() {
    let plan = json!({ "dry_run": true, "plan": { "summary": "it would go", "touches": ["instance hello"] } });
    let (script, url) = Script::start(vec![Json(plan).into_response(), StatusCode::NO_CONTENT.into_response()]).await;
    let client = client(&url);
    let plan = client.instance_delete("hello").if_match(3).plan().await.expect("a plan");
    assert_eq!((plan.summary.as_str(), plan.touches.len()), ("it would go", 1));
    let gone = client.instance_delete("hello").wait("deleted", Duration::from_secs(9)).await.expect("gone");
    assert_eq!(gone, None);
    assert_eq!(script.headers("if-match"), ["\"3\"", ""]);
    let lines = ["DELETE /v1/instances/hello?dry_run=true", "DELETE /v1/instances/hello?wait=deleted&timeout=9s"];
    assert_eq!(script.lines(), lines);
}

#[tokio::test]
async fn a_wait_shows_what_goes_on_and_ends_at_once() {
    let (reached, waiting) = tokio::sync::watch::channel("building");
    let look = move |Query(query): Query<HashMap<String, String>>| {
        let mut state = waiting.clone();
        async move {
            if query.contains_key("wait") {
                state.wait_for(|s| *s == "running").await.expect("open");
            }
            let now = *state.borrow();
            Json(instance(now))
        }
    };
    let url = serve(Router::new().route("/v1/instances/hello", get(look))).await;
    let observed = Arc::new(Mutex::new(Vec::new()));
    let tell = observed.clone();
    let client = client(&url);
    let watching = client.instance_wait("hello", WaitTarget::Running, Duration::from_secs(30), move |now| {
        tell.lock().push((now.state, now.step.clone()));
        reached.send_replace("running");
    });
    let now = watching.await.expect("an answer").expect("it is there");
    assert!(WaitTarget::Running.reached(&now));
    assert_eq!(observed.lock()[0], (domain::instance::InstanceState::Building, "fetching image".into()));
}

fn sse(id: i64) -> String {
    let data = json!({ "id": id, "at": "2026-01-31T00:00:00.000Z", "kind": "image.active", "object_kind": "image", "object_id": "",
        "message": "", "request_id": "", "data": {} });
    format!(": keep-alive\n\nid: {id}\nevent: image.active\ndata: {data}\n\n")
}

#[tokio::test]
async fn events_are_taken_up_where_they_were_lost() {
    let streams = vec![
        (sse(7) + &sse(8)).into_response(),
        // Broken off in the middle of an event: it comes again.
        (sse(9) + &sse(10)[..30]).into_response(),
        (sse(10) + "event: reset\ndata: {}\n\n").into_response(),
    ];
    let (script, url) = Script::start(streams).await;
    let mut events = client(&url).events(Some(6), false);
    let mut ids = Vec::new();
    while let EventMessage::Event(event) = events.next().await.expect("a message") {
        ids.push(event.id);
    }
    assert_eq!(ids, [7, 8, 9, 10], "each once");
    assert_eq!(script.headers("last-event-id"), ["6", "8", "9"]);
}

#[tokio::test]
async fn an_upload_is_streamed_and_repeated_from_its_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk.raw");
    let content: Vec<u8> = (0..3_000_000u32).map(|i| i.wrapping_mul(2_654_435_761) as u8).collect();
    std::fs::write(&path, &content).expect("written");
    let tries = Arc::new(AtomicUsize::new(0));
    let received = Arc::new(Mutex::new(Vec::new()));
    let (counted, kept) = (tries.clone(), received.clone());
    let take = move |Path((image, part)): Path<(String, String)>, headers: HeaderMap, body: Body| async move {
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("the body");
        let hash = headers["x-content-sha256"].to_str().expect("text").to_owned();
        kept.lock().push((image, part, hash, bytes));
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return problem(503, "unavailable");
        }
        let image = json!({
            "id": "01234567-89ab-7def-8123-456789abcdef", "project_id": "01234567-89ab-7def-8123-456789abcdee",
            "name": "disk", "visibility": "private", "kind": "disk", "format": "raw", "cmdline": "", "min_disk_gib": 1,
            "min_memory_mib": 0, "state": "active", "parts": [], "reason": "", "deadline_at": null, "generation": 2,
            "created_at": "2026-01-31T00:00:00.000Z",
        });
        Json(image).into_response()
    };
    let url = serve(Router::new().route("/v1/images/{image}/parts/{part}", put(take))).await;
    let digest = upload::digest(&path, |_| {}).await.expect("read");
    assert_eq!(digest.size_bytes, content.len() as u64);
    let most = Arc::new(Mutex::new(0));
    let observed = most.clone();
    let progress = move |bytes| *observed.lock() = bytes;
    let image = client(&url).image_upload("disk", ImagePartKind::Disk, &path, &digest, progress).await.expect("taken");
    assert_eq!(image.state, domain::image::ImageState::Active);
    assert_eq!(*most.lock(), content.len() as u64, "progress reaches the end");
    let received = std::mem::take(&mut *received.lock());
    assert_eq!(received.len(), 2);
    for (image, part, hash, bytes) in &received {
        assert_eq!((image.as_str(), part.as_str(), hash), ("disk", "disk", &digest.sha256));
        assert!(bytes == &content, "all of it, each time");
    }
    let missing = directory.path().join("missing");
    assert!(matches!(upload::digest(&missing, |_| {}).await, Err(ClientError::File { .. })));
}

#[tokio::test]
async fn a_console_carries_bytes_both_ways() {
    async fn echo(mut socket: WebSocket) {
        socket.send(Message::Binary(Bytes::from_static(b"login: "))).await.expect("sent");
        while let Some(Ok(Message::Binary(bytes))) = socket.recv().await {
            if bytes.as_ref() == b"exit" {
                socket.send(Message::Close(None)).await.expect("sent");
                break;
            }
            socket.send(Message::Binary(bytes)).await.expect("sent");
        }
    }
    let open = |Query(query): Query<HashMap<String, String>>, upgrade: WebSocketUpgrade| async move {
        if query.get("ticket").map(String::as_str) != Some("t/1") {
            return problem(401, "bad_ticket");
        }
        upgrade.on_upgrade(echo)
    };
    let ticket = |ticket: &'static str| {
        post(move || async move {
            // The server knows itself under a name that isn't the one we reach it by.
            let url = format!("wss://cloud.example/v1/console?ticket={ticket}");
            let expires_at = "2026-01-31T00:00:00.000Z";
            (StatusCode::CREATED, Json(json!({ "ticket": ticket, "url": url, "expires_at": expires_at })))
        })
    };
    let router = Router::new()
        .route("/v1/console", get(open))
        .route("/v1/instances/hello/console-ticket", ticket("t%2F1"))
        .route("/v1/instances/other/console-ticket", ticket("used"));
    let url = serve(router).await;
    let mut console = client(&url).instance_console("hello").await.expect("open");
    assert_eq!(console.read().await.expect("bytes").as_deref(), Some(&b"login: "[..]));
    console.write(Bytes::from_static(b"root\x03\xff")).await.expect("typed");
    assert_eq!(console.read().await.expect("bytes").as_deref(), Some(&b"root\x03\xff"[..]));
    console.write(Bytes::from_static(b"exit")).await.expect("typed");
    assert_eq!(console.read().await.expect("the end"), None);
    console.close().await;
    let refused = client(&url).instance_console("other").await.expect_err("a used ticket");
    assert_eq!((refused.status(), refused.code()), (Some(401), "bad_ticket"));
}

#[tokio::test]
async fn a_console_log_says_where_it_goes_on() {
    let part = |offset: &'static str| ([("x-offset", offset)], "seven b").into_response();
    let (script, url) = Script::start(vec![part("100"), part("107"), "seven b".into_response()]).await;
    let client = client(&url);
    for (from, follow, expected) in
        [(LogFrom::Tail(64), false, 107), (LogFrom::Offset(107), false, 114), (LogFrom::Offset(114), true, 121)]
    {
        let mut log = client.instance_log("hello", from, follow).await.expect("a log");
        let mut text = Vec::new();
        while let Some(chunk) = log.chunk().await.expect("bytes") {
            text.extend_from_slice(&chunk);
        }
        assert_eq!((text.as_slice(), log.next_offset()), (&b"seven b"[..], expected));
    }
    let path = "GET /v1/instances/hello/console-log";
    let requested =
        [format!("{path}?tail_bytes=64"), format!("{path}?offset=107"), format!("{path}?offset=114&follow=true")];
    assert_eq!(script.lines(), requested);
}
