//! NICs of instances: requested with them, attached and detached later, repeated and refused.

use crate::{
    compute::{Cloud, column},
    harness::answer,
    network::outside,
    network_bad::fields,
};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_created_with_nics() {
    let cloud = Cloud::start().await;
    let ann = &cloud.ann;
    ann.post("/v1/networks", json!({"name": "web"})).await.expect(201);
    ann.post("/v1/subnets", json!({"name": "a", "network": "web", "cidr": "10.1.0.0/24"})).await.expect(201);
    let instance = |networks: Value| json!({"name": "i", "image": "linux", "flavor": "tiny", "networks": networks});
    for (networks, expected) in [
        (json!([{}]), vec!["/networks/0/network"]),
        (json!([{"network": "web", "port": "p"}]), vec!["/networks/0/port"]),
        (json!([{"port": "p", "fixed_ips": ["10.1.0.5"]}]), vec!["/networks/0/port"]),
    ] {
        let refused = ann.post("/v1/instances", instance(networks)).await.problem(400, "invalid_argument");
        assert_eq!(fields(&refused), expected);
    }
    for (networks, code, field) in [
        (json!([{"network": "nope"}]), "network_not_found", "/networks/0/network"),
        (json!([{"port": "nope"}]), "port_not_found", "/networks/0/port"),
        (json!([{"network": "web", "fixed_ips": ["b"]}]), "subnet_not_found", "/networks/0/fixed_ips/0"),
        (
            json!([{"network": "web", "security_groups": ["x"]}]),
            "security_group_not_found",
            "/networks/0/security_groups/0",
        ),
    ] {
        let refused = ann.post("/v1/instances", instance(networks)).await.problem(404, code);
        assert_eq!(fields(&refused), [field]);
    }
    ann.post("/v1/ports", json!({"name": "p", "network": "web"})).await.expect(201);
    let twice = ann.post("/v1/instances", instance(json!([{"port": "p"}, {"port": "p"}]))).await;
    assert_eq!(fields(&twice.problem(400, "invalid_argument")), ["/networks"]);
    let bare = ann.post("/v1/instances", instance(json!([]))).await.expect(201);
    assert_eq!(bare["nics"], json!([]));
    ann.delete("/v1/instances/i/nics/p").await.problem(404, "nic_not_found");
    ann.post("/v1/instances/i/nics", json!({})).await.problem(400, "invalid_argument");
    ann.post("/v1/instances/i/nics", json!({"network": "nope"})).await.problem(404, "network_not_found");
    let none = ann.post("/v1/floating-ips", json!({"instance": "i"})).await;
    none.problem(409, "invalid_state");
    outside(&cloud.admin, "public").await;
    let refused = ann.post("/v1/floating-ips", json!({"instance": "i"})).await.problem(409, "no_address");
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("iaasctl instance nic add i")), "{refused}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_have_their_nics() {
    let cloud = Cloud::start().await;
    let ann = &cloud.ann;
    for (network, cidr) in [("web", "10.1.0.0/24"), ("db", "10.2.0.0/24")] {
        ann.post("/v1/networks", json!({"name": network})).await.expect(201);
        ann.post("/v1/subnets", json!({"name": network, "network": network, "cidr": cidr})).await.expect(201);
    }
    outside(&cloud.admin, "public").await;
    let group = ann.post("/v1/security-groups", json!({"name": "front"})).await.expect(201);
    let port = ann.post("/v1/ports", json!({"name": "own", "network": "db"})).await.expect(201);
    let body = json!({"name": "web", "image": "linux", "flavor": "tiny", "networks": [
        {"network": "web", "fixed_ips": ["10.1.0.77"], "security_groups": ["front"]}, {"port": "own"},
    ]});
    let plan = ann.post("/v1/instances?dry_run=true", body.clone()).await.expect(200);
    assert_eq!(plan["dry_run"], true);
    let keyed = |body: Value| {
        let request = ann.request(Method::POST, "/v1/instances?wait=running&timeout=30s");
        answer(request.header("idempotency-key", "c1").json(&body))
    };
    let web = keyed(body.clone()).await.expect(201);
    assert_eq!(
        [&web["nics"][0]["network"], &web["nics"][1]["network"]],
        ["web", "db"],
        "in the order requested for: {web}"
    );
    assert_eq!((&web["nics"][0]["addresses"], &web["nics"][1]["port_id"]), (&json!(["10.1.0.77"]), &port["id"]));
    let new = ann.get(&format!("/v1/ports/{}", web["nics"][0]["port_id"].as_str().expect("an id"))).await.expect(200);
    assert_eq!(new["security_groups"], json!([{"id": group["id"], "name": "front"}]));
    assert_eq!(keyed(body).await.expect(201)["nics"], web["nics"], "a repeat means the same ports");
    let taken = json!({"name": "x", "image": "linux", "flavor": "tiny", "networks": [{"port": "own"}]});
    ann.post("/v1/instances", taken).await.problem(409, "port_attached");

    // A floating IP for an instance leads to the NIC that the outside can reach.
    ann.post("/v1/routers", json!({"name": "out", "network": "db"})).await.expect(201);
    let floating = ann.post("/v1/floating-ips", json!({"instance": "web", "address": "203.0.113.9"})).await.expect(201);
    assert_eq!((&floating["port_id"], floating["instance"].as_str()), (&port["id"], Some("web")));
    let shown = ann.get("/v1/instances/web").await.expect(200);
    assert_eq!(shown["nics"][1]["floating_ips"], json!(["203.0.113.9"]));
    assert_eq!(ann.get("/v1/instances").await.expect(200)["items"][0]["nics"], shown["nics"]);
    assert_eq!(ann.get("/v1/instances/web/explain").await.expect(200)["instance"]["nics"], shown["nics"]);
    assert_eq!(column(&ann.get("/v1/floating-ips?instance=web").await.expect(200), "address"), ["203.0.113.9"]);
    let ports = ann.get("/v1/ports?instance=web").await.expect(200);
    let owners: Vec<_> = ports["items"].as_array().expect("items").iter().map(|p| p["instance"].clone()).collect();
    assert_eq!(owners, ["web", "web"]);
    let elsewhere = json!({"instance": "web", "fixed_ip": "10.9.9.9"});
    ann.patch("/v1/floating-ips/203.0.113.9", elsewhere).await.problem(409, "no_address");

    // Several at once get a port each; without a word, one of the network `default`, if there is one.
    let many = json!({"name": "m", "count": 2, "image": "linux", "flavor": "tiny", "networks": [{"network": "web"}, {"network": "db"}]});
    let many = ann.post("/v1/instances", many).await.expect(201);
    let ids: std::collections::BTreeSet<_> = many["items"]
        .as_array()
        .expect("items")
        .iter()
        .flat_map(|i| {
            i["nics"].as_array().expect("nics").iter().map(|n| n["port_id"].as_str().expect("an id").to_owned())
        })
        .collect();
    assert_eq!(ids.len(), 4);
    let plain = json!({"name": "a", "image": "linux", "flavor": "tiny"});
    assert_eq!(ann.post("/v1/instances", plain.clone()).await.expect(201)["nics"][0]["network"], "default");
    let bare = json!({"name": "c", "image": "linux", "flavor": "tiny", "networks": []});
    assert_eq!(ann.post("/v1/instances", bare).await.expect(201)["nics"], json!([]));

    // A NIC is attached and detached, also while the instance runs.
    let nics = "/v1/instances/web/nics?wait=running&timeout=30s";
    let more = ann.post(nics, json!({"network": "default"})).await.expect(202);
    assert_eq!(more["nics"].as_array().map(Vec::len), Some(3));
    let less = ann.delete("/v1/instances/web/nics/own?wait=running&timeout=30s").await.expect(202);
    assert_eq!(less["nics"].as_array().map(Vec::len), Some(2), "{less}");
    let ports = ann.get("/v1/ports").await.expect(200)["items"].as_array().map(Vec::len).expect("items");
    cloud.admin.put("/v1/projects/blue/quota", json!({"ports": ports})).await.expect(200);
    ann.post(nics, json!({"network": "db"})).await.problem(403, "quota_exceeded");
    cloud.stop().await;
}
