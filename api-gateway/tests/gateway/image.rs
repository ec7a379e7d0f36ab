//! Images: rows, bytes, and uploads that go wrong.

use crate::{
    compute::{Cloud, column, initrd, kernel, sha256, upload},
    harness::{Person, World, answer},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Every regular file below `dir`, with its size.
fn files(dir: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.display().to_string(), entry.metadata().map_or(0, |m| m.len()))),
        }
    }
    found
}

async fn image(person: &Person, name: &str) -> Value {
    person.get(&format!("/v1/images/{name}")).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_active_when_its_parts_are_there() {
    let cloud = Cloud::start().await;
    let ann = &cloud.ann;
    let made = ann
        .post("/v1/images", json!({"name": "disk", "kind": "disk", "format": "raw", "min_memory_mib": 256}))
        .await
        .expect(201);
    assert_eq!((made["state"].as_str(), made["visibility"].as_str()), (Some("queued"), Some("private")));
    assert!(made["deadline_at"].is_string() && made["parts"].as_array().is_some_and(Vec::is_empty), "{made}");
    let bytes: Vec<u8> = (0..3 * 1024 * 1024u32).map(|i| (i % 251) as u8).collect();
    let active = upload(ann, "disk", "disk", bytes.clone()).await.expect(200);
    assert_eq!((active["state"].as_str(), active["min_disk_gib"].as_u64()), (Some("active"), Some(1)));
    assert_eq!(active["parts"], json!([{"kind": "disk", "sha256": sha256(&bytes), "size_bytes": bytes.len()}]));
    let linux = image(ann, "linux").await;
    assert_eq!((linux["kind"].as_str(), linux["cmdline"].as_str()), (Some("kernel"), Some("console=ttyS0")));
    assert!(linux["format"].is_null(), "{linux}");
    // An instance gets the smallest disk that the image needs unless a size is given.
    let body = json!({"name": "web", "image": "disk", "vcpus": 1, "memory_mib": 256});
    let web = ann.post("/v1/instances?wait=running", body).await.expect(201);
    assert_eq!(web["disk_gib"], 1);
    ann.delete("/v1/images/disk").await.problem(409, "image_in_use");
    ann.delete("/v1/instances/web?wait=deleted").await.expect(204);
    let stale = ann.request(Method::DELETE, "/v1/images/disk").header("if-match", "\"1\"");
    answer(stale).await.problem(412, "precondition_failed");
    ann.delete("/v1/images/disk").await.expect(204);
    ann.get("/v1/images/disk").await.problem(404, "image_not_found");
    ann.post("/v1/instances", json!({"name": "late", "image": "disk", "flavor": "small"}))
        .await
        .problem(404, "image_not_found");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_image_is_said() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    for (body, fields) in [
        (json!({"name": "X", "kind": "disk", "cmdline": "quiet"}), vec!["/name", "/cmdline"]),
        (
            json!({"name": "x", "kind": "kernel", "format": "raw", "cmdline": "x".repeat(2000)}),
            vec!["/format", "/cmdline"],
        ),
        (json!({"name": "x", "kind": "tape"}), vec!["/kind"]),
        (json!({"name": "x", "kind": "disk", "min_memory_mib": u64::MAX}), vec!["/min_memory_mib"]),
    ] {
        let refused = ann.post("/v1/images", body.clone()).await.problem(400, "invalid_argument");
        let named: Vec<_> =
            refused["errors"].as_array().expect("errors").iter().map(|e| e["field"].as_str().unwrap_or("")).collect();
        assert_eq!(named, fields, "{body}");
    }
    ann.post("/v1/images", json!({"name": "raw", "kind": "disk", "format": "raw"})).await.expect(201);
    ann.post("/v1/images", json!({"name": "raw", "kind": "disk", "format": "raw"})).await.problem(409, "name_taken");
    ann.post("/v1/images?dry_run=true", json!({"name": "raw", "kind": "disk"})).await.problem(409, "name_taken");
    ann.post("/v1/images?dry_run=true", json!({"name": "dry", "kind": "disk"})).await.expect(200);
    ann.get("/v1/images/dry").await.problem(404, "image_not_found");
    // A part that the kind doesn't have, or that there is none of.
    upload(&ann, "raw", "kernel", kernel()).await.problem(400, "invalid_argument");
    upload(&ann, "raw", "tail", kernel()).await.problem(400, "invalid_argument");
    upload(&ann, "nothing", "disk", vec![0; 512]).await.problem(404, "image_not_found");
    let put = |hash: &str, bytes: Vec<u8>| {
        answer(ann.request(Method::PUT, "/v1/images/raw/parts/disk").header("x-content-sha256", hash).body(bytes))
    };
    put("abc", vec![0; 512]).await.problem(400, "invalid_argument");
    let refused = put(&sha256(b"other"), vec![0; 512]).await;
    refused.assert_problem();
    assert_eq!(refused.status.as_u16(), 400, "{}", refused.text);
    // Content that isn't what it says.
    let mut qcow2 = vec![0u8; 512];
    qcow2[..4].copy_from_slice(b"QFI\xfb");
    upload(&ann, "raw", "disk", qcow2).await.problem(400, "image_refused");
    // The refusal reaches a caller who still writes.
    upload(&ann, "raw", "disk", vec![0u8; 100]).await.problem(400, "image_refused");
    assert!(image(&ann, "raw").await["parts"].as_array().is_some_and(Vec::is_empty));
    let dry = answer(ann.request(Method::PUT, "/v1/images/raw/parts/disk?dry_run=true").body(vec![0; 512])).await;
    assert_eq!(dry.expect(200)["dry_run"], true);
    assert!(image(&ann, "raw").await["parts"].as_array().is_some_and(Vec::is_empty));
    let left: Vec<_> = files(&world.dir.path().join("objects")).into_iter().filter(|(_, size)| *size > 0).collect();
    assert!(left.is_empty(), "nothing of the refused uploads is kept: {left:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_images_are_made_by_system_admins_and_used_by_all() {
    let cloud = Cloud::start().await;
    let (ann, admin) = (&cloud.ann, &cloud.admin);
    ann.post("/v1/images", json!({"name": "mine", "kind": "kernel", "visibility": "public"}))
        .await
        .problem(403, "permission_denied");
    cloud.world.project(admin, "catalog").await;
    let body = json!({"name": "public", "kind": "kernel", "visibility": "public"});
    admin.post("/v1/images?project=catalog", body).await.expect(201);
    for (part, bytes) in [("kernel", kernel()), ("initrd", initrd())] {
        let request = admin.request(Method::PUT, &format!("/v1/images/public/parts/{part}?project=catalog"));
        answer(request.body(bytes)).await.expect(200);
    }
    assert_eq!(column(&ann.get("/v1/images").await.expect(200), "name"), ["linux", "public"]);
    let body = json!({"name": "web", "image": "public", "flavor": "tiny"});
    ann.post("/v1/instances?wait=running", body).await.expect(201);
    ann.delete("/v1/images/public").await.problem(403, "foreign_image");
    upload(ann, "public", "kernel", kernel()).await.problem(403, "foreign_image");
    // One's own of the same name comes first.
    ann.post("/v1/images", json!({"name": "public", "kind": "disk"})).await.expect(201);
    assert_eq!(image(ann, "public").await["kind"], "disk");
    cloud.stop().await;
}

/// Sends a request's head and some of its body, and hangs up or half-closes.
async fn cut(world: &World, person: &Person, head: &str, body: &[u8], half_close: bool) -> String {
    let authority = world.base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(authority.replace("localhost", "127.0.0.1")).await.expect("a connection");
    let head = format!(
        "PUT /v1/images/big/parts/disk HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {}\r\n{head}\r\n\r\n",
        person.token
    );
    stream.write_all(head.as_bytes()).await.expect("it writes");
    stream.write_all(body).await.expect("it writes");
    let mut answer = Vec::new();
    if half_close {
        stream.shutdown().await.expect("it closes");
        let _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_cut_in_the_middle_leaves_nothing() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    ann.post("/v1/images", json!({"name": "big", "kind": "disk", "format": "raw"})).await.expect(201);
    let objects = world.dir.path().join("objects");
    let half = vec![7u8; 4 * 1024 * 1024];
    let chunked = {
        let mut body = format!("{:x}\r\n", half.len()).into_bytes();
        body.extend_from_slice(&half);
        body.extend_from_slice(b"\r\n");
        body
    };
    for (head, body, half_close) in [
        ("content-length: 8388608", &half, false),
        ("content-length: 8388608", &half, true),
        // Without a length only the missing last chunk tells: the trap of this route.
        ("transfer-encoding: chunked", &chunked, false),
        ("transfer-encoding: chunked", &chunked, true),
    ] {
        let answered = cut(&world, &ann, head, body, half_close).await;
        assert!(!answered.contains(" 200 "), "{head}: {answered}");
        // Whatever it began is undone by itself.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let left: u64 = files(&objects).iter().map(|(_, size)| size).sum();
            if left == 0 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{head}: {:?}", files(&objects));
            tokio::task::yield_now().await;
        }
        let now = image(&ann, "big").await;
        assert_eq!((now["state"].as_str(), now["parts"].as_array().map(Vec::len)), (Some("queued"), Some(0)), "{head}");
    }
    // And the same image takes a whole one.
    assert_eq!(upload(&ann, "big", "disk", half).await.expect(200)["state"], "active");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_is_streamed() {
    let world = World::start().await;
    let admin = world.admin().await;
    world.project(&admin, "blue").await;
    let ann = world.user(&admin, "ann", "blue", "member").await;
    ann.post("/v1/images", json!({"name": "big", "kind": "disk", "format": "raw"})).await.expect(201);
    // Far more than a JSON body may have, and more than any buffer on the way.
    let piece = bytes::Bytes::from(vec![3u8; 1024 * 1024]);
    let stream = futures::stream::iter((0..96).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let request = ann.request(Method::PUT, "/v1/images/big/parts/disk").body(reqwest::Body::wrap_stream(stream));
    let active = answer(request).await.expect(200);
    assert_eq!(active["parts"][0]["size_bytes"], 96 * 1024 * 1024);
    assert_eq!(active["parts"][0]["sha256"], sha256(&vec![3u8; 96 * 1024 * 1024]));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_means_the_bytes_that_came_with_it_first() {
    let cloud = Cloud::start().await;
    let ann = &cloud.ann;
    ann.post("/v1/images", json!({"name": "disk", "kind": "disk", "format": "raw"})).await.expect(201);
    let put = |key: &str, bytes: Vec<u8>, announced: bool, chunked: bool| {
        let request = ann.request(Method::PUT, "/v1/images/disk/parts/disk");
        let request = request.header("content-type", "application/octet-stream").header("idempotency-key", key);
        let request = if announced { request.header("x-content-sha256", sha256(&bytes)) } else { request };
        answer(match chunked {
            false => request.body(bytes),
            true => request.body(reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(bytes)]))),
        })
    };
    let (bytes, other, longer) = (vec![1u8; 1 << 20], vec![2u8; 1 << 20], vec![1u8; 2 << 20]);
    for announced in [false, true] {
        let key = format!("k-{announced}");
        let first = put(&key, bytes.clone(), announced, false).await.expect(200);
        assert_eq!(put(&key, bytes.clone(), announced, false).await.expect(200), first, "a repeat");
        for (what, body) in [("other bytes", &other), ("more bytes", &longer)] {
            for chunked in [false, true] {
                let refused = put(&key, body.clone(), announced, chunked).await;
                println!("{what}, announced {announced}, chunked {chunked}: {}", refused.text);
                refused.problem(422, "key_reused");
            }
        }
    }
    put("another", other, false, false).await.problem(409, "part_exists");
    cloud.stop().await;
}
