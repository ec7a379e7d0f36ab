//! Profiles: where the session is kept, who may read it, and many processes at once.

use crate::server::{Home, problem, serve, stderr, stdout};
use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Sessions as the gateway keeps them: one access token at a time, each refresh token works once.
fn sessions() -> (String, Arc<AtomicUsize>) {
    let serial = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(Mutex::new(false));
    let tokens = |n: usize| json!({ "access_token": format!("access-{n}"), "refresh_token": format!("refresh-{n}"), "expires_in": 9 });
    let refused = || {
        let (status, body) = problem(401, "unauthenticated");
        (StatusCode::from_u16(status).expect("a status"), Json(body)).into_response()
    };
    let login = move |Json(body): Json<Value>| async move {
        let known = body == json!({ "username": "ann", "password": "secret" });
        if known { Json(tokens(0)).into_response() } else { refused() }
    };
    let counted = serial.clone();
    let over = ended.clone();
    let refresh = move |Json(body): Json<Value>| async move {
        let n = counted.load(Ordering::SeqCst);
        if body["refresh_token"] != format!("refresh-{n}").as_str() {
            *over.lock() = true;
            return refused();
        }
        counted.store(n + 1, Ordering::SeqCst);
        Json(tokens(n + 1)).into_response()
    };
    let current = serial.clone();
    let whoami = move |headers: HeaderMap| async move {
        let (n, given) = (current.load(Ordering::SeqCst), headers["authorization"].to_str().expect("text").to_owned());
        // The first access token works for the login's own look alone, as if it had expired since.
        let valid = given == format!("Bearer access-{n}") && !*ended.lock();
        let valid =
            valid && (n > 0 || headers.get("user-agent").is_some_and(|a| !a.as_bytes().starts_with(b"iaasctl")));
        let user = json!({ "id": "01234567-89ab-7def-8123-456789abcdef", "name": "ann", "system_admin": false });
        let project = json!({ "id": "01234567-89ab-7def-8123-456789abcdee", "name": "demo", "role": "member" });
        let answer: Response =
            if valid { Json(json!({ "user": user, "projects": [project] })).into_response() } else { refused() };
        answer
    };
    let router = Router::new()
        .route("/v1/auth/login", post(login))
        .route("/v1/auth/refresh", post(refresh))
        .route("/v1/auth/logout", post(async || StatusCode::NO_CONTENT))
        .route("/v1/whoami", get(whoami));
    (serve(router), serial)
}

#[test]
fn a_login_is_kept_in_a_file_that_only_its_owner_reads() {
    let (url, _) = sessions();
    let home = Home::new();
    let password = home.file("password", "secret\n");
    let wrong = home.file("wrong", "guess\n");
    let login = |file: &str| home.run(&["login", "--url", &url, "--user", "ann", "--password-file", file]);
    assert_eq!(login(&wrong).status.code(), Some(4));
    assert!(!home.config().exists(), "a failed login leaves nothing");
    let output = login(&password);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "", "the notes go to stderr");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&home.config()), 0o600);
    assert_eq!(mode(home.config().parent().expect("a directory")), 0o700);
    let get = |key: &str| stdout(&home.run(&["config", "get", key])).trim().to_owned();
    assert_eq!((get("url"), get("project")), (url, "demo".to_owned()), "the only project is chosen");
    assert_eq!(home.run(&["config", "set", "project", "other"]).status.code(), Some(0));
    assert_eq!(get("project"), "other");
    assert_eq!(
        stdout(&home.command(&["config", "get", "project"]).env("IAAS_PROJECT", "env").output().expect("runs")),
        "env\n"
    );
    assert_eq!(home.run(&["config", "use", "nowhere"]).status.code(), Some(3));
    assert_eq!(home.run(&["logout"]).status.code(), Some(0));
    let text = std::fs::read_to_string(home.config()).expect("the file");
    assert!(!text.contains("access-") && !text.contains("refresh-"), "logged out, no token is left: {text}");
    assert_eq!(home.run(&["whoami"]).status.code(), Some(4));
}

#[test]
fn many_processes_renew_one_session_together() {
    let (url, serial) = sessions();
    let home = Home::new();
    let password = home.file("password", "secret");
    let login = home.run(&["login", "--url", &url, "--user", "ann", "--password-file", &password]);
    assert_eq!(login.status.code(), Some(0), "{}", stderr(&login));
    let running: Vec<_> = (0..8)
        .map(|_| {
            let mut command = home.command(&["whoami", "-o", "json"]);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().expect("the binary runs")
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    assert_eq!(serial.load(Ordering::SeqCst), 1, "one of them renewed it, the others took it over");
    assert!(std::fs::read_to_string(home.config()).expect("the file").contains("refresh-1"));
}

#[test]
fn a_broken_profile_is_said_and_not_overwritten() {
    let home = Home::new();
    std::fs::create_dir_all(home.config().parent().expect("a directory")).expect("made");
    std::fs::write(home.config(), "this is = not [toml").expect("written");
    for args in [&["config", "set", "project", "x"][..], &["instance", "list"]] {
        let output = home.run(args);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("is not a profile file"), "{}", stderr(&output));
    }
    assert_eq!(std::fs::read_to_string(home.config()).expect("the file"), "this is = not [toml");
}

/// On a full disk a login gives an access token alone.
#[test]
fn a_session_that_the_server_has_no_room_to_keep_is_said_and_ends_cleanly() {
    let expired = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&expired);
    let whoami = move || async move {
        if ended.load(Ordering::SeqCst) {
            let (status, body) = problem(401, "unauthenticated");
            return (StatusCode::from_u16(status).expect("a status"), Json(body)).into_response();
        }
        let user = json!({ "id": "01234567-89ab-7def-8123-456789abcdef", "name": "ann", "system_admin": true });
        Json(json!({ "user": user, "projects": [] })).into_response()
    };
    // It has neither a refresh nor a logout: neither may be asked for.
    let login = async || Json(json!({ "access_token": "access-0", "refresh_token": "", "expires_in": 900 }));
    let url = serve(Router::new().route("/v1/auth/login", post(login)).route("/v1/whoami", get(whoami)));
    let home = Home::new();
    let password = home.file("password", "secret");
    std::fs::create_dir_all(home.config().parent().expect("a directory")).expect("made");
    let earlier = format!("current = \"default\"\n[profiles.default]\nurl = {url:?}\nrefresh_token = \"refresh-0\"\n");
    std::fs::write(home.config(), earlier).expect("written");
    let output = home.run(&["login", "--url", &url, "--user", "ann", "--password-file", &password]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("ends in 900 s and can't be renewed"), "{}", stderr(&output));
    let kept = || std::fs::read_to_string(home.config()).expect("the file");
    assert!(kept().contains("access-0") && !kept().contains("refresh_token"), "{}", kept());
    assert_eq!(home.run(&["whoami"]).status.code(), Some(0));
    expired.store(true, Ordering::SeqCst);
    let output = home.run(&["whoami"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("log in with `iaasctl login`"), "{}", stderr(&output));
    let output = home.run(&["logout"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!kept().contains("access-0"), "{}", kept());
    assert!(stderr(&home.run(&["logout"])).contains("you are not logged in"));
}
