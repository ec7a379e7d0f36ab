//! All routes of the OpenAPI document, requested by callers without the right. A new route is tested by this without a line here.

use crate::harness::{Answer, Person, World, answer, key};
use reqwest::Method;
use serde_json::{Value, json};

pub struct Operation {
    pub method: Method,
    /// The pattern: `/v1/projects/{project}`.
    pub route: String,
    pub public: bool,
    pub document: Value,
}

impl Operation {
    /// The path with the names that [`objects`] made.
    pub fn path(&self) -> String {
        let mut path = self.route.clone();
        for (param, value) in [
            ("{project}", "blue"),
            ("{user}", "ann"),
            ("{key}", "laptop"),
            ("{flavor}", "small"),
            ("{image}", "queued-image"),
            ("{part}", "disk"),
            ("{instance}", "nothing"),
            ("{host}", "nowhere"),
            ("{network}", "nothing"),
            ("{subnet}", "nothing"),
            ("{port}", "nothing"),
            ("{router}", "nothing"),
            ("{floating_ip}", "203.0.113.9"),
            ("{security_group}", "nothing"),
            ("{rule}", "nothing"),
            ("{peering}", "nothing"),
            ("{group}", "nothing"),
            ("{external_network}", "nothing"),
            ("{host_token}", "nothing"),
            ("{record}", "nothing"),
            ("{recovery}", "nothing"),
        ] {
            path = path.replace(param, value);
        }
        assert!(!path.contains('{'), "the test knows no value for a parameter of {path}");
        path
    }

    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.route)
    }

    pub fn reads(&self) -> bool {
        self.method == Method::GET
    }

    pub fn has_param(&self, name: &str) -> bool {
        let params = self.document["parameters"].as_array();
        params.is_some_and(|list| list.iter().any(|p| p["name"] == name))
    }

    /// The schema of a JSON body, resolved.
    pub fn body_schema(&self, api: &Value) -> Option<Value> {
        let schema = &self.document["requestBody"]["content"]["application/json"]["schema"];
        (!schema.is_null()).then(|| resolve(api, schema))
    }
}

pub fn resolve(api: &Value, schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        None => schema.clone(),
        Some(reference) => api.pointer(reference.trim_start_matches('#')).expect("the schema is there").clone(),
    }
}

pub async fn operations(person: &Person) -> (Vec<Operation>, Value) {
    let api = person.get("/openapi.json").await.expect(200);
    let mut all = Vec::new();
    for (route, item) in api["paths"].as_object().expect("paths") {
        for (method, document) in item.as_object().expect("an item") {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            let public = document["security"].as_array().is_none_or(Vec::is_empty);
            all.push(Operation { method, route: route.clone(), public, document: document.clone() });
        }
    }
    assert!(all.len() > 30, "the document has {} operations", all.len());
    (all, api)
}

/// Project `blue` with a member and one object of each kind that can be made without a host; project `red` with its own people.
pub async fn objects(world: &World) -> (Person, Person) {
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    world.project(&admin, "red").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    ann.post("/v1/ssh-keys", json!({"name": "laptop", "public_key": key("ann")})).await.expect(201);
    let flavor = json!({"name": "small", "vcpus": 1, "memory_mib": 128, "disk_gib": 1});
    admin.post("/v1/flavors", flavor).await.expect(201);
    ann.post("/v1/images", json!({"name": "queued-image", "kind": "disk", "format": "raw"})).await.expect(201);
    (admin, ann)
}

/// What anybody who is logged in may ask for: their own things, and the catalog.
const SELF_SERVICE: &[&str] = &[
    "GET /v1/whoami",
    "PUT /v1/whoami/password",
    "PUT /v1/whoami/home-project",
    "DELETE /v1/whoami/projects/{project}",
    "GET /v1/projects",
    "GET /v1/api-keys",
    "POST /v1/api-keys",
    "DELETE /v1/api-keys/{key}",
    "GET /v1/flavors",
    "GET /v1/flavors/{flavor}",
    "GET /v1/external-networks",
    "GET /v1/external-networks/{external_network}",
];

