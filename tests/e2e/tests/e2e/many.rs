//! Many at once: `count`, an idempotency key used twice at the same time.

use crate::support::{can_run_guests, guests, qemus, server_with_tiny, until};
use anyhow::ensure;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn count_makes_all_and_one_key_makes_one() -> anyhow::Result<()> {
    if !can_run_guests("count and idempotency") {
        return Ok(());
    }
    let _guests = guests(4).await;
    let (server, rest) = server_with_tiny().await?;
    let made =
        rest.post("/v1/instances", &json!({"name": "web", "count": 3, "image": "tiny", "flavor": "small"})).await?;
    let names: Vec<&str> = made["items"].as_array().into_iter().flatten().filter_map(|i| i["name"].as_str()).collect();
    ensure!(names == ["web-1", "web-2", "web-3"], "{made}");
    until("all three guests are up", async || {
        let list = rest.get("/v1/instances").await?;
        let up = list["items"].as_array().into_iter().flatten().filter(|i| i["guest_up_at"].is_string()).count();
        Ok((up == 3).then_some(()))
    })
    .await?;

    // The same key and body, twice at once: one instance, one answer.
    let client = reqwest::Client::new();
    let call = |body: serde_json::Value| {
        let request = client.post(format!("{}/v1/instances", rest.base())).bearer_auth(rest.token());
        let request = request
            .header("x-iaas-project", "demo")
            .header("idempotency-key", "one")
            .header("content-type", "application/json");
        let request = request.body(body.to_string());
        async move {
            let response = request.send().await?;
            let status = response.status().as_u16();
            anyhow::Ok((status, serde_json::from_slice::<serde_json::Value>(&response.bytes().await?)?))
        }
    };
    let body = json!({"name": "once", "image": "tiny", "flavor": "small"});
    let (first, second) = tokio::try_join!(call(body.clone()), call(body.clone()))?;
    ensure!(first.0 == 201 && first == second, "{first:?} {second:?}");
    ensure!(call(body).await? == first, "and later, again");
    let other = call(json!({"name": "other", "image": "tiny", "flavor": "small"})).await?;
    ensure!(other.0 == 422, "another body: {other:?}");
    let id = first.1["id"].as_str().expect("an id").to_owned();
    until("it runs", async || Ok((qemus(&id).len() == 1).then_some(()))).await?;
    server.stop()
}
