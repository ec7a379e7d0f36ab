//! Requests about instances that say something impossible: every wrong field is named, and all at once.

use crate::{compute::Cloud, harness::World};
use serde_json::{Value, json};

fn fields(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().expect("errors");
    errors.iter().map(|e| e["field"].as_str().expect("a field")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wrong_fields_of_a_create_are_named() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    let long = "x".repeat(300);
    let many_keys: Vec<String> = (0..33).map(|i| format!("k{i}")).collect();
    let many_tags: serde_json::Map<String, Value> = (0..65).map(|i| (format!("k{i}"), json!("v"))).collect();
    for (body, expected) in [
        (json!({"name": "Web_1", "image": ""}), vec!["/name", "/image", "/flavor"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "vcpus": 1}), vec!["/flavor"]),
        (
            json!({"name": "a", "image": "i", "vcpus": 0, "memory_mib": 1, "disk_gib": 1_000_000}),
            vec!["/vcpus", "/memory_mib", "/disk_gib"],
        ),
        (json!({"name": "a", "image": "i", "vcpus": 1}), vec!["/memory_mib"]),
        (json!({"name": "a", "image": "i", "disk_gib": 1}), vec!["/vcpus", "/memory_mib"]),
        (json!({"name": "a", "image": "i", "flavor": long}), vec!["/flavor"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "count": 0}), vec!["/count"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "count": 101}), vec!["/count"]),
        (json!({"name": "x".repeat(61), "image": "i", "flavor": "f", "count": 10}), vec!["/name"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "ssh_keys": many_keys}), vec!["/ssh_keys"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "ssh_keys": ["ok", ""]}), vec!["/ssh_keys/1"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "tags": many_tags}), vec!["/tags"]),
        (
            json!({"name": "a", "image": "i", "flavor": "f", "tags": {"": "v", "a/b": long, "c:d": "v"}}),
            vec!["/tags/", "/tags/a~1b", "/tags/c:d"],
        ),
        (json!({"name": "a", "image": "i", "flavor": "f", "user_data": "x".repeat(65 * 1024)}), vec!["/user_data"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "user_data_base64": "%%"}), vec!["/user_data_base64"]),
        (
            json!({"name": "a", "image": "i", "flavor": "f", "user_data": "x", "user_data_base64": "eA=="}),
            vec!["/user_data"],
        ),
        (json!({"name": "a", "image": "i", "flavor": "f", "power": "paused"}), vec!["/power"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "power": "asleep"}), vec!["/power"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "on_host_loss": "pray"}), vec!["/on_host_loss"]),
        (json!({"name": "a", "image": "i", "flavor": "f", "zone": "Zone 1"}), vec!["/zone"]),
        (
            json!({"name": "A", "image": "i", "flavor": "f", "count": 0, "zone": "", "power": "paused"}),
            vec!["/name", "/count", "/zone", "/power"],
        ),
    ] {
        let shown = body.to_string().chars().take(120).collect::<String>();
        let refused = ann.post("/v1/instances", body).await.problem(400, "invalid_argument");
        assert_eq!(fields(&refused), expected, "{shown}");
    }
    for (path, body, expected) in [
        ("stop", json!({"timeout_secs": 3601}), vec!["/timeout_secs"]),
        ("stop", json!({"timeout_secs": 5, "hard": true}), vec!["/hard"]),
        ("resize", json!({}), vec!["/flavor"]),
        ("resize", json!({"flavor": "f", "vcpus": 500}), vec!["/flavor", "/vcpus"]),
        ("rebuild", json!({"image": ""}), vec!["/image"]),
    ] {
        let refused = ann.post(&format!("/v1/instances/x/{path}"), body).await.problem(400, "invalid_argument");
        assert_eq!(fields(&refused), expected, "{path}");
    }
    let refused = ann.patch("/v1/instances/x", json!({"name": "-", "tags": {"=": ""}})).await;
    assert_eq!(fields(&refused.problem(400, "invalid_argument")), ["/name", "/tags/="]);
    for query in ["wait=flying", "timeout=soon", "timeout=11m", "wait=running&timeout=-1s"] {
        let refused = ann.get(&format!("/v1/instances/x?{query}")).await.problem(400, "invalid_argument");
        assert!(matches!(refused["errors"][0]["field"].as_str(), Some("wait" | "timeout")), "{query}: {refused}");
    }
    for path in ["/v1/instances/x?wait=running", "/v1/instances/x?wait=stopped"] {
        ann.delete(path).await.problem(400, "invalid_argument");
    }
    assert_eq!(
        world
            .store
            .event_after(0, None, 100)
            .await
            .expect("events")
            .iter()
            .filter(|e| e.object_kind == "instance")
            .count(),
        0
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_create_names_must_be_there() {
    let cloud = Cloud::start().await;
    let ann = &cloud.ann;
    for (body, status, code) in [
        (json!({"name": "a", "image": "nothing", "flavor": "tiny"}), 404, "image_not_found"),
        (json!({"name": "a", "image": "linux", "flavor": "nothing"}), 404, "flavor_not_found"),
        (json!({"name": "a", "image": "linux", "flavor": "tiny", "ssh_keys": ["nothing"]}), 404, "ssh_key_not_found"),
        (json!({"name": "a", "image": "linux", "flavor": "small", "on_host_loss": "restart"}), 409, "local_disk"),
        (json!({"name": "a", "image": "linux", "flavor": "tiny", "zone": "nowhere"}), 507, "no_capacity"),
    ] {
        ann.post("/v1/instances", body).await.problem(status, code);
    }
    ann.post("/v1/images", json!({"name": "half", "kind": "kernel"})).await.expect(201);
    let early = ann.post("/v1/instances", json!({"name": "a", "image": "half", "flavor": "tiny"})).await;
    early.problem(409, "image_not_active");
    // An image of another project isn't there.
    cloud.world.project(&cloud.admin, "red").await;
    let eve = cloud.world.user(&cloud.admin, "eve", "red", "member").await;
    let image = ann.get("/v1/images/linux").await.expect(200)["id"].as_str().expect("an id").to_owned();
    for key in ["linux", &image] {
        eve.post("/v1/instances", json!({"name": "a", "image": key, "flavor": "tiny"}))
            .await
            .problem(404, "image_not_found");
    }
    // Neither is an instance of another.
    let web = cloud.running("web").await["id"].as_str().expect("an id").to_owned();
    for key in ["web", &web] {
        eve.get(&format!("/v1/instances/{key}")).await.problem(404, "instance_not_found");
        eve.delete(&format!("/v1/instances/{key}")).await.problem(404, "instance_not_found");
        eve.post(&format!("/v1/instances/{key}/stop"), json!({})).await.problem(404, "instance_not_found");
        eve.get(&format!("/v1/instances/{key}/console-log")).await.problem(404, "instance_not_found");
        eve.post(&format!("/v1/instances/{key}/console-ticket"), json!({})).await.problem(404, "instance_not_found");
    }
    assert_eq!(ann.get("/v1/instances/web").await.expect(200)["state"], "running");
    // A reader sees it, and no console of it.
    let rob = cloud.world.user(&cloud.admin, "rob", "blue", "reader").await;
    rob.get("/v1/instances/web").await.expect(200);
    rob.get("/v1/instances/web/console-log").await.problem(403, "permission_denied");
    cloud.stop().await;
}