async fn ask(person: &Person, operation: &Operation, query: &str) -> Answer {
    let request = person.request(operation.method.clone(), &format!("{}{query}", operation.path()));
    answer(request.header("content-type", "application/json").body(if operation.reads() { "" } else { "{" })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_is_answered() {
    let world = World::start().await;
    let nobody = world.nobody();
    let (all, _) = operations(&nobody).await;
    for operation in all.iter().filter(|o| !o.public) {
        let name = operation.name();
        let bare =
            answer(nobody.http.request(operation.method.clone(), format!("{}{}", nobody.base, operation.path())));
        let refused = bare.await;
        println!("{name}: {}", refused.status);
        assert!(refused.headers.contains_key("www-authenticate"), "{name}");
        refused.problem(401, "token_missing");
        ask(&nobody, operation, "").await.problem(401, "token_invalid");
        let basic = nobody.http.request(operation.method.clone(), format!("{}{}", nobody.base, operation.path()));
        answer(basic.basic_auth("admin", Some(world.admin_password()))).await.problem(401, "token_missing");
    }
    let public: Vec<_> = all.iter().filter(|o| o.public).map(|o| o.route.as_str()).collect();
    for route in &public {
        assert!(api_gateway::v1::routes::PUBLIC.contains(route), "{route} is public without being listed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_finds_nothing() {
    let world = World::start().await;
    let (admin, ann) = objects(&world).await;
    let eve = world.user(&admin, "eve", "red", "admin").await;
    let (all, _) = operations(&eve).await;
    for operation in all.iter().filter(|o| !o.public && !SELF_SERVICE.contains(&o.name().as_str())) {
        let name = operation.name();
        let refused = ask(&eve, operation, "?project=blue").await;
        refused.assert_problem();
        let status = refused.status.as_u16();
        assert!(matches!(status, 403 | 404), "{name} answered a stranger with {status}: {}", refused.text);
        // A stranger gets the same answer for a project that exists and for one that doesn't.
        if operation.has_param("project") && status == 404 {
            let unknown = ask(&eve, operation, "?project=nope").await.body;
            if !operation.route.contains("{project}") {
                let answered = refused.body["detail"].as_str().unwrap_or("").replace("blue", "nope");
                assert_eq!(unknown["detail"].as_str(), Some(answered.as_str()), "{name}");
                assert_eq!(unknown["code"], refused.body["code"], "{name}");
            }
        }
    }
    // The same objects are there for who may see them: the refusals above weren't typing errors.
    for path in ["/v1/ssh-keys/laptop", "/v1/images/queued-image", "/v1/projects/blue", "/v1/projects/blue/members"] {
        ann.get(path).await.expect(200);
    }
    eve.get("/v1/ssh-keys/laptop").await.problem(404, "ssh_key_not_found");
    eve.get("/v1/images/queued-image").await.problem(404, "image_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_changes_nothing() {
    let world = World::start().await;
    let (admin, _) = objects(&world).await;
    let rob = world.user(&admin, "rob", "blue", "reader").await;
    let (all, _) = operations(&rob).await;
    let mutations: Vec<_> =
        all.iter().filter(|o| !o.public && !o.reads() && !SELF_SERVICE.contains(&o.name().as_str())).collect();
    assert!(mutations.len() > 15);
    for operation in mutations {
        // The body is nonsense: a caller without the right is refused before anything is read.
        let refused = ask(&rob, operation, "?project=blue").await;
        assert_eq!(refused.status.as_u16(), 403, "{}: {}", operation.name(), refused.text);
        refused.problem(403, "permission_denied");
    }
    crate::harness::eventually("denied mutations are in the audit log", async || {
        let denied = admin.audited("a refusal", |line| line["outcome"] == "denied").await;
        (denied.len() > 15).then_some(())
    })
    .await;
    let whoami = rob.get("/v1/whoami").await.expect(200);
    assert_eq!(whoami["projects"][0]["role"], "reader");
}
