//! Host tokens and hosts that join, over REST.

use crate::harness::{Answer, Person, World, answer};
use domain::{HostId, join::JoinToken};
use reqwest::Method;
use serde_json::{Value, json};
use service_kit::host_cert;

fn csr() -> String {
    host_cert::request_for(&host_cert::new_key().expect("a key")).expect("a request")
}

async fn join(nobody: &Person, body: &Value) -> Answer {
    answer(nobody.http.request(Method::POST, format!("{}/v1/host-joins", nobody.base)).json(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_admits_one_host() {
    let world = World::start().await;
    let (admin, nobody) = (world.admin().await, world.nobody());
    let body = json!({"name": "rack-1", "zone": "b", "ttl_secs": 600});
    admin.post("/v1/host-tokens?dry_run=true", body.clone()).await.expect(200);
    assert_eq!(admin.get("/v1/host-tokens").await.expect(200)["items"], json!([]));
    let keyed = async || {
        let request = admin.request(Method::POST, "/v1/host-tokens").header("idempotency-key", "k1").json(&body);
        answer(request).await.expect(201)
    };
    let made = keyed().await;
    assert_eq!(keyed().await, made, "a repeat shows the same token");
    let token: JoinToken = made["token"].as_str().expect("a token").parse().expect("whole");
    assert_eq!(token.urls.len(), 1);
    let id = made["id"].as_str().expect("an id");
    let listed = admin.get("/v1/host-tokens").await.expect(200);
    let text = listed.to_string();
    assert!(text.contains(id) && !text.contains(&token.secret), "{text}");
    let dump = std::fs::read(world.dir.path().join("iaas.db")).expect("the database");
    let wal = std::fs::read(world.dir.path().join("iaas.db-wal")).unwrap_or_default();
    let secret = token.secret.as_bytes();
    assert!(
        ![dump, wal].iter().any(|bytes| bytes.windows(secret.len()).any(|w| w == secret)),
        "it is nowhere in the database"
    );

    let (host_id, csr_pem) = (HostId::new(), csr());
    let ask =
        json!({"secret": token.secret, "host_id": host_id, "role": "compute-agent", "name": "Box", "csr_pem": csr_pem});
    let joined = join(&nobody, &ask).await.expect(200);
    assert_eq!(
        (joined["name"].as_str(), joined["cluster_url"].as_str()),
        (Some("rack-1"), Some("https://{host}:7481"))
    );
    let print = host_cert::fingerprints(joined["ca_pem"].as_str().expect("PEM")).expect("PEM");
    assert_eq!(print, std::slice::from_ref(&token.ca_sha256));
    let pem = joined["certificate_pem"].as_str().expect("PEM");
    let certificate = host_cert::HostCertificate::parse(pem).expect("readable");
    assert_eq!(certificate.host_id, host_id);
    let shown = admin.get(&format!("/v1/host-tokens/{id}")).await.expect(200);
    assert_eq!(
        (shown["state"].as_str(), shown["host_id"].as_str()),
        (Some("used"), Some(host_id.to_string().as_str()))
    );
    let host = admin.get("/v1/hosts/rack-1").await.expect(200);
    assert_eq!((host["zone"].as_str(), host["state"].as_str()), (Some("b"), Some("disconnected")));

    // Its second agent, and the same again; no other host, and not this one with another key.
    let with = |key: &str, value: Value| {
        let mut other = ask.clone();
        other[key] = value;
        other
    };
    join(&nobody, &with("role", json!("network-agent"))).await.expect(200);
    join(&nobody, &ask).await.expect(200);
    join(&nobody, &with("host_id", json!(HostId::new()))).await.problem(403, "host_token_used");
    join(&nobody, &with("csr_pem", json!(csr()))).await.problem(403, "host_token_used");
    // By its key alone, as after its certificates have expired.
    let mut by_key = ask.clone();
    by_key.as_object_mut().expect("an object").remove("secret");
    join(&nobody, &by_key).await.expect(200);
    by_key["csr_pem"] = json!(csr());
    join(&nobody, &by_key).await.problem(403, "host_not_admitted");

    admin.delete(&format!("/v1/host-tokens/{id}?dry_run=true")).await.expect(200);
    admin.delete(&format!("/v1/host-tokens/{id}")).await.expect(204);
    admin.delete(&format!("/v1/host-tokens/{id}")).await.problem(404, "host_token_not_found");
    join(&nobody, &ask).await.problem(401, "host_token_invalid");
    admin.delete("/v1/hosts/rack-1").await.expect(204);
    by_key["csr_pem"] = ask["csr_pem"].clone();
    join(&nobody, &by_key).await.problem(403, "host_not_admitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_and_guessing_is_slowed() {
    let world = World::start().await;
    let (admin, nobody) = (world.admin().await, world.nobody());
    for (body, field) in [
        (json!({"name": "Not A Name"}), "name"),
        (json!({"ttl_secs": 0}), "ttl_secs"),
        (json!({"ttl_secs": 3_000_000}), "ttl_secs"),
    ] {
        let problem = admin.post("/v1/host-tokens", body).await;
        assert_eq!(problem.status, 400, "{}", problem.text);
        assert!(problem.text.contains(field), "{}", problem.text);
    }
    let ask = json!({"secret": "", "host_id": HostId::new(), "role": "compute-agent", "csr_pem": csr()});
    join(&nobody, &ask).await.problem(401, "host_token_invalid");
    let mut bad = ask.clone();
    bad["csr_pem"] = json!("-----BEGIN NONSENSE-----");
    assert_eq!(join(&nobody, &bad).await.problem(400, "invalid_argument")["errors"][0]["field"], "/csr_pem");
    bad["role"] = json!("api-gateway");
    assert_eq!(join(&nobody, &bad).await.status, 400);
    let throttled = loop {
        let answer = join(&nobody, &ask).await;
        if answer.status != 401 {
            break answer;
        }
    };
    assert!(throttled.headers.contains_key("retry-after"));
    throttled.problem(429, "join_throttled");
}
