//! Hosts over REST.

use crate::{
    compute::{Cloud, column, config_of},
    harness::answer,
};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_cordons_hosts() {
    let cloud = Cloud::with(vec![config_of("alpha"), config_of("beta")]).await;
    let (ann, admin) = (&cloud.ann, &cloud.admin);
    for path in ["/v1/hosts", "/v1/hosts/alpha"] {
        ann.get(path).await.problem(403, "permission_denied");
    }
    ann.patch("/v1/hosts/alpha", json!({"cordoned": true})).await.problem(403, "permission_denied");
    let list = admin.get("/v1/hosts").await.expect(200);
    assert_eq!(column(&list, "name"), ["alpha", "beta"]);
    let page = admin.get("/v1/hosts?limit=1&fields=name,used").await.expect(200);
    assert_eq!(page["items"][0], json!({"name": "alpha", "used": {"vcpus": 0, "memory_mib": 0, "disk_gib": 0}}));
    let cursor = page["next_cursor"].as_str().expect("more");
    assert_eq!(column(&admin.get(&format!("/v1/hosts?limit=1&cursor={cursor}")).await.expect(200), "name"), ["beta"]);

    let shown = admin.get("/v1/hosts/alpha").await;
    let etag = shown.headers["etag"].to_str().expect("an etag").to_owned();
    let host = shown.expect(200);
    assert_eq!(host["orphans"], json!([]));
    assert_eq!(host["capacity"], json!({"vcpus": 64, "memory_mib": 65536, "disk_gib": 1000}));
    assert_eq!((host["state"].as_str(), host["cpu_overcommit"].as_f64()), (Some("up"), Some(1.0)));
    assert_eq!(
        (host["facts"]["cpu_model"].as_str(), host["overhead"]["fixed_mib"].as_u64()),
        (Some("simulated"), Some(64))
    );
    admin.get("/v1/hosts/nowhere").await.problem(404, "host_not_found");

    let plan = admin.patch("/v1/hosts/alpha?dry_run=true", json!({"cordoned": true})).await.expect(200);
    assert!(plan["plan"]["summary"].as_str().is_some_and(|t| t.contains("alpha") && t.contains("cordoned")), "{plan}");
    assert_eq!(admin.get("/v1/hosts/alpha").await.expect(200)["cordoned"], false);
    let change = |etag: &str| {
        let body = json!({"cordoned": true, "cordon_reason": "disk", "tags": {"ssd": "yes"}, "cpu_overcommit": 2.5, "zone": "b"});
        answer(admin.request(Method::PATCH, "/v1/hosts/alpha").header("if-match", etag.to_owned()).json(&body))
    };
    let changed = change(&etag).await.expect(200);
    assert_eq!((changed["cordon_reason"].as_str(), changed["zone"].as_str()), (Some("disk"), Some("b")));
    assert_eq!((changed["cpu_overcommit"].as_f64(), &changed["tags"]), (Some(2.5), &json!({"ssd": "yes"})));
    change(&etag).await.problem(412, "precondition_failed");
    let refused = admin.patch("/v1/hosts/alpha", json!({"zone": "B 1", "cpu_overcommit": 0, "tags": {"": ""}})).await;
    let refused = refused.problem(400, "invalid_argument");
    assert_eq!(refused["errors"].as_array().map(Vec::len), Some(3), "{refused}");

    // What is kept from instances, and how far the rest is shared out.
    let body = json!({"reserved": {"vcpus": 4, "disk_gib": 100}, "memory_overcommit": 1.5, "cpu_overcommit": 1});
    let plan = admin.patch("/v1/hosts/alpha?dry_run=true", body.clone()).await.expect(200);
    let summary = plan["plan"]["summary"].as_str().expect("a summary");
    assert!(summary.contains("a capacity of 60 vCPUs, 98304 MiB of memory, 900 GiB of disk"), "{summary}");
    let kept = admin.patch("/v1/hosts/alpha", body).await.expect(200);
    assert_eq!(kept["capacity"], json!({"vcpus": 60, "memory_mib": 98304, "disk_gib": 900}));
    assert_eq!(kept["reserved"], json!({"vcpus": 4, "memory_mib": 0, "disk_gib": 100}));
    assert_eq!(kept["offered"], json!({"vcpus": 64, "memory_mib": 65536, "disk_gib": 1000}));
    assert_eq!((kept["memory_overcommit"].as_f64(), kept["disk_overcommit"].as_f64()), (Some(1.5), Some(1.0)));
    let back = admin.patch("/v1/hosts/alpha", json!({"reserved": {"disk_gib": 0}})).await.expect(200);
    assert_eq!(back["reserved"], json!({"vcpus": 4, "memory_mib": 0, "disk_gib": 0}), "what isn't named stays");
    for bad in [
        json!({"reserved": {"vcpus": 65}}),
        json!({"reserved": {"memory_mib": -1}}),
        json!({"reserved": {"gpus": 1}}),
        json!({"reserved": 5}),
        json!({"memory_overcommit": 11}),
        json!({"disk_overcommit": "much"}),
    ] {
        let refused = admin.patch("/v1/hosts/alpha", bad.clone()).await.problem(400, "invalid_argument");
        assert!(refused["errors"].as_array().is_some_and(|e| !e.is_empty()), "{bad}: {refused}");
    }

    // Cordoned: new ones go elsewhere.
    for i in 0..4 {
        cloud.running(&format!("web-{i}")).await;
    }
    assert_eq!(cloud.hosts[0].machines().len(), 0);
    assert_eq!(cloud.hosts[1].machines().len(), 4);
    let uncordoned = admin.patch("/v1/hosts/alpha", json!({"cordoned": false})).await.expect(200);
    assert_eq!((uncordoned["cordoned"].as_bool(), uncordoned["cordon_reason"].as_str()), (Some(false), Some("")));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_a_host_runs_and_no_instance_is() {
    let cloud = Cloud::with(vec![config_of("alpha"), config_of("beta")]).await;
    let host = cloud.admin.get("/v1/hosts/alpha").await.expect(200);
    let instance_id = domain::InstanceId::new();
    let orphan = store::OrphanPut {
        host_id: host["id"].as_str().and_then(|id| id.parse().ok()).expect("an id"),
        instance_id,
        epoch: 3,
        detail: "no instance of this id exists".to_owned(),
        last_seen_at: domain::Timestamp::now(),
    };
    cloud.world.store.commit(store::Unit::new().op(orphan)).await.expect("stored");
    let orphan = cloud.admin.get("/v1/hosts/alpha").await.expect(200)["orphans"][0].clone();
    assert_eq!((orphan["instance_id"].as_str(), orphan["epoch"].as_i64()), (Some(&*instance_id.to_string()), Some(3)));
    let hosts = cloud.admin.get("/v1/hosts").await.expect(200);
    assert_eq!(hosts["items"][0]["orphans"], json!([orphan]));
    assert_eq!(hosts["items"][1]["orphans"], json!([]));
}
