//! The same key: once done, always the same answer.

use crate::harness::{Answer, Person, World, answer, key};
use reqwest::Method;
use serde_json::{Value, json};

async fn keyed(person: &Person, method: Method, path: &str, key: &str, body: Option<&Value>) -> Answer {
    let mut request = person.request(method, path).header("idempotency-key", key);
    if let Some(body) = body {
        request = request.json(body);
    }
    answer(request).await
}

async fn world() -> (World, Person) {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    (world, admin.within("blue"))
}

async fn count(person: &Person, path: &str) -> usize {
    person.get(path).await.expect(200)["items"].as_array().expect("items").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer_also_after_a_restart() {
    let (world, admin) = world().await;
    let body = json!({"name": "laptop", "public_key": key("a")});
    let first = keyed(&admin, Method::POST, "/v1/ssh-keys", "k1", Some(&body)).await;
    let etag = first.headers["etag"].clone();
    let made = first.expect(201);
    let again = keyed(&admin, Method::POST, "/v1/ssh-keys", "k1", Some(&body)).await;
    assert_eq!(again.headers["etag"], etag);
    assert_eq!(again.expect(201), made);

    // A secret that is shown once is shown again to a repeat, and isn't in the database.
    let ask = json!({"name": "ci", "project": "blue"});
    let secret = keyed(&admin, Method::POST, "/v1/api-keys", "k2", Some(&ask)).await.expect(201);

    let world = world.restart().await;
    let admin = world.admin().await.within("blue");
    assert_eq!(keyed(&admin, Method::POST, "/v1/ssh-keys", "k1", Some(&body)).await.expect(201), made);
    assert_eq!(keyed(&admin, Method::POST, "/v1/api-keys", "k2", Some(&ask)).await.expect(201), secret);
    assert_eq!((count(&admin, "/v1/ssh-keys").await, count(&admin, "/v1/api-keys").await), (1, 1));
    let text = secret["secret"].as_str().expect("a secret").rsplit('_').next().expect("its last part").to_owned();
    for entry in std::fs::read_dir(world.dir.path()).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let bytes = std::fs::read(&path).expect("a file");
            let found = bytes.windows(text.len()).any(|w| w == text.as_bytes());
            assert!(!found, "the secret is readable in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_the_key_is_refused() {
    let (world, admin) = world().await;
    let body = json!({"name": "laptop", "public_key": key("a")});
    keyed(&admin, Method::POST, "/v1/ssh-keys", "k", Some(&body)).await.expect(201);
    let other = json!({"name": "phone", "public_key": key("a")});
    keyed(&admin, Method::POST, "/v1/ssh-keys", "k", Some(&other)).await.problem(422, "key_reused");
    let path = "/v1/ssh-keys?project=blue";
    keyed(&admin, Method::POST, path, "k", Some(&body)).await.problem(422, "key_reused");
    keyed(&admin, Method::DELETE, "/v1/ssh-keys/laptop", "k", None).await.problem(422, "key_reused");
    // Another principal's keys are others.
    let ann = world.user(&admin, "ann", "blue", "member").await;
    keyed(&ann, Method::POST, "/v1/ssh-keys", "k", Some(&other)).await.expect(201);
    assert_eq!(count(&admin, "/v1/ssh-keys").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_at_once_do_it_once() {
    let (_world, admin) = world().await;
    let body = json!({"name": "laptop", "public_key": key("a")});
    let all = (0..16).map(|_| keyed(&admin, Method::POST, "/v1/ssh-keys", "same", Some(&body)));
    let answers: Vec<_> = futures::future::join_all(all).await.into_iter().map(|a| a.expect(201)).collect();
    assert!(answers.iter().all(|a| *a == answers[0]));
    assert_eq!(count(&admin, "/v1/ssh-keys").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_repeats_although_the_object_is_gone() {
    let (_world, admin) = world().await;
    admin.post("/v1/ssh-keys", json!({"name": "laptop", "public_key": key("a")})).await.expect(201);
    for _ in 0..2 {
        keyed(&admin, Method::DELETE, "/v1/ssh-keys/laptop", "d", None).await.expect(204);
    }
    keyed(&admin, Method::DELETE, "/v1/projects/blue", "p", None).await.expect(204);
    keyed(&admin, Method::DELETE, "/v1/projects/blue", "p", None).await.expect(204);
    admin.delete("/v1/projects/blue").await.problem(404, "project_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_may_be_tried_again_with_its_key() {
    let (_world, admin) = world().await;
    let body = json!({"name": "ann", "password": "four words are enough"});
    let member = json!({"role": "reader"});
    let path = "/v1/projects/blue/members/ann";
    keyed(&admin, Method::PUT, path, "m", Some(&member)).await.problem(404, "user_not_found");
    admin.post("/v1/users", body).await.expect(201);
    keyed(&admin, Method::PUT, path, "m", Some(&member)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_the_storage_manager_is_made_once_too() {
    let (world, admin) = world().await;
    let body = json!({"name": "img", "kind": "disk", "format": "raw"});
    let all = (0..8).map(|_| keyed(&admin, Method::POST, "/v1/images?project=blue", "i", Some(&body)));
    let answers: Vec<_> = futures::future::join_all(all).await.into_iter().map(|a| a.expect(201)).collect();
    assert!(answers.iter().all(|a| a["id"] == answers[0]["id"]));
    let world = world.restart().await;
    let admin = world.admin().await.within("blue");
    let again = keyed(&admin, Method::POST, "/v1/images?project=blue", "i", Some(&body)).await.expect(201);
    assert_eq!(again["id"], answers[0]["id"]);
    assert_eq!(count(&admin, "/v1/images?project=blue").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_be_and_does_nothing() {
    let (world, admin) = world().await;
    let before = world.store.event_head().await.expect("head").1;
    let body = json!({"name": "laptop", "public_key": key("a")});
    let plan = admin.post("/v1/ssh-keys?dry_run=true", body.clone()).await.expect(200);
    assert_eq!(plan["dry_run"], true);
    assert!(plan["plan"]["touches"][0].as_str().is_some_and(|t| t.contains("laptop")), "{plan}");
    assert_eq!(count(&admin, "/v1/ssh-keys").await, 0);
    assert_eq!(world.store.event_head().await.expect("head").1, before);
    admin.post("/v1/ssh-keys", body.clone()).await.expect(201);
    admin.post("/v1/ssh-keys?dry_run=true", body).await.problem(409, "name_taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_guards_a_change() {
    let (_world, admin) = world().await;
    let shown = admin.get("/v1/projects/blue").await;
    assert_eq!(shown.headers["etag"], "\"1\"");
    let change = |etag: &'static str| {
        let request = admin.request(Method::PATCH, "/v1/projects/blue").header("if-match", etag);
        answer(request.json(&json!({"description": "ours"})))
    };
    let changed = change("\"1\"").await;
    assert_eq!(changed.headers["etag"], "\"2\"");
    assert_eq!(changed.expect(200)["description"], "ours");
    change("\"1\"").await.problem(412, "precondition_failed");
    change("*").await.expect(200);
    let request = admin.request(Method::DELETE, "/v1/projects/blue").header("if-match", "\"1\"");
    answer(request).await.problem(412, "precondition_failed");
}
