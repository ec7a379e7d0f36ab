//! Lists: pages without gaps, cursors that belong to their list, chosen fields.

use crate::harness::{World, key};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_the_list_once() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let admin = admin.within("blue");
    for i in 0..25 {
        admin.post("/v1/ssh-keys", json!({"name": format!("k{i}"), "public_key": key("k")})).await.expect(201);
    }
    let mut names = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = admin.get(&format!("/v1/ssh-keys?limit=10{cursor}&fields=name,id")).await.expect(200);
        pages += 1;
        for item in page["items"].as_array().expect("items") {
            assert_eq!(item.as_object().map(serde_json::Map::len), Some(2), "{item}");
            names.push(item["name"].as_str().expect("a name").to_owned());
        }
        // Rows that come and go between pages move nothing.
        if pages == 1 {
            admin.delete("/v1/ssh-keys/k3").await.expect(204);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(names, (0..25).map(|i| format!("k{i}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_belongs_to_its_list() {
    let world = World::start().await;
    let admin = world.admin().await;
    for name in ["blue", "red"] {
        world.project(&admin, name).await;
        for i in 0..3 {
            let path = format!("/v1/ssh-keys?project={name}");
            admin.post(&path, json!({"name": format!("k{i}"), "public_key": key("k")})).await.expect(201);
        }
    }
    let page = admin.get("/v1/ssh-keys?project=blue&limit=1").await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    admin.get(&format!("/v1/ssh-keys?project=blue&limit=2&cursor={cursor}")).await.expect(200);
    admin.get(&format!("/v1/ssh-keys?project=red&cursor={cursor}")).await.problem(400, "bad_cursor");
    admin.get(&format!("/v1/flavors?cursor={cursor}")).await.problem(400, "bad_cursor");
    let refused = admin.get("/v1/ssh-keys?project=blue&fields=name,nmae").await.problem(400, "invalid_argument");
    assert_eq!(refused["errors"][0]["field"], "fields");
    // Also when there is nothing to select from.
    admin.get("/v1/flavors?fields=nmae").await.problem(400, "invalid_argument");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_project_is_found_or_asked_for() {
    let world = World::start().await;
    let admin = world.admin().await;
    let blue = world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    ann.get("/v1/ssh-keys").await.expect(200);
    world.project(&admin, "red").await;
    admin.put("/v1/projects/red/members/ann", json!({"role": "reader"})).await.expect(200);
    // Another project moves nothing: the first one is home. Who has none is asked.
    ann.get("/v1/ssh-keys").await.expect(200);
    admin.delete("/v1/projects/blue/members/ann").await.expect(204);
    let refused = ann.get("/v1/ssh-keys").await.problem(400, "project_required");
    admin.put("/v1/projects/blue/members/ann", json!({"role": "member"})).await.expect(200);
    assert_eq!(refused["errors"][0]["field"], "project");
    for named in [blue.as_str(), "blue"] {
        ann.get(&format!("/v1/ssh-keys?project={named}")).await.expect(200);
        let request = ann.request(reqwest::Method::GET, "/v1/ssh-keys").header("x-iaas-project", named);
        crate::harness::answer(request).await.expect(200);
    }
    // A project's new name is its name at once.
    admin.patch("/v1/projects/blue", json!({"name": "azure"})).await.expect(200);
    ann.get("/v1/ssh-keys?project=azure").await.expect(200);
    ann.get("/v1/ssh-keys?project=blue").await.problem(404, "project_not_found");
}
