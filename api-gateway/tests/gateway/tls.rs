//! HTTPS: the given certificate, read anew when its files change; the built-in CA; and no plain HTTP by accident.

use crate::harness::World;
use reqwest::Certificate;
use service_kit::tls::Ca;
use std::{path::Path, time::Duration};

fn client(ca: &str) -> reqwest::Client {
    let root = Certificate::from_pem(ca.as_bytes()).expect("a certificate");
    reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().expect("a client")
}

fn issue(ca: &Ca, dir: &Path) {
    ca.issue_files(dir, "api", &["localhost".to_owned()], Duration::from_secs(3600)).expect("issued");
}

async fn healthy(http: &reqwest::Client, base: &str) -> bool {
    http.get(format!("{base}/healthz")).send().await.is_ok_and(|r| r.status() == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_certificate_is_served_and_read_anew() {
    service_kit::install_crypto();
    let certs = tempfile::tempdir().expect("tempdir");
    let (first, second) = (certs.path().join("ca1"), certs.path().join("ca2"));
    let (first, second) = (Ca::open_or_create(&first).expect("a CA"), Ca::open_or_create(&second).expect("a CA"));
    let dir = certs.path().join("api");
    std::fs::create_dir(&dir).expect("a directory");
    issue(&first, &dir);
    let world = World::start_with(|c| {
        c.api.tls_certificate = Some(dir.join("api.pem"));
        c.api.tls_key = Some(dir.join("api.key"));
    })
    .await;
    assert!(world.base.starts_with("https://"));
    assert!(healthy(&client(first.pem()), &world.base).await);
    assert!(!healthy(&client(second.pem()), &world.base).await, "a stranger's CA isn't trusted");
    let plain = world.base.replace("https://", "http://");
    assert!(!healthy(&world.http, &plain).await, "no plain HTTP on a TLS port");
    let answered = client(first.pem()).get(format!("{}/healthz", world.base)).send().await.expect("answered");
    assert!(answered.headers().contains_key("strict-transport-security"));

    issue(&second, &dir);
    let renewed = async {
        while !healthy(&client(second.pem()), &world.base).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("the new certificate is served");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn off_loopback_it_is_https_of_the_built_in_ca() {
    let world = World::start_with(|c| {
        c.api.listen = ([0, 0, 0, 0], 0).into();
        c.api.tls_names = vec!["localhost".to_owned()];
    })
    .await;
    assert!(world.base.starts_with("https://"));
    let ca = std::fs::read_to_string(world.config.identity.state_dir.join("ca/ca.pem")).expect("the CA");
    assert!(healthy(&client(&ca), &world.base).await);
    assert!(!healthy(&world.http, &world.base.replace("https://", "http://")).await);
    world.stop().await;
}
