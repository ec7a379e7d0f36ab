//! Placement constraints and placement groups over REST.

use crate::{
    compute::{Cloud, column, config_of},
    harness::{Answer, Person},
};
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::HashSet;

const HOSTS: usize = 10;
const CREATES: usize = 1000;

async fn cloud_of(hosts: usize) -> Cloud {
    Cloud::with((0..hosts).map(|n| config_of(&format!("host-{n}"))).collect()).await
}

fn instance(name: &str, placement: Value) -> Value {
    json!({"name": name, "image": "linux", "flavor": "tiny", "networks": [], "placement": placement})
}

async fn create(person: &Person, name: &str, placement: Value) -> Answer {
    person.post("/v1/instances", instance(name, placement)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_at_once_in_one_anti_affinity_group_exactly_one_runs_on_each_host() {
    let cloud = cloud_of(HOSTS).await;
    let (ann, admin) = (&cloud.ann, &cloud.admin);
    let limits = json!({"instances": 5000, "vcpus": 5000, "memory_mib": 4_000_000, "disk_gib": 1000});
    admin.put("/v1/projects/blue/quota", limits).await.expect(200);
    ann.post("/v1/placement-groups", json!({"name": "apart", "policy": "anti_affinity"})).await.expect(201);
    let creates = (0..CREATES).map(|n| async move {
        let path = "/v1/instances?wait=running&timeout=60s";
        ann.post(path, instance(&format!("web-{n}"), json!({"groups": ["apart"]}))).await
    });
    let answers: Vec<Answer> = futures::stream::iter(creates).buffer_unordered(CREATES).collect().await;
    let (mut running, mut refused) = (0, 0);
    for answer in answers {
        if answer.status == 201 {
            assert_eq!(answer.expect(201)["state"], "running");
            running += 1;
        } else {
            let problem = answer.problem(507, "no_capacity");
            let rejected = problem["explain"]["rejected"].as_array().expect("explained");
            assert_eq!(rejected, &[json!({"filter": "group", "hosts": HOSTS})], "{problem}");
            refused += 1;
        }
    }
    assert_eq!((running, refused), (HOSTS, CREATES - HOSTS));
    let places: HashSet<String> =
        column(&admin.get("/v1/instances?project=blue&limit=1000").await.expect(200), "host_id")
            .into_iter()
            .map(str::to_owned)
            .collect();
    assert_eq!(places.len(), HOSTS, "one on each");
    assert!(cloud.hosts.iter().all(|host| host.machines().len() == 1));
    let shown = ann.get("/v1/placement-groups/apart").await.expect(200);
    assert_eq!(shown["instance_ids"].as_array().map(Vec::len), Some(HOSTS));
    let usage = ann.get("/v1/projects/blue/quota").await.expect(200);
    assert_eq!(usage["used"]["instances"], HOSTS, "the refused count for nothing: {usage}");
    ann.delete("/v1/placement-groups/apart").await.problem(409, "placement_group_in_use");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_made_shown_listed_and_deleted() {
    let cloud = cloud_of(1).await;
    let ann = &cloud.ann;
    let made = ann.post("/v1/placement-groups", json!({"name": "near", "policy": "affinity", "scope": "rack"})).await;
    let made = made.expect(201);
    let said = |field: &str| made[field].as_str().expect("a text").to_owned();
    assert_eq!((said("policy"), said("scope"), said("strength")), ("affinity".into(), "rack".into(), "hard".into()));
    let again = json!({"name": "near", "policy": "anti_affinity"});
    ann.post("/v1/placement-groups", again.clone()).await.problem(409, "name_taken");
    ann.post("/v1/placement-groups?dry_run=true", again).await.problem(409, "name_taken");
    for bad in
        [json!({"name": "x"}), json!({"name": "x", "policy": "near"}), json!({"name": "X", "policy": "affinity"})]
    {
        assert_eq!(ann.post("/v1/placement-groups", bad).await.status, 400);
    }
    let soft = json!({"name": "soft", "policy": "anti_affinity", "strength": "soft", "scope": "zone"});
    ann.post("/v1/placement-groups", soft).await.expect(201);
    let list = ann.get("/v1/placement-groups").await.expect(200);
    assert_eq!(column(&list, "name"), ["near", "soft"]);
    ann.get("/v1/placement-groups/nothing").await.problem(404, "placement_group_not_found");
    let bob = cloud.world.user(&cloud.admin, "bob", "blue", "reader").await;
    bob.get("/v1/placement-groups/near").await.expect(200);
    bob.delete("/v1/placement-groups/near").await.problem(403, "permission_denied");

    ann.get("/v1/capacity").await.problem(403, "permission_denied");
    let answered = cloud.admin.get("/v1/capacity").await.expect(200);
    let zone = &answered["zones"][0];
    assert_eq!((zone["hosts"].as_u64(), zone["open_hosts"].as_u64()), (Some(1), Some(1)));
    let tiny = zone["flavors"].as_array().and_then(|all| all.iter().find(|f| f["flavor"] == "tiny"));
    assert_eq!(tiny, Some(&json!({"flavor": "tiny", "fits": 64, "fits_with_one_host_lost": 0})), "{answered}");

    create(ann, "one", json!({"groups": ["near", "soft"], "preemptible_class": 3})).await.expect(201);
    let shown = ann.get("/v1/instances/one").await.expect(200);
    assert_eq!(shown["placement"]["preemptible_class"], 3);
    assert_eq!(shown["placement"]["group_ids"].as_array().map(Vec::len), Some(2));
    ann.get("/v1/rebalance-plan").await.problem(403, "permission_denied");
    cloud.admin.get("/v1/rebalance-plan?moves=0").await.problem(400, "invalid_argument");
    let plan = cloud.admin.get("/v1/rebalance-plan?moves=10&moves_per_host=5").await.expect(200);
    let nothing = json!({"moves": [], "freed_host_ids": [], "memory_mib": 0, "disk_gib": 0,
        "gap_before_permille": 0, "gap_after_permille": 0});
    assert_eq!(plan, nothing);
    let plan = cloud.admin.get("/v1/rebalance-plan?goal=even_load&tolerance=5").await.expect(200);
    assert_eq!(plan, nothing, "a lone host is even");
    for bad in ["goal=even_load&tolerance=101", "goal=level", "tolerance=-1"] {
        cloud.admin.get(&format!("/v1/rebalance-plan?{bad}")).await.problem(400, "invalid_argument");
    }

    ann.delete("/v1/placement-groups/near?dry_run=true").await.problem(409, "placement_group_in_use");
    ann.delete("/v1/instances/one?wait=deleted&timeout=30s").await;
    let gone = async || ann.delete("/v1/placement-groups/near").await.status == 204;
    let began = std::time::Instant::now();
    while !gone().await {
        assert!(began.elapsed().as_secs() < 30, "the group isn't free");
        tokio::task::yield_now().await;
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_that_cannot_be_met_are_refused_field_by_field() {
    let cloud = cloud_of(1).await;
    let ann = &cloud.ann;
    let field = async |placement: Value| {
        let refused = create(ann, "one", placement).await.problem(400, "invalid_argument");
        refused["errors"][0]["field"].as_str().expect("a field").to_owned()
    };
    assert_eq!(field(json!({"groups": vec!["a"; 9]})).await, "/placement/groups");
    assert_eq!(field(json!({"groups": [""]})).await, "/placement/groups/0");
    assert_eq!(field(json!({"required_tags": {"": "x"}})).await, "/placement/required_tags/");
    let both = json!({"required_tags": {"a": "b"}, "forbidden_tags": {"a": "b"}});
    assert_eq!(field(both).await, "/placement/forbidden_tags");
    assert_eq!(field(json!({"cpu_features": ["avx 2"]})).await, "/placement/cpu_features/0");
    for bad in [json!({"preemptible_class": 256}), json!({"preemptible_class": -1}), json!({"near": "x"})] {
        assert_eq!(create(ann, "one", bad).await.status, 400);
    }
    create(ann, "one", json!({"groups": ["nothing"]})).await.problem(404, "placement_group_not_found");
    // Groups are the project's own.
    cloud.world.project(&cloud.admin, "red").await;
    let red = json!({"name": "theirs", "policy": "affinity"});
    cloud.admin.post("/v1/placement-groups?project=red", red).await.expect(201);
    create(ann, "one", json!({"groups": ["theirs"]})).await.problem(404, "placement_group_not_found");
    cloud.admin.delete("/v1/placement-groups/theirs?project=red").await.expect(204);

    let refused = create(ann, "one", json!({"required_tags": {"gpu": "a100"}})).await.problem(507, "no_capacity");
    assert!(refused["hint"].as_str().is_some_and(|h| h.contains("lacks the tag gpu=a100")), "{refused}");
    let tried = ann.post("/v1/instances?dry_run=true", instance("one", json!({"dedicated": true}))).await;
    assert_eq!(tried.problem(507, "no_capacity")["explain"]["rejected"][0]["filter"], "dedicated");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_must_survive_their_host_need_another_with_the_room() {
    let cloud = cloud_of(1).await;
    let ann = &cloud.ann;
    let mut body = instance("one", json!({}));
    body["on_host_loss"] = json!("restart");
    let refused = ann.post("/v1/instances", body.clone()).await.problem(507, "no_capacity");
    assert_eq!(refused["explain"]["rejected"][0]["filter"], "reserve");
    assert!(refused["hint"].as_str().is_some_and(|h| h.contains("no other could restart")), "{refused}");
    let beside = sim::SimHost::start(&cloud.world.cluster, config_of("beside")).expect("a host starts");
    beside.connected().await;
    ann.post("/v1/instances", body).await.expect(201);
    // An operator dedicates hosts by the project's name.
    let host =
        cloud.admin.patch("/v1/hosts/beside", json!({"dedicated_to": "blue", "draining": true})).await.expect(200);
    assert_eq!((host["draining"].as_bool(), host["dedicated_to"].as_str().is_some()), (Some(true), true));
    cloud.admin.patch("/v1/hosts/beside", json!({"dedicated_to": "no-such"})).await.problem(404, "project_not_found");
    let host = cloud.admin.patch("/v1/hosts/beside", json!({"dedicated_to": "", "draining": false})).await.expect(200);
    assert_eq!((host["draining"].as_bool(), &host["dedicated_to"]), (Some(false), &Value::Null));
    beside.stop().await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_or_is_gone_can_be_asked_for() {
    let cloud = cloud_of(2).await;
    let (ann, admin) = (&cloud.ann, &cloud.admin);
    ann.get("/v1/instances/gpu/explain").await.problem(404, "instance_not_found");
    let constraint = json!({"required_tags": {"gpu": "a100"}});
    let refused = create(ann, "gpu", constraint.clone()).await.problem(507, "no_capacity");
    assert_eq!(
        refused["explain"]["nearest"],
        json!({"lacks": {"vcpus": 0, "memory_mib": 0, "disk_gib": 0}}),
        "{refused}"
    );
    let explained = async |person: &Person, name: &str, records: usize| loop {
        // Refusals are kept a moment after they were answered.
        let answer = person.get(&format!("/v1/instances/{name}/explain?project=blue")).await;
        if answer.status == 200 {
            let explained = answer.expect(200);
            if explained["records"].as_array().map(Vec::len) == Some(records) {
                return explained;
            }
        }
        tokio::task::yield_now().await;
    };
    let answered = explained(ann, "gpu", 1).await;
    assert_eq!(
        (&answered["instance"], answered["timeline"].as_array().map(Vec::len)),
        (&Value::Null, Some(0)),
        "{answered}"
    );
    let why = answered["why"].as_str().expect("a text");
    assert!(why.starts_with("gpu was refused and doesn't exist."), "{why}");
    assert!(why.ends_with("What would help: 2 hosts have enough capacity but lack the tag gpu=a100."), "{why}");
    assert_eq!(answered["placement"]["nearest"]["host_id"], Value::Null, "no host for tenants");
    let whole = explained(admin, "gpu", 1).await;
    assert!(whole["placement"]["nearest"]["host_id"].is_string(), "{whole}");
    // An operator's own refusal and plan are whole too.
    let path = "/v1/instances?project=blue&dry_run=true";
    let refused = admin.post(path, instance("gpu", constraint)).await.problem(507, "no_capacity");
    assert!(refused["explain"]["nearest"]["host_id"].is_string(), "{refused}");
    let plan = admin.post(path, instance("web", json!({}))).await.expect(200);
    assert_eq!(plan["plan"]["placement"]["best"].as_array().map(Vec::len), Some(2), "{plan}");
    let plan = ann.post("/v1/instances?dry_run=true", instance("web", json!({}))).await.expect(200);
    assert_eq!(
        (&plan["plan"]["placement"]["best"], &plan["plan"]["placement"]["chosen"]),
        (&Value::Null, &Value::Null)
    );

    // It is made after all, and goes: both are known of its name, and what happened to it.
    let made = create(ann, "gpu", json!({})).await.expect(201);
    let answered = explained(ann, "gpu", 1).await;
    assert_eq!(answered["instance"]["name"], "gpu");
    let id = made["id"].as_str().expect("an id");
    ann.delete(&format!("/v1/instances/{id}?wait=deleted&timeout=30s")).await;
    let answered = explained(ann, "gpu", 2).await;
    assert!(answered["why"].as_str().is_some_and(|why| why.starts_with("gpu was deleted at ")), "{answered}");
    assert!(answered["timeline"].as_array().is_some_and(|all| all.iter().any(|e| e["kind"] == "instance.deleted")));
    assert_eq!(answered["placement"]["chosen"], Value::Null);
    assert_eq!(explained(ann, id, 1).await["records"][0]["outcome"], "placed");

    let list = ann.get("/v1/placement-records?instance=gpu").await.expect(200);
    assert_eq!(column(&list, "outcome"), ["refused", "placed"]);
    let newest = ann.get("/v1/placement-records?newest_first=true&limit=1").await.expect(200);
    assert_eq!(column(&newest, "outcome"), ["placed"]);
    let cursor = newest["next_cursor"].as_str().expect("there is more");
    let next = ann.get(&format!("/v1/placement-records?newest_first=true&limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!(column(&next, "outcome"), ["refused"]);
    ann.get(&format!("/v1/placement-records?limit=1&cursor={cursor}")).await.problem(400, "bad_cursor");
    assert_eq!(column(&ann.get("/v1/placement-records?outcome=refused").await.expect(200), "instance_name"), ["gpu"]);
    for bad in ["outcome=lost", "limit=0", "fields=nothing", "colour=red"] {
        assert_eq!(ann.get(&format!("/v1/placement-records?{bad}")).await.status, 400, "{bad}");
    }
    let one = column(&list, "id")[0].to_owned();
    let shown = ann.get(&format!("/v1/placement-records/{one}")).await.expect(200);
    assert_eq!(
        (shown["instance_name"].as_str(), &shown["placement"]["nearest"]["host_id"]),
        (Some("gpu"), &Value::Null)
    );
    assert!(
        admin.get(&format!("/v1/placement-records/{one}")).await.expect(200)["placement"]["nearest"]["host_id"]
            .is_string()
    );
    assert_eq!(column(&admin.get("/v1/placement-records").await.expect(200), "instance_name"), ["gpu", "gpu"]);
    // Another project's are not there.
    cloud.world.project(admin, "red").await;
    let eve = cloud.world.user(admin, "eve", "red", "member").await;
    eve.get(&format!("/v1/placement-records/{one}")).await.problem(404, "placement_record_not_found");
    eve.get("/v1/placement-records/nothing").await.problem(404, "placement_record_not_found");
    eve.get("/v1/placement-records?all_projects=true").await.problem(403, "permission_denied");
    eve.get("/v1/instances/gpu/explain").await.problem(404, "instance_not_found");
    assert!(column(&eve.get("/v1/placement-records").await.expect(200), "id").is_empty());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_as_fit_says_what_was_made_and_what_not() {
    let cloud = cloud_of(1).await;
    let ann = &cloud.ann;
    let body = |name: &str, more: Value| {
        let mut body = json!({"name": name, "image": "linux", "vcpus": 20, "memory_mib": 128, "networks": []});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let fill = || json!({"count": 5, "fill": "as_many_as_fit"});
    let path = "/v1/instances?wait=running&timeout=30s";
    let plan = ann.post("/v1/instances?dry_run=true", body("web", fill())).await.expect(200);
    let summary = plan["plan"]["summary"].as_str().expect("a text");
    assert!(summary.starts_with("3 instance(s) would be created"), "{summary}");
    let request =
        || ann.request(reqwest::Method::POST, path).header("idempotency-key", "k-1").json(&body("web", fill()));
    let made = crate::harness::answer(request()).await.expect(201);
    assert_eq!(column(&made, "name"), ["web-1", "web-2", "web-3"]);
    assert!(column(&made, "state").iter().all(|state| *state == "running"));
    let not_made = &made["not_made"];
    assert_eq!(not_made["names"], json!(["web-4", "web-5"]), "{made}");
    assert_eq!(not_made["placement"]["rejected"], json!([{"filter": "vcpus", "hosts": 1}]));
    assert_eq!(not_made["placement"]["nearest"]["host_id"], Value::Null, "no host for tenants");
    assert!(not_made["hint"].as_str().is_some_and(|hint| hint.starts_with("would fit with 16 vCPUs less")), "{made}");
    let again = crate::harness::answer(request()).await.expect(201);
    assert_eq!((column(&again, "id"), &again["not_made"]), (column(&made, "id"), not_made));
    ann.post(path, body("more", fill())).await.problem(507, "no_capacity");
    ann.post(path, body("more", json!({"count": 2}))).await.problem(507, "no_capacity");
    let field = ann.post(path, body("more", json!({"fill": "as_many_as_fit"}))).await.problem(400, "invalid_argument");
    assert_eq!(field["errors"][0]["field"], "/fill");
    assert_eq!(ann.post(path, body("more", json!({"count": 2, "fill": "some"}))).await.status, 400);
    let usage = ann.get("/v1/projects/blue/quota").await.expect(200);
    assert_eq!(usage["used"]["instances"], 3);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pinning_is_the_flavors() {
    let mut config = config_of("host-0");
    config.facts.numa = vec![domain::host::NumaFacts { id: 2, threads: 8, memory_mib: 32_768 }];
    let cloud = Cloud::with(vec![config]).await;
    let (ann, admin) = (&cloud.ann, &cloud.admin);
    let flavor = |name: &str, vcpus: u32, pinning: Value| json!({"name": name, "vcpus": vcpus, "memory_mib": 128, "disk_gib": 0, "pinning": pinning});
    for bad in [json!("cores"), json!(1), json!(null)] {
        admin.post("/v1/flavors", flavor("bad", 1, bad)).await.problem(400, "invalid_argument");
    }
    let made = admin.post("/v1/flavors", flavor("own", 2, json!("numa"))).await.expect(201);
    assert_eq!(made["pinning"], "numa");
    assert_eq!(admin.get("/v1/flavors/tiny").await.expect(200)["pinning"], "none");
    admin.post("/v1/flavors", flavor("wide", 9, json!("numa"))).await.expect(201);

    let body = |name: &str, flavor: &str| json!({"name": name, "image": "linux", "flavor": flavor, "networks": []});
    let pinned = ann.post("/v1/instances?wait=running&timeout=60s", body("pinned", "own")).await.expect(201);
    assert_eq!((pinned["placement"]["pinning"].as_str(), &pinned["numa_node"]), (Some("numa"), &Value::Null));
    assert_eq!(admin.get("/v1/instances/pinned?project=blue").await.expect(200)["numa_node"], 2, "operators see where");
    let refused = ann.post("/v1/instances", body("wide", "wide")).await.problem(507, "no_capacity");
    assert_eq!(refused["explain"]["rejected"][0]["filter"], "pinning", "{refused}");
    let mut requested = body("sly", "tiny");
    requested["placement"] = json!({"pinning": "numa"});
    ann.post("/v1/instances", requested).await.problem(400, "invalid_argument");
    let fits = admin.get("/v1/capacity").await.expect(200);
    let own = fits["flavors"].as_array().and_then(|all| all.iter().position(|f| f["name"] == "own"));
    assert!(own.is_some() || fits.to_string().contains("own"), "{fits}");

    ann.post("/v1/instances/pinned/stop?wait=stopped&timeout=60s", json!({})).await.expect(202);
    let refused = ann.post("/v1/instances/pinned/resize", json!({"flavor": "tiny"})).await;
    let refused = refused.problem(400, "invalid_argument");
    assert_eq!(refused["errors"][0]["field"], "/flavor", "{refused}");
    let grown = ann.post("/v1/instances/pinned/resize", json!({"vcpus": 3})).await.expect(202);
    assert_eq!((grown["vcpus"].as_u64(), grown["placement"]["pinning"].as_str()), (Some(3), Some("numa")));
    cloud.stop().await;
}
