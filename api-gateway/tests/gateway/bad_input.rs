//! Bad requests, to every route that takes such.

use crate::{
    every_route::{objects, operations},
    harness::{World, answer},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_body_is_read_strictly() {
    let world = World::start().await;
    let (admin, _) = objects(&world).await;
    let (all, api) = operations(&admin).await;
    let mut checked = 0;
    for operation in &all {
        let Some(schema) = operation.body_schema(&api) else { continue };
        checked += 1;
        let name = operation.name();
        let send = |body: String, media: &'static str| {
            let request = admin.request(operation.method.clone(), &format!("{}?project=blue", operation.path()));
            answer(request.header("content-type", media).body(body))
        };
        // Routes without a query extractor of their own (login) take no parameters at all, which is fine for them.
        println!("{name}");
        send("{".into(), "application/json").await.problem(400, "malformed_json");
        send("{\"zzz\":1}".into(), "text/plain").await.problem(415, "unsupported_media_type");
        send(format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20)), "application/json")
            .await
            .problem(413, "payload_too_large");
        let unknown = send("{\"zzz_unknown\":1}".into(), "application/json").await.problem(400, "invalid_argument");
        assert_eq!(unknown["errors"][0]["field"], "/zzz_unknown", "{name}: {unknown}");
        send("[1]".into(), "application/json").await.problem(400, "invalid_argument");
        let Some(properties) = schema["properties"].as_object() else { continue };
        for (property, _) in properties {
            // No field of ours is a list of lists.
            let wrong = json!({ property: [[[]]] }).to_string();
            let refused = send(wrong, "application/json").await.problem(400, "invalid_argument");
            let field = refused["errors"][0]["field"].as_str().unwrap_or("").to_owned();
            assert!(
                field.starts_with(&format!("/{property}")),
                "{name} names {field} for a wrong {property}: {refused}"
            );
        }
    }
    assert!(checked >= 12, "{checked} routes with a body");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_parameters_and_bad_headers_are_named() {
    let world = World::start().await;
    let (admin, _) = objects(&world).await;
    let (all, _) = operations(&admin).await;
    let (mut cursors, mut matches) = (0, 0);
    for operation in all.iter().filter(|o| !o.public) {
        let name = operation.name();
        let ask = |query: &str| {
            admin.request(operation.method.clone(), &format!("{}?project=blue&{query}", operation.path()))
        };
        let refused =
            answer(ask("zzz=1").header("content-type", "application/json")).await.problem(400, "invalid_argument");
        assert_eq!(refused["errors"][0]["field"], "zzz", "{name}: {refused}");
        if operation.has_param("cursor") {
            cursors += 1;
            for bad in ["cursor=x", "cursor=AAAAAAAAAAAAAAAA", "cursor="] {
                answer(ask(bad)).await.problem(400, "bad_cursor");
            }
            let refused = answer(ask("limit=0")).await.problem(400, "invalid_argument");
            assert_eq!(refused["errors"][0]["field"], "limit", "{name}");
            answer(ask("limit=many")).await.problem(400, "invalid_argument");
        }
        if operation.has_param("If-Match") {
            matches += 1;
            let request = ask("").header("content-type", "application/json").body("{}");
            answer(request.header("if-match", "seven")).await.problem(400, "bad_if_match");
            let request = ask("").header("content-type", "application/json").body("{}");
            answer(request.header("idempotency-key", "a b")).await.problem(400, "bad_idempotency_key");
            let refused = answer(ask("dry_run=perhaps").header("content-type", "application/json").body("{}")).await;
            refused.problem(400, "invalid_argument");
        }
    }
    assert!(cursors >= 8 && matches >= 12, "{cursors} lists, {matches} mutations");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_changes_nothing() {
    let world = World::start().await;
    let (admin, ann) = objects(&world).await;
    let before = world.store.event_head().await.expect("head").1;
    ann.post("/v1/ssh-keys", json!({"name": "laptop", "public_key": crate::harness::key("x")}))
        .await
        .problem(409, "name_taken");
    ann.post("/v1/ssh-keys", json!({"name": "Bad Name", "public_key": crate::harness::key("x")}))
        .await
        .problem(400, "invalid_argument");
    let refused = ann.post("/v1/ssh-keys", json!({"name": "k", "public_key": "ssh-rsa AAAA"})).await;
    assert_eq!(refused.problem(400, "invalid_argument")["errors"][0]["field"], "/public_key");
    admin.post("/v1/users", json!({"name": "bo", "password": "short"})).await.problem(400, "weak_password");
    admin
        .post("/v1/flavors", json!({"name": "big", "vcpus": 0, "memory_mib": 128, "disk_gib": 1}))
        .await
        .problem(400, "invalid_argument");
    admin.post("/v1/projects", json!({"name": "blue"})).await.problem(409, "name_taken");
    // It has an image, if only a queued one.
    admin.delete("/v1/projects/blue").await.problem(409, "project_in_use");
    assert_eq!(world.store.event_head().await.expect("head").1, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_so() {
    let world = World::start().await;
    let (admin, _) = objects(&world).await;
    for (path, code) in [
        ("/v1/nothing", "route_not_found"),
        ("/nothing", "route_not_found"),
        ("/v1/projects/nope", "project_not_found"),
        ("/v1/projects/0199e5a0-0000-7000-8000-000000000000", "project_not_found"),
        ("/v1/users/nope", "user_not_found"),
        ("/v1/flavors/nope", "flavor_not_found"),
        ("/v1/ssh-keys/nope?project=blue", "ssh_key_not_found"),
    ] {
        admin.get(path).await.problem(404, code);
    }
    admin.delete("/v1/api-keys/nope").await.problem(404, "api_key_not_found");
    let refused = admin.delete("/v1/whoami").await;
    assert!(refused.headers.contains_key("allow"));
    refused.problem(405, "method_not_allowed");
    // A path that isn't UTF-8 once decoded.
    let refused = admin.get("/v1/flavors/%ff").await;
    refused.assert_problem();
    assert_eq!(refused.status.as_u16(), 400);
}
