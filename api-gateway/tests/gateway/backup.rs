//! Backups: made by system admins alone, whole, and only the last few are kept.

use crate::harness::World;
use serde_json::{Value, json};
use std::path::Path;
use store::{Page, Store, StoreConfig};

fn paths(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|backup| backup["path"].as_str().expect("a path").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_database_of_its_moment_and_the_last_few_are_kept() {
    let world = World::start_with(|config| config.api.backups_kept = 2).await;
    let admin = world.admin().await;
    assert_eq!(paths(&admin.get("/v1/backups").await.expect(200)), Vec::<String>::new());
    world.project(&admin, "blue").await;
    let planned = admin.post("/v1/backups?dry_run=true", json!({})).await.expect(200);
    assert!(planned["plan"]["summary"].as_str().is_some_and(|text| text.contains("would do")), "{planned}");
    let made = admin.post("/v1/backups", json!({})).await.expect(201);
    let path = made["path"].as_str().expect("a path").to_owned();
    world.project(&admin, "late").await;
    let listed = admin.get("/v1/backups").await.expect(200);
    assert_eq!(listed["items"][0], made, "it is listed as it was answered");
    let restored = Store::open(&StoreConfig::new(format!("sqlite://{path}"))).await.expect("it opens");
    let projects = restored.project_list(Page::first(10)).await.expect("reads");
    assert_eq!(projects.iter().map(|project| project.name.as_str()).collect::<Vec<_>>(), ["blue"]);
    restored.close().await;
    let digest = std::fs::read_to_string(format!("{path}.sha256")).expect("its digest");
    assert_eq!(
        digest,
        format!("{}  {}\n", made["sha256"].as_str().expect("hex"), made["name"].as_str().expect("a name"))
    );
    for _ in 0..2 {
        admin.post("/v1/backups", json!({})).await.expect(201);
    }
    let kept = paths(&admin.get("/v1/backups").await.expect(200));
    assert!(kept.len() == 2 && !kept.contains(&path), "{kept:?}");
    assert!(!Path::new(&path).exists() && !Path::new(&format!("{path}.sha256")).exists());
    let page = admin.get("/v1/backups?limit=1").await.expect(200);
    assert_eq!(paths(&page), kept[..1]);
    let audit = admin.get("/v1/audit?all_projects=true").await.expect(200);
    let lines = audit["items"].as_array().expect("a list").iter().filter(|line| line["action"] == "backup.create");
    assert_eq!(lines.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_backup_gets_the_first_and_nobody_else_may_make_one() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "admin").await;
    ann.post("/v1/backups", json!({})).await.problem(403, "permission_denied");
    ann.get("/v1/backups").await.problem(403, "permission_denied");
    let once = || admin.request(http::Method::POST, "/v1/backups").header("idempotency-key", "nightly");
    let first = crate::harness::answer(once()).await.expect(201);
    let again = crate::harness::answer(once()).await.expect(201);
    assert_eq!(first, again);
    assert_eq!(paths(&admin.get("/v1/backups").await.expect(200)).len(), 1);
}
