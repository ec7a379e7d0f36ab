//! What nobody in particular may send, and what an admin of a project learns of users who aren't theirs.

use crate::{
    every_route::operations,
    harness::{Answer, Person, World, answer},
};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

/// Far above the limit of the tests below.
const MANY: usize = 500;

async fn limited_world() -> World {
    World::start_with(|config| {
        config.api.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("one")];
        config.api.rate_limit_per_peer = 20;
    })
    .await
}

/// Sends until an answer is a refusal by the peer's limit.
async fn until_limited(name: &str, request: impl Fn() -> RequestBuilder) {
    for _ in 0..MANY / 50 {
        let sent: Vec<_> = (0..50).map(|_| tokio::spawn(answer(request()))).collect();
        for answered in sent {
            let answered: Answer = answered.await.expect("an answer");
            if answered.status == 429 && answered.body["code"] == "rate_limited" {
                assert!(answered.headers.contains_key("retry-after"), "{name}");
                answered.assert_problem();
                return;
            }
        }
    }
    panic!("{name} takes as much as one peer sends");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_without_a_token_has_a_limit_for_each_peer() {
    let world = limited_world().await;
    let nobody = world.nobody();
    let (all, _) = operations(&nobody).await;
    let public: Vec<_> = all.iter().filter(|operation| operation.public).collect();
    assert!(public.len() >= api_gateway::v1::routes::PUBLIC.len(), "{} public operations", public.len());
    for (at, operation) in public.iter().enumerate() {
        let url = format!("{}{}?ticket=x", nobody.base, operation.path());
        let from = |address: String| {
            let request = nobody.http.request(operation.method.clone(), &url).header("x-forwarded-for", address);
            if operation.reads() { request } else { request.json(&json!({})) }
        };
        until_limited(&operation.name(), || from(format!("192.0.2.{at}"))).await;
        let other = answer(from(format!("198.51.100.{at}"))).await;
        assert_ne!(other.status, 429, "{}: another peer is answered", operation.name());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_count_for_the_peer_that_sends_them() {
    let world = limited_world().await;
    let admin = world.admin().await;
    let nobody = world.nobody();
    for token in ["none".to_owned(), format!("iaas_{}", "a".repeat(64)), "a.b.c".to_owned()] {
        let request = || {
            let request = nobody.http.get(format!("{}/v1/whoami", nobody.base)).bearer_auth(&token);
            request.header("x-forwarded-for", "192.0.2.1")
        };
        until_limited(&token, request).await;
        // Who has a valid token isn't held up, at the same address.
        let known = admin.request(Method::GET, "/v1/whoami").header("x-forwarded-for", "192.0.2.1");
        answer(known).await.expect(200);
    }
    world.stop().await;
}

async fn invite(person: &Person, name: &str) -> Answer {
    person.put(&format!("/v1/projects/red/members/{name}"), json!({"role": "reader"})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_of_a_project_can_not_search_the_users() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "red").await;
    world.project(&admin, "blue").await;
    let eve = world.user(&admin, "eve", "red", "admin").await;
    world.user(&admin, "ann", "blue", "member").await;
    world.user(&admin, "bo", "red", "member").await;
    // Taking out tells nothing: neither is a member.
    for name in ["ann", "nobody"] {
        let path = format!("/v1/projects/red/members/{name}");
        let refused = eve.delete(&path).await.problem(404, "member_not_found");
        assert!(refused["detail"].as_str().is_some_and(|text| text.contains(name)), "{refused}");
    }
    // A few mistakes are answered, names of users as often as one likes.
    let mut unknown = 0;
    loop {
        let known = invite(&eve, "bo").await;
        if known.status == 429 {
            known.problem(429, "user_names_throttled");
            break;
        }
        known.expect(200);
        invite(&eve, &format!("guess-{unknown}")).await.problem(404, "user_not_found");
        unknown += 1;
        assert!(unknown < 1000, "the search goes on");
    }
    assert!(unknown > 5, "{unknown} mistakes are no search");
    // Then a name says nothing, whosever it is. Others, and who may see all users, go on.
    invite(&eve, "ann").await.problem(429, "user_names_throttled");
    invite(&admin, "ann").await.expect(200);
    for _ in 0..=unknown {
        invite(&admin, "nobody").await.problem(404, "user_not_found");
    }
    let lines = admin.audited("the search", |line| line["detail"].to_string().contains("doesn't exist")).await;
    assert_eq!(lines[0]["outcome"], "denied", "{lines:?}");
    world.stop().await;
}
