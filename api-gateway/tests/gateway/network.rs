//! Networks and what belongs to them, over REST: what is asked of the resource-manager, and what people see.

use crate::{
    compute::{Cloud, column},
    harness::{Person, World, answer},
    stand_in::StandIn,
};
use domain::{
    ErrorKind, Problem,
    network::{Change, FixedIpAsked, FloatingTarget, Match, Remote},
};
use reqwest::Method;
use serde_json::{Value, json};

pub struct Lab {
    pub world: World,
    pub admin: Person,
    /// A member of the project `blue`.
    pub ann: Person,
    pub manager: StandIn,
}

impl Lab {
    pub async fn start() -> Self {
        let world = World::start().await;
        let admin = world.admin().await;
        world.project(&admin, "blue").await;
        let ann = world.user(&admin, "ann", "blue", "member").await;
        let manager = world.resource.clone();
        Self { world, admin, ann, manager }
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

    fn last(&self) -> Change {
        self.manager.asked().pop().expect("a call").change
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
    assert_eq!((column(&list, "name"), &list["items"][0]), (vec!["web", "db"], &shown));
    let first = ann.get("/v1/networks?limit=1&fields=name,id").await.expect(200);
    assert_eq!(first["items"], json!([{"id": shown["id"], "name": "web"}]));
    let next = ann.get(&format!("/v1/networks?limit=1&cursor={}", first["next_cursor"].as_str().expect("more"))).await;
    assert_eq!(column(&next.expect(200), "name"), ["db"]);
    for (path, name) in [("subnets", "a"), ("routers", "out"), ("network-peerings", "both")] {
        let of_web = ann.get(&format!("/v1/{path}?network=web")).await.expect(200);
        assert_eq!(column(&of_web, "name"), [name], "{path}");
    }
    assert_eq!(column(&ann.get("/v1/routers?network=db").await.expect(200), "name"), Vec::<&str>::new());
    assert_eq!(ann.get("/v1/subnets").await.expect(200)["items"].as_array().map(Vec::len), Some(2));
    ann.get("/v1/subnets?network=nope").await.problem(404, "network_not_found");

    let renamed = ann.patch("/v1/networks/web", json!({"name": "www"})).await.expect(200);
    assert_eq!((renamed["name"].as_str(), renamed["description"].as_str()), (Some("www"), Some("fronts")));
    ann.get("/v1/subnets/a").await.problem(400, "ambiguous_name");
    let own = format!("subnets/{}", subnet["id"].as_str().expect("an id"));
    let subnet = ann.patch(&format!("/v1/{own}"), json!({"dns": [], "dhcp": false})).await.expect(200);
    assert_eq!((subnet["dns"].clone(), subnet["dhcp"].as_bool()), (json!([]), Some(false)));
    let router = ann.patch("/v1/routers/out", json!({"source_nat": false})).await.expect(200);
    assert_eq!(router["source_nat"], false);
    ann.delete("/v1/networks/www").await.problem(409, "invalid_state");
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
    let group = ann.post("/v1/security-groups", json!({"name": "front"})).await.expect(201);
    let body = json!({
        "name": "vip", "network": "web", "fixed_ips": ["10.1.0.50", "a"], "security_groups": ["front"],
        "allowed_addresses": ["10.1.0.99/32"], "rate_limit": {"to_instance_bps": 1000}, "mac": "02:00:5E:10:00:01",
    });
    let port = ann.post("/v1/ports", body).await.expect(201);
    assert_eq!((port["addresses"][0].as_str(), port["network"].as_str()), (Some("10.1.0.50"), Some("web")));
    assert_eq!(port["security_groups"], json!([{"id": group["id"], "name": "front"}]));
    assert_eq!((port["status"].as_str(), port["mac"].as_str()), (Some("down"), Some("02:00:5e:10:00:01")));
    let Change::PortCreate { fixed_ips, .. } = lab.last() else { panic!("{:?}", lab.last()) };
    assert!(matches!(fixed_ips[..], [FixedIpAsked::Address(_), FixedIpAsked::AnyOf(_)]), "{fixed_ips:?}");
    ann.post("/v1/ports", json!({"name": "plain", "network": "web"})).await.expect(201);
    let Change::PortCreate { security_group_ids: None, .. } = lab.last() else { panic!("the default is the owner's") };
    ann.post("/v1/ports", json!({"name": "bare", "network": "web", "security_groups": []})).await.expect(201);
    let Change::PortCreate { security_group_ids: Some(none), .. } = lab.last() else { panic!("none is none") };
    assert!(none.is_empty());
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
    ann.delete("/v1/ports/vip").await.problem(409, "invalid_state");
    // Known by address; described without being moved; moved; let go.
    ann.patch("/v1/floating-ips/203.0.113.9", json!({"description": "www"})).await.expect(200);
    let Change::FloatingIpUpdate { target: None, .. } = lab.last() else { panic!("{:?}", lab.last()) };
    let moved = ann.patch("/v1/floating-ips/203.0.113.9", json!({"port": "plain"})).await.expect(200);
    assert_eq!((moved["description"].as_str(), moved["port_id"] == port["id"]), (Some("www"), false));
    let free = ann.patch("/v1/floating-ips/203.0.113.9", json!({"port": null})).await.expect(200);
    assert!(free["port_id"].is_null() && free["fixed_ip"].is_null());
    let Change::FloatingIpUpdate { target: Some(FloatingTarget::Nothing), .. } = lab.last() else { panic!("freed") };
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
    ann.delete("/v1/security-groups/plain").await.problem(409, "invalid_state");
    assert_eq!(column(&ann.get("/v1/security-groups").await.expect(200), "name"), ["plain", "shut", "www"]);
    let Change::SecurityGroupCreate { rules, .. } = &lab.manager.asked()[2].change else {
        panic!("{:?}", lab.manager.asked())
    };
    assert!(rules.iter().any(|(_, rule, _)| matches!((rule.matches, rule.remote), (Match::Any, Remote::Group(_)))));
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_outside_is_the_operators() {
    let lab = Lab::start().await;
    lab.outside("public").await;
    let seen = lab.ann.get("/v1/external-networks/public").await.expect(200);
    assert_eq!(seen["subnets"][0]["gateway"], "203.0.113.1", "the first address, unless said");
    assert_eq!(column(&lab.ann.get("/v1/external-networks").await.expect(200), "name"), ["public"]);
    lab.ann
        .patch("/v1/external-networks/public", json!({"description": "mine"}))
        .await
        .problem(403, "permission_denied");
    let changed =
        lab.admin.patch("/v1/external-networks/public", json!({"description": "the internet"})).await.expect(200);
    assert_eq!(changed["description"], "the internet");
    assert!(lab.manager.asked().iter().all(|asked| asked.project_id.is_empty()), "it belongs to no project");
    // With two of them, one must be said, unless one is called public.
    lab.network("web", "10.1.0.0/24").await;
    lab.outside("lab").await;
    let router = lab.ann.post("/v1/routers", json!({"name": "out", "network": "web"})).await.expect(201);
    assert_eq!(router["external_network"], "public");
    lab.admin.delete("/v1/external-networks/public").await.problem(409, "invalid_state");
    lab.ann.delete("/v1/routers/out").await;
    assert_eq!(lab.admin.delete("/v1/external-networks/public").await.status.as_u16(), 204);
    lab.outside("other").await;
    let refused =
        lab.ann.post("/v1/routers", json!({"name": "out", "network": "web"})).await.problem(400, "invalid_argument");
    assert_eq!(refused["errors"][0]["field"], "/external_network");
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_as_the_first_and_a_dry_run_changes_nothing() {
    let lab = Lab::start().await;
    let ann = &lab.ann;
    let plan = ann.post("/v1/networks?dry_run=true", json!({"name": "web"})).await.expect(200);
    assert_eq!(
        (plan["dry_run"].as_bool(), plan["plan"]["summary"].as_str()),
        (Some(true), Some("network_create: would be done"))
    );
    ann.get("/v1/networks/web").await.problem(404, "network_not_found");
    let keyed = |method: Method, path: &str, key: &str, body: Value| {
        answer(ann.request(method, path).header("idempotency-key", key).json(&body))
    };
    let first = keyed(Method::POST, "/v1/networks", "n1", json!({"name": "web"})).await.expect(201);
    let again = keyed(Method::POST, "/v1/networks", "n1", json!({"name": "web"})).await.expect(201);
    assert_eq!(first, again);
    keyed(Method::POST, "/v1/networks", "n1", json!({"name": "db"})).await.problem(422, "key_reused");
    let subnet = json!({"name": "a", "network": "web", "cidr": "10.1.0.0/24"});
    let made = keyed(Method::POST, "/v1/subnets", "s1", subnet.clone()).await.expect(201);
    keyed(Method::PATCH, "/v1/networks/web", "n2", json!({"name": "www"})).await.expect(200);
    // The names in the repeats mean nothing any more.
    let again = keyed(Method::POST, "/v1/subnets", "s1", subnet).await.expect(201);
    assert_eq!(again["id"], made["id"]);
    let again = keyed(Method::PATCH, "/v1/networks/web", "n2", json!({"name": "www"})).await.expect(200);
    assert_eq!((again["name"].as_str(), &again["id"]), (Some("www"), &first["id"]));
    for _ in 0..2 {
        let gone = answer(ann.request(Method::DELETE, "/v1/networks/www").header("idempotency-key", "n3")).await;
        assert_eq!(gone.status.as_u16(), 204, "{}", gone.text);
    }
    assert_eq!(lab.manager.asked().len(), 5, "what was answered from memory wasn't asked again");
    // If-Match goes with the change, and its failure is a 412.
    lab.network("db", "10.2.0.0/24").await;
    let with = |etag: &str, name: &str| {
        answer(ann.request(Method::PATCH, "/v1/networks/db").header("if-match", etag).json(&json!({"name": name})))
    };
    with("\"9\"", "x").await.problem(412, "precondition_failed");
    let changed = with("\"1\"", "x").await;
    assert_eq!(changed.headers["etag"], "\"2\"");
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manager_refuses_is_said_in_its_words() {
    let lab = Lab::start().await;
    lab.network("web", "10.1.0.0/24").await;
    lab.manager.refuse(Problem::invalid("fixed_ips/0", "10.1.0.7 is taken").with_hint("take another"));
    let refused = lab.ann.post("/v1/ports", json!({"name": "p", "network": "web", "fixed_ips": ["10.1.0.7"]})).await;
    let refused = refused.problem(400, "invalid_argument");
    assert_eq!(
        (refused["errors"][0]["field"].as_str(), refused["hint"].as_str()),
        (Some("/fixed_ips/0"), Some("take another"))
    );
    lab.manager.refuse(Problem::new(ErrorKind::QuotaExceeded, "quota_exceeded", "20 of 20 networks"));
    lab.ann.post("/v1/networks", json!({"name": "more"})).await.problem(403, "quota_exceeded");
    lab.ann.post("/v1/networks", json!({"name": "web"})).await.problem(409, "name_taken");
    // A project's own make its quota; a new one asks for its defaults.
    assert_eq!(lab.manager.defaults_asked(), 1);
    lab.world.project(&lab.admin, "green").await;
    assert_eq!(lab.manager.defaults_asked(), 2);
    lab.admin.post("/v1/projects?dry_run=true", json!({"name": "grey"})).await.expect(200);
    assert_eq!(lab.manager.defaults_asked(), 2);
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

fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().expect("errors").iter().map(|e| e["field"].as_str().expect("a field")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_named_field_by_field() {
    let lab = Lab::start().await;
    lab.network("web", "10.1.0.0/24").await;
    let before = lab.manager.asked().len();
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
    assert_eq!(lab.manager.asked().len(), before, "nothing of it reached the resource-manager");
    lab.world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_asked_for_with_cards() {
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
    assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("iaasctl instance attach i")), "{refused}");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_have_their_cards() {
    let cloud = Cloud::start().await;
    let (ann, manager) = (&cloud.ann, &cloud.world.resource);
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
        "in the order asked for: {web}"
    );
    assert_eq!((&web["nics"][0]["addresses"], &web["nics"][1]["port_id"]), (&json!(["10.1.0.77"]), &port["id"]));
    let asked = manager.reserved();
    let new = asked.iter().find(|p| !p.existing).expect("a new port");
    assert_eq!(
        (new.security_groups_given, new.security_group_ids[0].as_str()),
        (true, group["id"].as_str().expect("id"))
    );
    assert_eq!(web["nics"][0]["port_id"].as_str(), asked.iter().rfind(|p| !p.existing).map(|p| p.port_id.as_str()));
    assert_eq!(keyed(body).await.expect(201)["nics"], web["nics"], "a repeat means the same ports");
    let taken = json!({"name": "x", "image": "linux", "flavor": "tiny", "networks": [{"port": "own"}]});
    ann.post("/v1/instances", taken).await.problem(409, "port_in_use");

    // A floating IP for an instance is for the card that the outside can reach.
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
    let plain = |name: &str| json!({"name": name, "image": "linux", "flavor": "tiny"});
    assert_eq!(ann.post("/v1/instances", plain("a")).await.expect(201)["nics"], json!([]));
    ann.post("/v1/networks", json!({"name": "default"})).await.expect(201);
    ann.post("/v1/subnets", json!({"name": "default", "network": "default", "cidr": "10.0.0.0/24"})).await.expect(201);
    assert_eq!(ann.post("/v1/instances", plain("b")).await.expect(201)["nics"][0]["network"], "default");
    let bare = json!({"name": "c", "image": "linux", "flavor": "tiny", "networks": []});
    assert_eq!(ann.post("/v1/instances", bare).await.expect(201)["nics"], json!([]));

    // A card more, a card less, also while it runs.
    let more = ann.post("/v1/instances/web/nics", json!({"network": "default"})).await.expect(202);
    assert_eq!(more["nics"].as_array().map(Vec::len), Some(3));
    let less = ann.delete("/v1/instances/web/nics/own").await.expect(202);
    assert_eq!(less["nics"].as_array().map(Vec::len), Some(2), "{less}");
    manager.refuse(Problem::new(ErrorKind::QuotaExceeded, "quota_exceeded", "200 of 200 ports"));
    ann.post("/v1/instances/web/nics", json!({"network": "db"})).await.problem(403, "quota_exceeded");
    cloud.stop().await;
}

async fn outside(admin: &Person, name: &str) -> Value {
    let subnet = json!({"cidr": "203.0.113.0/24", "allocation": ["203.0.113.2-203.0.113.254"]});
    admin.post("/v1/external-networks", json!({"name": name, "subnets": [subnet]})).await.expect(201)
}
