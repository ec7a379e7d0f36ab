//! Networks and what belongs to them, over REST, with the real resource-manager behind: what people make, change and see.

use crate::{
    compute::column,
    harness::{Person, World},
};
use serde_json::{Value, json};

pub struct Lab {
    pub world: World,
    pub admin: Person,
    /// A member of the project `blue`.
    pub ann: Person,
}

impl Lab {
    pub async fn start() -> Self {
        let world = World::start().await;
        let admin = world.admin().await;
        world.project(&admin, "blue").await;
        let ann = world.user(&admin, "ann", "blue", "member").await;
        Self { world, admin, ann }
    }

    pub async fn network(&self, name: &str, cidr: &str) -> Value {
        let network = self.ann.post("/v1/networks", json!({"name": name})).await.expect(201);
        let subnet = json!({"name": "a", "network": name, "cidr": cidr});
        self.ann.post("/v1/subnets", subnet).await.expect(201);
        network
    }

    pub async fn outside(&self, name: &str) -> Value {
        outside(&self.admin, name).await
    }

    /// Events so far: a refusal adds none.
    pub async fn events(&self) -> i64 {
        self.world.store.event_head().await.expect("a head").1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_shown_with_all_that_is_in_it() {
    let lab = Lab::start().await;
    let ann = &lab.ann;
    let made = ann.post("/v1/networks", json!({"name": "web", "description": "fronts", "mtu": 1400})).await;
    assert!(made.headers.contains_key("etag"));
    let made = made.expect(201);
    assert_eq!(
        (made["mtu"].as_u64(), made["vni"].is_null(), made["subnets"].as_array().map(Vec::len)),
        (Some(1400), true, Some(0))
    );
    let subnet = json!({
        "name": "a", "network": "web", "cidr": "10.1.0.0/24", "dns": ["9.9.9.9"], "allocation": ["10.1.0.100-10.1.0.199"],
        "host_routes": [{"destination": "10.9.0.0/16", "next_hop": "10.1.0.9"}],
    });
    let subnet = ann.post("/v1/subnets", subnet).await.expect(201);
    assert_eq!(
        (subnet["gateway"].as_str(), subnet["dhcp"].as_bool(), subnet["network"].as_str()),
        (Some("10.1.0.1"), Some(true), Some("web"))
    );
    assert_eq!(subnet["host_routes"][0]["next_hop"], "10.1.0.9");
    lab.network("db", "10.2.0.0/24").await;
    lab.outside("public").await;
    let router = ann.post("/v1/routers", json!({"name": "out", "network": "web"})).await.expect(201);
    assert_eq!((router["external_network"].as_str(), router["source_nat"].as_bool()), (Some("public"), Some(true)));
    let peering =
        ann.post("/v1/network-peerings", json!({"name": "both", "network": "db", "peer_network": "web"})).await;
    let peering = peering.expect(201);
    assert_eq!([&peering["network"], &peering["peer_network"]], ["web", "db"], "the older one first");

    let shown = ann.get("/v1/networks/web").await.expect(200);
    assert_eq!(
        shown["subnets"],
        json!([{"id": subnet["id"], "name": "a", "cidr": "10.1.0.0/24", "gateway": "10.1.0.1"}])
    );
    assert_eq!(shown["router"]["external_network"], "public");
    assert_eq!(shown["peerings"][0]["network"], "db");
    let admins = lab.admin.get("/v1/networks/web?project=blue").await.expect(200);
    assert!(admins["vni"].as_u64().is_some_and(|vni| vni > 0));
    // By id too; and a list has the same.
    assert_eq!(ann.get(&format!("/v1/networks/{}", shown["id"].as_str().expect("id"))).await.expect(200), shown);
    let list = ann.get("/v1/networks").await.expect(200);
    assert_eq!((column(&list, "name"), &list["items"][1]), (vec!["default", "web", "db"], &shown));
    let first = ann.get("/v1/networks?limit=2&fields=name,id").await.expect(200);
    assert_eq!(first["items"][1], json!({"id": shown["id"], "name": "web"}));
    let next = ann.get(&format!("/v1/networks?limit=2&cursor={}", first["next_cursor"].as_str().expect("more"))).await;
    assert_eq!(column(&next.expect(200), "name"), ["db"]);
    for (path, name) in [("subnets", "a"), ("routers", "out"), ("network-peerings", "both")] {
        let of_web = ann.get(&format!("/v1/{path}?network=web")).await.expect(200);
        assert_eq!(column(&of_web, "name"), [name], "{path}");
    }
    assert_eq!(column(&ann.get("/v1/routers?network=db").await.expect(200), "name"), Vec::<&str>::new());
    assert_eq!(ann.get("/v1/subnets").await.expect(200)["items"].as_array().map(Vec::len), Some(4));
    ann.get("/v1/subnets?network=nope").await.problem(404, "network_not_found");

    let renamed = ann.patch("/v1/networks/web", json!({"name": "www"})).await.expect(200);
    assert_eq!((renamed["name"].as_str(), renamed["description"].as_str()), (Some("www"), Some("fronts")));
    ann.get("/v1/subnets/a").await.problem(400, "ambiguous_name");
    let own = format!("subnets/{}", subnet["id"].as_str().expect("an id"));
    let subnet = ann.patch(&format!("/v1/{own}"), json!({"dns": [], "dhcp": false})).await.expect(200);
    assert_eq!((subnet["dns"].clone(), subnet["dhcp"].as_bool()), (json!([]), Some(false)));
    let router = ann.patch("/v1/routers/out", json!({"source_nat": false})).await.expect(200);
    assert_eq!(router["source_nat"], false);
    ann.delete("/v1/networks/www").await.problem(409, "network_in_use");
    for path in ["network-peerings/both", "routers/out", own.as_str(), "networks/www"] {
        assert_eq!(ann.delete(&format!("/v1/{path}")).await.status.as_u16(), 204, "{path}");
        ann.get(&format!("/v1/{path}")).await.assert_problem();
    }
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_floating_ips_name_what_they_are_of() {
    let lab = Lab::start().await;
    let ann = &lab.ann;
    lab.network("web", "10.1.0.0/24").await;
    lab.outside("public").await;
    ann.post("/v1/routers", json!({"name": "out", "network": "web"})).await.expect(201);
    let group = ann.post("/v1/security-groups", json!({"name": "front"})).await.expect(201);
    let body = json!({
        "name": "vip", "network": "web", "fixed_ips": ["10.1.0.50", "a"], "security_groups": ["front"],
        "allowed_addresses": ["10.1.0.99/32"], "rate_limit": {"to_instance_bps": 1000}, "mac": "02:00:5E:10:00:01",
    });
    let port = ann.post("/v1/ports", body).await.expect(201);
    assert_eq!((port["addresses"][0].as_str(), port["network"].as_str()), (Some("10.1.0.50"), Some("web")));
    assert_eq!(port["security_groups"], json!([{"id": group["id"], "name": "front"}]));
    assert_eq!((port["status"].as_str(), port["mac"].as_str()), (Some("down"), Some("02:00:5e:10:00:01")));
    assert_eq!(port["addresses"].as_array().map(Vec::len), Some(2), "the one, and any of the subnet");
    let plain = ann.post("/v1/ports", json!({"name": "plain", "network": "web"})).await.expect(201);
    assert_eq!(plain["security_groups"][0]["name"], "default", "unless said");
    let bare = ann.post("/v1/ports", json!({"name": "bare", "network": "web", "security_groups": []})).await;
    assert_eq!(bare.expect(201)["security_groups"], json!([]), "none is none");
    assert_eq!(column(&ann.get("/v1/ports?security_group=front").await.expect(200), "name"), ["vip"]);
    assert_eq!(column(&ann.get("/v1/ports?network=web").await.expect(200), "name"), ["vip", "plain", "bare"]);
    ann.get("/v1/ports?instance=nope").await.problem(404, "instance_not_found");

    let floating = ann.post("/v1/floating-ips", json!({"port": "vip", "address": "203.0.113.9"})).await.expect(201);
    assert_eq!(
        (floating["fixed_ip"].as_str(), floating["external_network"].as_str()),
        (Some("10.1.0.50"), Some("public"))
    );
    assert_eq!((floating["port_status"].as_str(), floating["instance"].is_null()), (Some("down"), true));
    assert_eq!(ann.get("/v1/ports/vip").await.expect(200)["floating_ips"], json!(["203.0.113.9"]));
    ann.post("/v1/floating-ips", json!({"description": "spare"})).await.expect(201);
    assert_eq!(column(&ann.get("/v1/floating-ips?port=vip").await.expect(200), "address"), ["203.0.113.9"]);
    assert_eq!(ann.get("/v1/floating-ips").await.expect(200)["items"].as_array().map(Vec::len), Some(2));
    // Known by address; described without being moved; moved; let go.
    let described = ann.patch("/v1/floating-ips/203.0.113.9", json!({"description": "www"})).await.expect(200);
    assert_eq!(described["port_id"], port["id"]);
    let moved = ann.patch("/v1/floating-ips/203.0.113.9", json!({"port": "plain"})).await.expect(200);
    assert_eq!((moved["description"].as_str(), &moved["port_id"]), (Some("www"), &plain["id"]));
    let free = ann.patch("/v1/floating-ips/203.0.113.9", json!({"port": null})).await.expect(200);
    assert!(free["port_id"].is_null() && free["fixed_ip"].is_null());
    // Whoever deletes a port keeps its floating IP.
    ann.patch("/v1/floating-ips/203.0.113.9", json!({"port": "plain"})).await.expect(200);
    assert_eq!(ann.delete("/v1/ports/plain").await.status.as_u16(), 204);
    assert!(ann.get("/v1/floating-ips/203.0.113.9").await.expect(200)["port_id"].is_null());
    assert_eq!(ann.delete("/v1/floating-ips/203.0.113.9").await.status.as_u16(), 204);
    ann.get("/v1/floating-ips/203.0.113.9").await.problem(404, "floating_ip_not_found");
    ann.get("/v1/floating-ips/web").await.problem(404, "floating_ip_not_found");
    let changed = ann.patch("/v1/ports/vip", json!({"security_groups": [], "rate_limit": {}})).await.expect(200);
    assert_eq!(changed["rate_limit"]["to_instance_bps"], 0);
    assert_eq!(ann.delete("/v1/ports/bare").await.status.as_u16(), 204);
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn security_groups_say_what_passes() {
    let lab = Lab::start().await;
    let ann = &lab.ann;
    let plain = ann.post("/v1/security-groups", json!({"name": "plain"})).await.expect(201);
    let out: Vec<_> = plain["rules"].as_array().expect("rules").iter().map(|r| r["direction"].clone()).collect();
    assert_eq!(out, ["egress", "egress"], "everything out, unless said");
    let none = ann.post("/v1/security-groups", json!({"name": "shut", "rules": []})).await.expect(201);
    assert_eq!(none["rules"], json!([]));
    let body = json!({"name": "web", "rules": [
        {"direction": "ingress", "protocol": "tcp", "port": 443},
        {"direction": "ingress", "protocol": "tcp", "port_range": "8000-8100", "remote_group": "plain"},
        {"direction": "ingress", "remote_group": "web", "description": "each other"},
        {"direction": "ingress", "protocol": "icmp", "icmp_type": 128, "remote_cidr": "fd00::/8"},
    ]});
    let web = ann.post("/v1/security-groups", body).await.expect(201);
    let rules = web["rules"].as_array().expect("rules");
    let find = |what: &str, value: Value| rules.iter().find(|r| r[what] == value).expect("a rule");
    assert_eq!(find("port_range", json!("443"))["ethertype"], "ipv4");
    assert_eq!(find("port_range", json!("8000-8100"))["remote_group"], "plain");
    assert_eq!(find("description", json!("each other"))["remote_group_id"], web["id"], "its own name means itself");
    assert_eq!(find("icmp_type", json!(128))["ethertype"], "ipv6", "as the addresses are");

    let rule = json!({"direction": "egress", "protocol": 17, "port": "53", "remote_cidr": "10.0.0.0/8"});
    let rule = ann.post("/v1/security-groups/web/rules", rule).await.expect(201);
    assert_eq!((rule["protocol"].as_str(), rule["remote_cidr"].as_str()), (Some("udp"), Some("10.0.0.0/8")));
    assert_eq!(ann.get("/v1/security-groups/web").await.expect(200)["rules"].as_array().map(Vec::len), Some(5));
    let path = format!("/v1/security-groups/web/rules/{}", rule["id"].as_str().expect("an id"));
    let elsewhere = path.replace("/web/", "/plain/");
    ann.delete(&elsewhere).await.problem(404, "security_rule_not_found");
    assert_eq!(ann.delete(&path).await.status.as_u16(), 204);
    ann.delete(&path).await.problem(404, "security_rule_not_found");
    ann.patch("/v1/security-groups/web", json!({"name": "www"})).await.expect(200);
    ann.delete("/v1/security-groups/plain").await.problem(409, "security_group_in_use");
    ann.delete("/v1/security-groups/default").await.problem(409, "default_group");
    assert_eq!(column(&ann.get("/v1/security-groups").await.expect(200), "name"), ["default", "plain", "shut", "www"]);
    let rule = json!({"direction": "ingress", "protocol": "tcp", "port": 443});
    ann.post("/v1/security-groups/www/rules", rule).await.problem(409, "rule_exists");
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outside_is_the_operators() {
    let lab = Lab::start().await;
    lab.outside("public").await;
    let observed = lab.ann.get("/v1/external-networks/public").await.expect(200);
    assert_eq!(observed["subnets"][0]["gateway"], "203.0.113.1", "the first address, unless said");
    assert_eq!(column(&lab.ann.get("/v1/external-networks").await.expect(200), "name"), ["public"]);
    lab.ann
        .patch("/v1/external-networks/public", json!({"description": "mine"}))
        .await
        .problem(403, "permission_denied");
    let changed =
        lab.admin.patch("/v1/external-networks/public", json!({"description": "the internet"})).await.expect(200);
    assert_eq!(changed["description"], "the internet");
    // With two of them, one must be said, unless one is called public.
    lab.network("web", "10.1.0.0/24").await;
    lab.outside("lab").await;
    let router = lab.ann.post("/v1/routers", json!({"name": "out", "network": "web"})).await.expect(201);
    assert_eq!(router["external_network"], "public");
    lab.admin.delete("/v1/external-networks/public").await.problem(409, "external_network_in_use");
    lab.ann.delete("/v1/routers/out").await;
    assert_eq!(lab.admin.delete("/v1/external-networks/public").await.status.as_u16(), 204);
    lab.outside("other").await;
    let refused =
        lab.ann.post("/v1/routers", json!({"name": "out", "network": "web"})).await.problem(400, "invalid_argument");
    assert_eq!(refused["errors"][0]["field"], "/external_network");
    lab.world.stop().await;
}

pub async fn outside(admin: &Person, name: &str) -> Value {
    let subnet = json!({"cidr": "203.0.113.0/24", "allocation": ["203.0.113.2-203.0.113.254"]});
    admin.post("/v1/external-networks", json!({"name": name, "subnets": [subnet]})).await.expect(201)
}
