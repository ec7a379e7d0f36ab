//! Users, roles, projects, keys, quotas: what they give, and that what is taken is taken at once.

use crate::harness::{PASSWORD, Person, World, key};
use domain::quota::{QuotaAmounts, QuotaResource};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_an_admin_whose_password_only_root_reads() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    for path in [world.config.identity.admin_password_path(), world.config.identity.master_key_path()] {
        let mode = std::fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    assert!(world.admin_password().len() >= 24);
    let admin = world.admin().await;
    let whoami = admin.get("/v1/whoami").await.expect(200);
    assert_eq!((&whoami["user"]["name"], &whoami["user"]["system_admin"]), (&json!("admin"), &json!(true)));
    // A second start makes no second one, and keeps the password.
    let world = world.restart().await;
    let admin = world.admin().await;
    assert_eq!(admin.get("/v1/users").await.expect(200)["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_first_password_is_taken() {
    let world = World::start_with(|c| {
        let path = c.identity.state_dir.join("given");
        service_kit::secret_file::write(&path, b"as the operator chose\n").expect("written");
        c.identity.admin_password_file = Some(path);
    })
    .await;
    world.login("admin", "as the operator chose").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_follow_their_changes_at_once() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "reader").await;
    let make = |name: &'static str| ann.post("/v1/ssh-keys", json!({"name": name, "public_key": key(name)}));
    make("a").await.problem(403, "permission_denied");
    admin.put("/v1/projects/blue/members/ann", json!({"role": "member"})).await.expect(200);
    make("b").await.expect(201);
    ann.put("/v1/projects/blue/members/ann", json!({"role": "admin"})).await.problem(403, "permission_denied");
    admin.delete("/v1/projects/blue/members/ann").await.expect(204);
    make("c").await.problem(400, "project_required");
    ann.get("/v1/ssh-keys?project=blue").await.problem(404, "project_not_found");
    admin.patch("/v1/users/ann", json!({"enabled": false})).await.expect(200);
    ann.get("/v1/whoami").await.problem(401, "token_invalid");
    let login = json!({"username": "ann", "password": PASSWORD});
    world.nobody().post("/v1/auth/login", login.clone()).await.problem(401, "login_failed");
    admin.patch("/v1/users/ann", json!({"enabled": true})).await.expect(200);
    world.nobody().post("/v1/auth/login", login).await.expect(200);
    admin.delete("/v1/users/ann").await.expect(204);
    ann.get("/v1/whoami").await.problem(401, "token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_the_old_logins() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    let login = json!({"username": "ann", "password": PASSWORD});
    let tokens = world.nobody().post("/v1/auth/login", login.clone()).await.expect(200);
    let change = |current: &'static str, new: &'static str| {
        ann.put("/v1/whoami/password", json!({"current": current, "new": new}))
    };
    change("not it", "a new and long one").await.problem(403, "wrong_password");
    change(PASSWORD, "short").await.problem(400, "weak_password");
    change(PASSWORD, "a new and long one").await.expect(204);
    world.nobody().post("/v1/auth/login", login).await.problem(401, "login_failed");
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    world.nobody().post("/v1/auth/refresh", refresh).await.problem(401, "refresh_token_invalid");
    world.login("ann", "a new and long one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_keys_carry_no_more_than_was_said() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    world.project(&admin, "red").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    admin.put("/v1/projects/red/members/ann", json!({"role": "member"})).await.expect(200);
    let person =
        |secret: &serde_json::Value| Person { token: secret.as_str().expect("a secret").into(), ..ann.clone() };

    ann.post("/v1/api-keys", json!({"name": "all"})).await.problem(403, "password_required");
    let made = ann.post("/v1/api-keys", json!({"name": "all", "password": PASSWORD})).await.expect(201);
    let all = person(&made["secret"]);
    assert!(made["secret"].as_str().is_some_and(|s| s.starts_with("iaas_")));
    all.get("/v1/ssh-keys?project=red").await.expect(200);
    all.put("/v1/whoami/password", json!({"current": PASSWORD, "new": "another long one"}))
        .await
        .problem(403, "session_required");

    let bound = json!({"name": "reads-blue", "project": "blue", "role": "reader"});
    let made = ann.post("/v1/api-keys", bound).await.expect(201);
    let reads = person(&made["secret"]);
    // Its project is the default, also for a user of two.
    reads.get("/v1/ssh-keys").await.expect(200);
    reads.get("/v1/ssh-keys?project=red").await.problem(404, "project_not_found");
    reads.post("/v1/ssh-keys", json!({"name": "k", "public_key": key("k")})).await.problem(403, "permission_denied");
    reads.post("/v1/api-keys", json!({"name": "escape"})).await.problem(403, "session_required");
    let whoami = reads.get("/v1/whoami").await.expect(200);
    assert_eq!(whoami["projects"].as_array().map(Vec::len), Some(1));
    assert_eq!(whoami["api_key"]["name"], "reads-blue");
    assert_eq!(reads.get("/v1/projects").await.expect(200)["items"].as_array().map(Vec::len), Some(1));

    ann.post("/v1/api-keys", json!({"name": "x", "project": "nope"})).await.problem(404, "project_not_found");
    ann.post("/v1/api-keys", json!({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}))
        .await
        .problem(400, "invalid_argument");
    ann.post("/v1/api-keys", json!({"name": "all", "password": PASSWORD})).await.problem(409, "name_taken");
    let listed = ann.get("/v1/api-keys").await.expect(200);
    assert!(!listed.to_string().contains("secret"), "{listed}");

    // A system admin's key, bound to a project, administers nothing.
    let made = admin.post("/v1/api-keys", json!({"name": "small", "project": "blue"})).await.expect(201);
    let small = person(&made["secret"]);
    small.get("/v1/users").await.problem(403, "permission_denied");
    small.post("/v1/ssh-keys", json!({"name": "k", "public_key": key("k")})).await.expect(201);

    ann.delete("/v1/api-keys/all").await.expect(204);
    all.get("/v1/whoami").await.problem(401, "token_invalid");
    // Somebody else's key isn't there.
    admin.delete("/v1/api-keys/reads-blue").await.problem(404, "api_key_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_cannot_lock_themselves_out() {
    let world = World::start().await;
    let admin = world.admin().await;
    admin.patch("/v1/users/admin", json!({"system_admin": false})).await.problem(409, "not_oneself");
    admin.patch("/v1/users/admin", json!({"enabled": false})).await.problem(409, "not_oneself");
    admin.delete("/v1/users/admin").await.problem(409, "not_oneself");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_set_by_system_admins_and_seen_by_readers() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let rob = world.user(&admin, "rob", "blue", "reader").await;
    let quota = rob.get("/v1/projects/blue/quota").await.expect(200);
    assert_eq!((&quota["limits"]["instances"], &quota["used"]["instances"]), (&json!(50), &json!(0)));
    rob.put("/v1/projects/blue/quota", json!({"vcpus": 1})).await.problem(403, "permission_denied");
    let set = admin.put("/v1/projects/blue/quota", json!({"vcpus": 7})).await.expect(200);
    assert_eq!((&set["limits"]["vcpus"], &set["limits"]["instances"]), (&json!(7), &json!(50)));
    admin.put("/v1/projects/blue/quota", json!({"vcpus": -1})).await.problem(400, "invalid_argument");
    assert_eq!(rob.get("/v1/projects/blue/quota").await.expect(200)["limits"]["vcpus"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_quota_can_be_set_and_is_shown() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let shown = admin.get("/v1/projects/blue/quota").await.expect(200);
    for (n, resource) in QuotaResource::ALL.into_iter().enumerate() {
        let name = resource.as_str();
        let limits = &shown["limits"];
        assert_eq!(limits[name], json!(QuotaAmounts::DEFAULT_LIMIT.get(resource)), "a new project's {name}");
        // The default network and its security group are there already.
        assert!(shown["used"][name].is_i64(), "{name}");
        let set = admin.put("/v1/projects/blue/quota", json!({ name: n + 3 })).await.expect(200);
        assert_eq!(set["limits"][name], json!(n + 3));
        admin.put("/v1/projects/blue/quota", json!({ name: -1 })).await.problem(400, "invalid_argument");
    }
    let count = QuotaResource::ALL.len();
    for part in ["limits", "used"] {
        assert_eq!(shown[part].as_object().expect("an object").len(), count, "{part} has others than these");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_groups_end_at_their_quota_and_come_back_when_they_are_deleted() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    admin.put("/v1/projects/blue/quota", json!({"ssh_keys": 2, "placement_groups": 2})).await.expect(200);
    let ann = world.user(&admin, "ann", "blue", "member").await;
    let routes = [
        ("/v1/ssh-keys", "ssh_keys", json!({"public_key": key("a")})),
        ("/v1/placement-groups", "placement_groups", json!({"policy": "anti_affinity"})),
    ];
    for (route, resource, body) in routes {
        let of = |n: usize| {
            let mut body = body.clone();
            body["name"] = json!(format!("n-{n}"));
            body
        };
        let made = futures::future::join_all((0..10).map(|n| ann.post(route, of(n)))).await;
        assert_eq!(made.iter().filter(|answer| answer.status == 201).count(), 2, "{resource}");
        let used = async || ann.get("/v1/projects/blue/quota").await.expect(200)["used"][resource].clone();
        assert_eq!(used().await, json!(2));
        let refused = ann.post(route, of(20)).await.problem(403, "quota_exceeded");
        let detail = refused["detail"].as_str().expect("a text").to_owned();
        assert!(detail.contains(&format!("{resource}: 1 requested, 2 used, limit 2")), "{detail}");
        ann.post(&format!("{route}?dry_run=true"), of(20)).await.problem(403, "quota_exceeded");
        let there = ann.get(route).await.expect(200)["items"].as_array().expect("a list").clone();
        let one = format!("{route}/{}", there[0]["id"].as_str().expect("an id"));
        ann.delete(&one).await.expect(204);
        assert_eq!(used().await, json!(1));
        ann.post(route, of(20)).await.expect(201);
    }
    for n in 0..50 {
        ann.post("/v1/api-keys", json!({"name": format!("k-{n}"), "project": "blue"})).await.expect(201);
    }
    ann.post("/v1/api-keys?dry_run=true", json!({"name": "more", "project": "blue"}))
        .await
        .problem(403, "quota_exceeded");
    ann.post("/v1/api-keys", json!({"name": "more", "project": "blue"})).await.problem(403, "quota_exceeded");
    ann.delete("/v1/api-keys/k-7").await.expect(204);
    ann.post("/v1/api-keys", json!({"name": "more", "project": "blue"})).await.expect(201);
    assert!(world.store.leak_report().await.expect("a report").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_the_audit_log_with_its_request() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    let request = ann.request(reqwest::Method::POST, "/v1/ssh-keys").header("x-request-id", "my-request-1");
    let made = crate::harness::answer(request.json(&json!({"name": "k", "public_key": key("k")}))).await;
    assert_eq!(made.headers["x-request-id"], "my-request-1");
    made.expect(201);
    let audit = ann.get("/v1/audit").await.expect(200);
    let entry = audit["items"].as_array().expect("items").iter().find(|e| e["action"] == "ssh_key.create");
    let entry = entry.expect("the line is there");
    assert_eq!(entry["request_id"], "my-request-1");
    assert_eq!((&entry["principal_name"], &entry["outcome"]), (&json!("ann"), &json!("accepted")));
    // The system's own lines are for its administrators.
    assert!(!audit.to_string().contains("user.create"));
    assert!(admin.get("/v1/audit").await.expect(200).to_string().contains("user.create"));
    // Who logged in, and who failed to, is there too.
    world
        .nobody()
        .post("/v1/auth/login", json!({"username": "ann", "password": "wrong"}))
        .await
        .problem(401, "login_failed");
    for outcome in ["accepted", "denied"] {
        let of_ann = |line: &serde_json::Value| {
            line["action"] == "session.login" && line["principal_name"] == "ann" && line["outcome"] == outcome
        };
        assert_eq!(admin.audited(outcome, of_ann).await.len(), 1, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_a_second_are_told_when_to_return() {
    let world = World::start_with(|c| c.api.rate_limit_per_principal = 5).await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    let all = (0..30).map(|_| ann.get("/v1/whoami"));
    let answers = futures::future::join_all(all).await;
    let (fine, limited): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    assert!(fine.len() >= 5 && !limited.is_empty(), "{} fine, {} limited", fine.len(), limited.len());
    assert_eq!(fine[0].headers["ratelimit-limit"], "5");
    for refused in limited {
        assert!(refused.headers.contains_key("retry-after"));
        refused.problem(429, "rate_limited");
    }
    // System admins have none.
    for refused in futures::future::join_all((0..30).map(|_| admin.get("/v1/whoami"))).await {
        refused.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_counts_at_once_also_when_nobody_waits_for_the_answer() {
    // The cache alone would keep it for a minute.
    let world = World::start_with(|config| config.identity.principal_cache_ms = 60_000).await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let bo = world.user(&admin, "bo", "blue", "member").await;
    bo.post("/v1/ssh-keys", json!({"name": "first", "public_key": key("bo")})).await.expect(201);
    // The commit waits for the database, and its caller goes meanwhile.
    let database = rusqlite::Connection::open(world.dir.path().join("iaas.db")).expect("it opens");
    database.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let request = admin.request(reqwest::Method::PUT, "/v1/projects/blue/members/bo").json(&json!({"role": "reader"}));
    let impatient = tokio::time::timeout(std::time::Duration::from_secs(1), request.send()).await;
    impatient.expect_err("the database is locked");
    database.execute_batch("ROLLBACK").expect("unlocked");
    let role = "SELECT r.role FROM role_binding r JOIN user_account u ON u.id = r.user_id WHERE u.name = 'bo'";
    crate::harness::eventually("the change", async || {
        let role: String = database.query_row(role, [], |row| row.get(0)).expect("a row");
        (role == "reader").then_some(())
    })
    .await;
    for attempt in 0.. {
        let body = json!({"name": format!("k{attempt}"), "public_key": key("bo")});
        if bo.post("/v1/ssh-keys", body).await.status == 403 {
            break;
        }
        assert!(attempt < 50, "the right is still there");
    }
    world.stop().await;
}
