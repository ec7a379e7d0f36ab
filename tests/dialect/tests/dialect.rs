//! The stub as its clients meet it: a real gateway with real managers behind it and a simulated host. What it shows was made through v1.

#[allow(dead_code)]
#[path = "../../../api-gateway/tests/gateway/compute.rs"]
mod compute;
#[allow(dead_code)]
#[path = "../../../api-gateway/tests/gateway/harness.rs"]
mod harness;

use compute::{Cloud, config_of};
use harness::{Answer, Person, World, answer};
use serde_json::json;

async fn get(person: &Person, path: &str) -> Answer {
    let request = person.http.get(format!("{}{path}", person.base)).header("x-auth-token", &person.token);
    answer(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_dialect_reads_what_v1_made() {
    let world = World::start_with_dialects(vec![dialect::openstack()]).await;
    let cloud = Cloud::in_world(world, vec![config_of("alpha")]).await;
    let web = cloud.running("web").await;
    cloud.ann.post("/v1/networks", json!({"name": "inside", "mtu": 1400})).await.expect(201);

    let servers = get(&cloud.ann, "/openstack/compute/v2.1/servers").await.expect(200);
    assert_eq!(servers, json!({"servers": [{"id": web["id"], "name": "web"}]}));
    let id = web["id"].as_str().expect("an id");
    let shown = get(&cloud.ann, &format!("/openstack/compute/v2.1/servers/{id}")).await.expect(200);
    let server = &shown["server"];
    assert_eq!((&server["id"], &server["status"]), (&web["id"], &json!("ACTIVE")));
    assert_eq!(server["flavor"], json!({"vcpus": 1, "ram": 128, "disk": 0}));
    let networks = get(&cloud.ann, "/openstack/network/v2.0/networks").await.expect(200);
    let inside = networks["networks"].as_array().expect("networks").iter().find(|n| n["name"] == "inside");
    assert_eq!(inside.expect("the network")["mtu"], 1400);

    // Errors have the dialect's shape, whoever met them: a route, an extractor, the edge.
    let missing = get(&cloud.ann, "/openstack/compute/v2.1/servers/nothing").await;
    assert_eq!((missing.status.as_u16(), &missing.body["itemNotFound"]["code"]), (404, &json!(404)));
    let stranger = get(&cloud.world.nobody(), "/openstack/compute/v2.1/servers").await;
    assert_eq!((stranger.status.as_u16(), &stranger.body["unauthorized"]["code"]), (401, &json!(401)));
    let nowhere = get(&cloud.ann, "/openstack/nowhere").await;
    assert_eq!((nowhere.status.as_u16(), &nowhere.body["itemNotFound"]["code"]), (404, &json!(404)));
    // And v1 keeps its own.
    cloud.ann.get("/v1/nowhere").await.problem(404, "route_not_found");
    cloud.stop().await;
}
