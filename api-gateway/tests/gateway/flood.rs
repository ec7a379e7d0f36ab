//! What anybody may send as much as they like of: it shuts nobody else out, tells nothing, and fills nothing.

use crate::harness::{PASSWORD, Person, World, answer, eventually};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn database(world: &World) -> rusqlite::Connection {
    rusqlite::Connection::open(world.dir.path().join("iaas.db")).expect("it opens")
}

fn login(person: &Person, name: &str, password: &str) -> reqwest::RequestBuilder {
    let url = format!("{}/v1/auth/login", person.base);
    person.http.post(url).json(&json!({"username": name, "password": password}))
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_logins_stop_their_own_address_and_nobody_else() {
    let world = World::start_with(|config| {
        config.api.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("one")];
        config.identity.login_attempts_per_address = 10;
    })
    .await;
    let nobody = world.nobody();
    let from = |request: reqwest::RequestBuilder, address: &str| answer(request.header("x-forwarded-for", address));
    // Somebody who works at the address of the flood.
    from(login(&nobody, "admin", &world.admin_password()), "192.0.2.1").await.expect(200);
    let mut throttled = 0;
    for i in 0..40 {
        let refused = from(login(&nobody, &format!("n{i}"), "x"), "192.0.2.1").await;
        throttled += usize::from(refused.status == 429);
    }
    assert!(throttled >= 25, "{throttled} of the flood had to wait");
    let admin = world.admin_password();
    from(login(&nobody, "admin", &admin), "192.0.2.1").await.expect(200);
    from(login(&nobody, "admin", &admin), "198.51.100.1").await.expect(200);
    from(login(&nobody, "another", "x"), "198.51.100.1").await.problem(401, "login_failed");
    from(login(&nobody, "another", "x"), "192.0.2.1").await.problem(429, "login_throttled");
    // IPv6 addresses of one network are one client.
    for i in 0..10 {
        from(login(&nobody, &format!("n{i}"), "x"), &format!("2001:db8::{i:x}")).await.problem(401, "login_failed");
    }
    from(login(&nobody, "n", "x"), "2001:db8::ffff").await.problem(429, "login_throttled");
    from(login(&nobody, "n", "x"), "2001:db8:0:1::1").await.problem(401, "login_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_who_exists_by_what_a_login_waits_for() {
    let world = World::start().await;
    let nobody = world.nobody();
    // While nothing can be committed, a login that had to commit something wouldn't be answered.
    let lock = database(&world);
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    answer(login(&nobody, "admin", "wrong")).await.problem(401, "login_failed");
    answer(login(&nobody, "nobody-here", "wrong")).await.problem(401, "login_failed");
    lock.execute_batch("ROLLBACK").expect("released");
    let admin = world.admin().await;
    let denied = admin.audited("the wrong password", |line| line["outcome"] == "denied").await;
    assert_eq!((denied.len(), denied[0]["principal_name"].as_str()), (1, Some("admin")));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_refusals_are_one_line_a_minute_with_a_count() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "reader").await;
    for _ in 0..60 {
        ann.post("/v1/users", json!({"name": "u", "password": PASSWORD})).await.problem(403, "permission_denied");
    }
    let refused = |line: &serde_json::Value| line["outcome"] == "denied" && line["action"] == "POST /v1/users";
    let lines = eventually("all are counted", async || {
        let lines = admin.audited("refusals", refused).await;
        let counted: i64 = lines.iter().filter_map(|line| line["count"].as_i64()).sum();
        (counted == 60).then_some(lines)
    })
    .await;
    assert!(lines.len() <= 3, "a line a minute, not one for each: {}", lines.len());
    assert_eq!(lines[0]["principal_name"], "ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_many_objects_leaves_no_more_behind_than_one_for_none() {
    let world = World::start_with(|config| config.api.idempotency_keys_per_principal = 4).await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    let networks: Vec<_> = (0..16).map(|_| json!({"network": "default"})).collect();
    let body = json!({"name": "x", "count": 100, "image": "none", "vcpus": 1, "memory_mib": 64, "networks": networks});
    let create = async |key: &str| {
        answer(ann.request(Method::POST, "/v1/instances").header("idempotency-key", key).json(&body)).await
    };
    for key in ["k1", "k2", "k3", "k4"] {
        create(key).await.problem(404, "image_not_found");
    }
    let size =
        "SELECT max(length(principal) + length(idem_key) + length(body_hash) + length(object_ids)) FROM idempotency";
    let longest: i64 = database(&world).query_row(size, [], |row| row.get(0)).expect("rows");
    assert!(longest < 400, "{longest} bytes for a request that made nothing");
    // No more keys are kept; those that are still work, and so do requests without one.
    create("k5").await.problem(429, "too_many_keys");
    create("k1").await.problem(404, "image_not_found");
    ann.post("/v1/instances", body.clone()).await.problem(404, "image_not_found");
    let key = json!({"name": "k", "public_key": crate::harness::key("k")});
    let own = ann.request(Method::POST, "/v1/ssh-keys").header("idempotency-key", "k6").json(&key);
    answer(own).await.problem(429, "too_many_keys");
    // Another user has keys of their own, and a system admin has no bound.
    for i in 0..6 {
        let name = format!("f{i}");
        let flavor = json!({"name": name, "vcpus": 1, "memory_mib": 128, "disk_gib": 0});
        answer(admin.request(Method::POST, "/v1/flavors").header("idempotency-key", &name).json(&flavor))
            .await
            .expect(201);
    }
}

/// Whatever the connection says, until it ends.
async fn ended(mut stream: TcpStream) {
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_and_one_with_a_stream_is_not() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let world = World::start_with(|config| config.api.idle_timeout_secs = 1).await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let stream = admin.request(Method::GET, "/v1/events").send().await;
    let mut stream = stream.expect("a stream");
    let port = world.base.rsplit(':').next().expect("a port").to_owned();
    for (what, bytes) in [
        ("nothing", &b""[..]),
        ("less than tells the protocols apart", &b"PRI * HT"[..]),
        ("half a head", &b"GET / HTTP/1.1\r\nHost: x\r\n"[..]),
        ("HTTP/2 without a request", &[PREFACE, SETTINGS].concat()),
        ("a request and then nothing", &b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
    ] {
        println!("{what}");
        let mut silent = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("it connects");
        silent.write_all(bytes).await.expect("it is sent");
        ended(silent).await;
    }
    // Idle times have passed by now; the stream had a request all the time.
    admin.post("/v1/flavors", json!({"name": "f", "vcpus": 1, "memory_mib": 128, "disk_gib": 0})).await.expect(201);
    eventually("the stream goes on", async || {
        let chunk = stream.chunk().await.expect("it isn't cut").expect("it hasn't ended");
        String::from_utf8_lossy(&chunk).contains("flavor.created").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_header_that_can_not_be_read_is_refused() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    for value in [&b"bl\xfce"[..], "bläu".as_bytes(), b"", b" "] {
        let value = http::HeaderValue::from_bytes(value).expect("a header");
        let request = ann.request(Method::GET, "/v1/ssh-keys?project=blue").header("x-iaas-project", value.clone());
        answer(request).await.problem(400, "invalid_argument");
        answer(ann.request(Method::GET, "/v1/ssh-keys").header("x-iaas-project", value))
            .await
            .problem(400, "invalid_argument");
    }
    let twice =
        ann.request(Method::GET, "/v1/ssh-keys").header("x-iaas-project", "blue").header("x-iaas-project", "red");
    answer(twice).await.problem(400, "invalid_argument");
    ann.within("blue").get("/v1/ssh-keys").await.expect(200);
}
