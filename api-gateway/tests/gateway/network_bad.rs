//! What may not be requested of networks: refused before anything changes, in words that say what is wrong.

use crate::network::Lab;
use serde_json::{Value, json};

pub fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().expect("errors").iter().map(|e| e["field"].as_str().expect("a field")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manager_refuses_is_said_in_its_words() {
    let lab = Lab::start().await;
    let ann = &lab.ann;
    lab.network("web", "10.1.0.0/24").await;
    lab.outside("public").await;
    ann.post("/v1/ports", json!({"name": "p", "network": "web", "fixed_ips": ["10.1.0.7"]})).await.expect(201);
    let before = lab.events().await;
    for (path, body, status, code, field) in [
        (
            "ports",
            json!({"name": "q", "network": "web", "fixed_ips": ["10.1.0.7"]}),
            409,
            "address_taken",
            "/fixed_ips",
        ),
        (
            "ports",
            json!({"name": "q", "network": "web", "fixed_ips": ["10.9.0.7"]}),
            400,
            "address_outside_subnet",
            "/fixed_ips",
        ),
        (
            "ports",
            json!({"name": "q", "network": "web", "fixed_ips": ["10.1.0.1"]}),
            400,
            "address_is_gateway",
            "/fixed_ips",
        ),
        (
            "ports",
            json!({"name": "q", "network": "web", "fixed_ips": ["10.1.0.255"]}),
            400,
            "address_not_usable",
            "/fixed_ips",
        ),
        ("subnets", json!({"name": "b", "network": "web", "cidr": "10.1.0.128/25"}), 409, "subnet_overlaps", "/cidr"),
        ("floating-ips", json!({"address": "192.0.2.1"}), 400, "address_outside_subnet", "/address"),
        ("networks", json!({"name": "web"}), 409, "name_taken", ""),
        ("floating-ips", json!({"port": "p"}), 409, "network_not_routed", ""),
    ] {
        let refused = ann.post(&format!("/v1/{path}"), body.clone()).await.problem(status, code);
        let named = refused["errors"][0]["field"].as_str().unwrap_or_default();
        assert!(named.starts_with(field), "{body}: {refused}");
    }
    for path in ["networks/web", "subnets/a"] {
        let refused = ann.delete(&format!("/v1/{path}")).await;
        refused.assert_problem();
        assert!(refused.body["code"].as_str().is_some_and(|code| code.ends_with("_in_use")), "{}", refused.text);
    }
    assert_eq!(lab.events().await, before, "nothing of it was done");
    lab.admin.put("/v1/projects/blue/quota", json!({"networks": 2})).await.expect(200);
    let before = lab.events().await;
    ann.post("/v1/networks", json!({"name": "more"})).await.problem(403, "quota_exceeded");
    ann.post("/v1/networks?dry_run=true", json!({"name": "more"})).await.problem(403, "quota_exceeded");
    assert_eq!(lab.events().await, before, "nothing of it was done");
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_project_has_its_defaults_when_its_maker_is_answered() {
    let lab = Lab::start().await;
    lab.outside("public").await;
    lab.admin.post("/v1/projects?dry_run=true", json!({"name": "grey"})).await.expect(200);
    lab.world.project(&lab.admin, "green").await;
    let network = lab.admin.get("/v1/networks/default?project=green").await.expect(200);
    assert_eq!(network["subnets"].as_array().map(Vec::len), Some(2), "IPv4 and IPv6: {network}");
    assert_eq!(network["router"]["external_network"], "public");
    let group = lab.admin.get("/v1/security-groups/default?project=green").await.expect(200);
    assert!(
        group["rules"].as_array().is_some_and(|rules| rules.iter().any(|rule| rule["port_range"] == "22")),
        "{group}"
    );
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_projects_objects_are_not_there() {
    let lab = Lab::start().await;
    let network = lab.network("web", "10.1.0.0/24").await;
    lab.world.project(&lab.admin, "red").await;
    let eve = lab.world.user(&lab.admin, "eve", "red", "member").await;
    for key in ["web", network["id"].as_str().expect("an id")] {
        eve.get(&format!("/v1/networks/{key}")).await.problem(404, "network_not_found");
        eve.delete(&format!("/v1/networks/{key}")).await.problem(404, "network_not_found");
        eve.post("/v1/ports", json!({"name": "p", "network": key})).await.problem(404, "network_not_found");
    }
    let refused = eve.post("/v1/ports", json!({"name": "p", "network": "web"})).await.problem(404, "network_not_found");
    assert_eq!(refused["errors"][0]["field"], "/network");
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_named_field_by_field() {
    let lab = Lab::start().await;
    lab.network("web", "10.1.0.0/24").await;
    let before = lab.events().await;
    let subnet = |more: Value| {
        let mut body = json!({"name": "b", "network": "web", "cidr": "10.2.0.0/24"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    for (path, body, expected) in [
        ("networks", json!({"name": "Web 1", "mtu": 100}), vec!["/name", "/mtu"]),
        ("networks", json!({"name": "a", "description": "x".repeat(2000)}), vec!["/description"]),
        ("subnets", subnet(json!({"cidr": "10.2.0.0"})), vec!["/cidr"]),
        ("subnets", subnet(json!({"cidr": "10.2.0.7/24"})), vec!["/cidr"]),
        ("subnets", subnet(json!({"cidr": "10.2.0.0/33"})), vec!["/cidr"]),
        ("subnets", subnet(json!({"cidr": "10.2.0.0/30"})), vec!["/cidr"]),
        ("subnets", subnet(json!({"cidr": "169.254.0.0/24"})), vec!["/cidr"]),
        ("subnets", subnet(json!({"gateway": "10.3.0.1"})), vec!["/gateway"]),
        ("subnets", subnet(json!({"gateway": "gate"})), vec!["/gateway"]),
        ("subnets", subnet(json!({"allocation": ["10.2.0.9-10.2.0.1"]})), vec!["/allocation/0"]),
        ("subnets", subnet(json!({"allocation": ["10.2.0.1-10.3.0.1"]})), vec!["/allocation"]),
        ("subnets", subnet(json!({"dns": ["10.2.0.2", "dns.example"]})), vec!["/dns/1"]),
        (
            "subnets",
            subnet(json!({"host_routes": [{"destination": "x", "next_hop": "y"}]})),
            vec!["/host_routes/0/destination", "/host_routes/0/next_hop"],
        ),
        ("subnets", subnet(json!({"name": "", "cidr": "x", "network": ""})), vec!["/name", "/network", "/cidr"]),
        ("ports", json!({"name": "p", "network": "web", "mac": "ff:ff:ff:ff:ff:ff"}), vec!["/mac"]),
        ("ports", json!({"name": "p", "network": "web", "mac": "2:0:0"}), vec!["/mac"]),
        (
            "ports",
            json!({"name": "p", "network": "web", "allowed_addresses": ["10.0.0.1/8"]}),
            vec!["/allowed_addresses/0"],
        ),
        ("ports", json!({"name": "p", "network": "web", "fixed_ips": [""]}), vec!["/fixed_ips/0"]),
        ("routers", json!({"name": "r", "network": ""}), vec!["/network"]),
        ("floating-ips", json!({"address": "nowhere"}), vec!["/address"]),
        ("floating-ips", json!({"port": "p", "instance": "i"}), vec!["/instance"]),
        ("floating-ips", json!({"fixed_ip": "10.1.0.5"}), vec!["/fixed_ip"]),
        (
            "security-groups",
            json!({"name": "g", "rules": [{"direction": "ingress", "protocol": "tcp", "port": "90-80"}, {"direction": "ingress", "port": 80}]}),
            vec!["/rules/0/port_range", "/rules/1/port_range"],
        ),
        ("security-groups", json!({"name": "g", "rules": [{"direction": "sideways"}]}), vec!["/rules/0/direction"]),
        ("network-peerings", json!({"name": "p", "network": "web", "peer_network": "web"}), vec!["/peer_network"]),
    ] {
        let refused = lab.ann.post(&format!("/v1/{path}"), body.clone()).await.problem(400, "invalid_argument");
        assert_eq!(fields(&refused), expected, "{path} {body}");
    }
    for (body, expected) in [
        (json!({"name": "x", "subnets": []}), vec!["/subnets"]),
        (
            json!({"name": "x", "subnets": [{"cidr": "203.0.113.0/24"}, {"cidr": "203.0.113.0/25"}]}),
            vec!["/subnets/1/cidr"],
        ),
        (
            json!({"name": "x", "subnets": [{"cidr": "203.0.113.0/24", "gateway": "10.0.0.1"}]}),
            vec!["/subnets/0/gateway"],
        ),
    ] {
        let refused = lab.admin.post("/v1/external-networks", body.clone()).await.problem(400, "invalid_argument");
        assert_eq!(fields(&refused), expected, "{body}");
    }
    // What is named must be there.
    for (path, body, code, field) in [
        ("subnets", json!({"name": "b", "network": "nope", "cidr": "10.2.0.0/24"}), "network_not_found", "/network"),
        ("ports", json!({"name": "p", "network": "web", "fixed_ips": ["nope"]}), "subnet_not_found", "/fixed_ips/0"),
        (
            "ports",
            json!({"name": "p", "network": "web", "security_groups": ["nope"]}),
            "security_group_not_found",
            "/security_groups/0",
        ),
        (
            "routers",
            json!({"name": "r", "network": "web", "external_network": "nope"}),
            "external_network_not_found",
            "/external_network",
        ),
        ("floating-ips", json!({"external_network": "nope"}), "external_network_not_found", "/external_network"),
        (
            "network-peerings",
            json!({"name": "p", "network": "web", "peer_network": "nope"}),
            "network_not_found",
            "/peer_network",
        ),
        (
            "security-groups",
            json!({"name": "g", "rules": [{"direction": "ingress", "remote_group": "nope"}]}),
            "security_group_not_found",
            "/rules/0/remote_group",
        ),
    ] {
        let refused = lab.ann.post(&format!("/v1/{path}"), body.clone()).await.problem(404, code);
        assert_eq!(fields(&refused), [field], "{body}");
    }
    let refused = lab.ann.post("/v1/routers", json!({"name": "r", "network": "web"})).await;
    assert!(
        refused.problem(409, "invalid_state")["hint"].as_str().is_some_and(|hint| hint.contains("external-network"))
    );
    assert_eq!(lab.events().await, before, "nothing of it was done");
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_system_admin_allows_a_port_addresses_from_outside_its_network() {
    let lab = Lab::start().await;
    let member = lab.world.user(&lab.admin, "mia", "blue", "member").await;
    lab.network("web", "10.1.0.0/24").await;
    let port = |name: &str, block: &str| json!({"name": name, "network": "web", "allowed_addresses": [block]});
    member.post("/v1/ports", port("vip", "10.1.0.128/25")).await.expect(201);
    for block in ["0.0.0.0/0", "::/0", "10.1.0.0/16", "10.2.0.7/32", "fd00::/64", "203.0.113.50/32"] {
        let refused = member.post("/v1/ports", port("q", block)).await.problem(403, "permission_denied");
        assert_eq!(fields(&refused), ["/allowed_addresses/0"], "{block}");
        let change = json!({"allowed_addresses": ["10.1.0.9/32", block]});
        let refused = member.patch("/v1/ports/vip", change).await.problem(403, "permission_denied");
        assert_eq!(fields(&refused), ["/allowed_addresses/1"], "{block}");
    }
    let wide = json!({"allowed_addresses": ["0.0.0.0/0"]});
    lab.admin.patch("/v1/ports/vip?project=blue", wide.clone()).await.expect(200);
    // What was granted stays, and needn't be granted again.
    member.patch("/v1/ports/vip", json!({"allowed_addresses": ["0.0.0.0/0", "10.1.0.9/32"]})).await.expect(200);
    member.patch("/v1/ports/vip", json!({"allowed_addresses": ["10.1.0.9/32"]})).await.expect(200);
    member.patch("/v1/ports/vip", wide).await.problem(403, "permission_denied");
    lab.world.stop().await;
}
