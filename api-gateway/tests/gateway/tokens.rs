//! Tokens that aren't ours, aren't valid any more, or were copied.

use crate::harness::{PASSWORD, Person, World};
use api_gateway::auth::{keyring::Keyring, master_key::MasterKey};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::Arc;

fn now() -> i64 {
    domain::Timestamp::now().0 / 1000
}

fn claims(user: &str, exp: i64) -> Value {
    json!({"iss": "iaas", "aud": "iaas", "sub": user, "sv": 1, "iat": now() - 3600, "exp": exp, "jti": "x"})
}

fn signed(alg: Algorithm, kid: Option<&str>, claims: &Value, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(alg) };
    jsonwebtoken::encode(&header, claims, key).expect("signed")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_signature_counts() {
    let world = World::start().await;
    let admin = world.admin().await;
    let user = admin.get("/v1/whoami").await.expect(200)["user"]["id"].as_str().expect("id").to_owned();
    let row = world.store.signing_key_list().await.expect("keys").pop().expect("one");
    let master = MasterKey::open_or_create(&world.config.identity.master_key_path()).expect("the master key");
    let der = master.unwrap(&format!("signing key {}", row.kid), &row.wrapped_secret).expect("opens");
    let ours = EncodingKey::from_ed_der(&der);
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let theirs = EncodingKey::from_ed_der(pkcs8.as_ref());
    let (kid, later) = (Some(row.kid.as_str()), now() + 600);
    let good = claims(&user, later);

    let token = signed(Algorithm::EdDSA, kid, &good, &ours);
    Person { token: token.clone(), ..admin.clone() }.get("/v1/whoami").await.expect(200);

    let public = B64.decode(&row.public_key).expect("base64");
    let hs256 = EncodingKey::from_secret(&public);
    let hs256_text = EncodingKey::from_secret(row.public_key.as_bytes());
    let none = |alg: &str| {
        let header = B64.encode(json!({"alg": alg, "typ": "JWT", "kid": row.kid}).to_string());
        format!("{header}.{}.", B64.encode(good.to_string()))
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        signed(Algorithm::EdDSA, kid, &claims, &ours)
    };
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[1] = B64.encode(claims("0199e5a0-0000-7000-8000-000000000000", later).to_string());
    let swapped = parts.join(".");

    for (what, token, code) in [
        ("expired", signed(Algorithm::EdDSA, kid, &claims(&user, now() - 120), &ours), "token_expired"),
        ("another key under our kid", signed(Algorithm::EdDSA, kid, &good, &theirs), "token_invalid"),
        ("another kid", signed(Algorithm::EdDSA, Some("other"), &good, &ours), "token_invalid"),
        ("no kid", signed(Algorithm::EdDSA, None, &good, &ours), "token_invalid"),
        ("alg none", none("none"), "token_invalid"),
        ("alg None", none("None"), "token_invalid"),
        ("HS256 with the public key", signed(Algorithm::HS256, kid, &good, &hs256), "token_invalid"),
        ("HS256 with the public key's text", signed(Algorithm::HS256, kid, &good, &hs256_text), "token_invalid"),
        ("another issuer", with(&|c| c["iss"] = json!("evil")), "token_invalid"),
        ("another audience", with(&|c| c["aud"] = json!("other")), "token_invalid"),
        ("no expiry", with(&|c| drop(c.as_object_mut().expect("object").remove("exp"))), "token_invalid"),
        ("a user that isn't", with(&|c| c["sub"] = json!("0199e5a0-0000-7000-8000-000000000000")), "token_invalid"),
        ("claims swapped under a signature", swapped, "token_invalid"),
        ("cut", token[..token.len() - 4].to_owned(), "token_invalid"),
        ("nonsense", "a.b.c".to_owned(), "token_invalid"),
        ("no session version", with(&|c| drop(c.as_object_mut().expect("object").remove("sv"))), "token_invalid"),
        ("a session version of before", with(&|c| c["sv"] = json!(0)), "token_invalid"),
        ("one that isn't yet", with(&|c| c["sv"] = json!(2)), "token_invalid"),
        ("an API key that isn't", format!("iaas_{}_{}", "0".repeat(12), "0".repeat(48)), "token_invalid"),
    ] {
        println!("{what}");
        Person { token, ..admin.clone() }.get("/v1/whoami").await.problem(401, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_old_ones_verify_until_their_tokens_end() {
    let world = World::start().await;
    let admin = world.admin().await;
    let jwks = admin.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(jwks["keys"].as_array().map(Vec::len), Some(1));
    // Another gateway of the installation that rotates: a key of age 0 is always too old.
    let master = MasterKey::open_or_create(&world.config.identity.master_key_path()).expect("the master key");
    let mut identity = world.config.identity.clone();
    identity.signing_key_days = 0;
    let elsewhere = Keyring::new(Arc::new(master), &identity);
    elsewhere.rotate(&world.store).await.map_err(|e| e.into_problem()).expect("rotated");
    let user: domain::UserId =
        admin.get("/v1/whoami").await.expect(200)["user"]["id"].as_str().expect("id").parse().expect("an id");
    let token =
        api_gateway::auth::token::issue(&elsewhere, user, 1, 600).map_err(|e| e.into_problem()).expect("issued");
    // Signed with a key that the running gateway has never observed; it looks the table up.
    Person { token, ..admin.clone() }.get("/v1/whoami").await.expect(200);
    admin.get("/v1/whoami").await.expect(200);
    let jwks = admin.get("/.well-known/jwks.json").await.expect(200);
    assert_eq!(jwks["keys"].as_array().map(Vec::len), Some(2));
    for key in world.store.signing_key_list().await.expect("keys") {
        let public = B64.decode(&key.public_key).expect("base64");
        assert_eq!(public.len(), 32);
        assert!(!key.wrapped_secret.contains(&key.public_key));
    }
    let pair = Ed25519KeyPair::generate().expect("a key");
    assert_eq!(pair.public_key().as_ref().len(), 32);
}

async fn pair(world: &World) -> (String, String) {
    let body = json!({"username": "admin", "password": world.admin_password()});
    let answer = world.nobody().post("/v1/auth/login", body).await.expect(200);
    let text = |field: &str| answer[field].as_str().expect("a token").to_owned();
    assert_eq!((answer["token_type"].as_str(), answer["expires_in"].as_u64()), (Some("Bearer"), Some(900)));
    (text("access_token"), text("refresh_token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_used_once() {
    let world = World::start().await;
    let nobody = world.nobody();
    let (_, first) = pair(&world).await;
    let (_, other_login) = pair(&world).await;
    let refresh = |token: &str| nobody.post("/v1/auth/refresh", json!({"refresh_token": token}));
    let second = refresh(&first).await.expect(200);
    let (access, second) =
        (second["access_token"].clone(), second["refresh_token"].as_str().expect("token").to_owned());
    Person { token: access.as_str().expect("token").into(), ..nobody.clone() }.get("/v1/whoami").await.expect(200);
    // The first one again: somebody copied it, and nobody knows who is who.
    refresh(&first).await.problem(401, "refresh_token_reused");
    refresh(&second).await.problem(401, "refresh_token_invalid");
    // Another login isn't touched, until it logs out.
    let third = refresh(&other_login).await.expect(200)["refresh_token"].as_str().expect("token").to_owned();
    nobody.post("/v1/auth/logout", json!({"refresh_token": third})).await.expect(204);
    refresh(&third).await.problem(401, "refresh_token_invalid");
    refresh("rt_nonsense").await.problem(401, "refresh_token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_refreshes_at_once_are_a_reuse() {
    let world = World::start().await;
    let nobody = world.nobody();
    let (_, token) = pair(&world).await;
    let refresh = || nobody.post("/v1/auth/refresh", json!({"refresh_token": token}));
    let (a, b, c) = tokio::join!(refresh(), refresh(), refresh());
    let ok = [&a, &b, &c].into_iter().filter(|r| r.status == 200).count();
    assert!(ok <= 1, "one at most gets new tokens");
    for refused in [a, b, c].into_iter().filter(|r| r.status != 200) {
        assert_eq!(refused.status.as_u16(), 401);
        refused.assert_problem();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_say_nothing_and_are_slowed() {
    let world = World::start_with(|c| c.identity.login_attempts = 3).await;
    let nobody = world.nobody();
    let login =
        |name: &str, password: &str| nobody.post("/v1/auth/login", json!({"username": name, "password": password}));
    let known = login("admin", PASSWORD).await.problem(401, "login_failed");
    let unknown = login("nobody-here", PASSWORD).await.problem(401, "login_failed");
    assert_eq!(known["detail"], unknown["detail"]);
    login("Not A Name!", PASSWORD).await.problem(401, "login_failed");
    login("admin", PASSWORD).await.problem(401, "login_failed");
    login("admin", PASSWORD).await.problem(401, "login_failed");
    let throttled = login("admin", &world.admin_password()).await;
    assert!(throttled.headers.contains_key("retry-after"));
    throttled.problem(429, "login_throttled");
    // Another user from the same address isn't.
    login("someone", PASSWORD).await.problem(401, "login_failed");
}
