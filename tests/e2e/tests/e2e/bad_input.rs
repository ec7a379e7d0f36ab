//! What bad input gets from the real server: a clear problem document, and nothing left behind.

use crate::support::{server, usage};
use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};

struct Case {
    what: &'static str,
    method: Method,
    path: &'static str,
    body: Value,
    status: u16,
    /// Must occur in the problem's code, detail or hint.
    says: &'static str,
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_problem_that_says_what_to_do() -> anyhow::Result<()> {
    let server = server().await?;
    let rest = server.login("demo").await?;
    rest.kernel_image("halt", kernel(), b"070701".repeat(100), "").await?;
    let small = json!({"instances": 1, "vcpus": 1, "memory_mib": 128, "disk_gib": 2});
    let post = |what, path, body, status, says| Case { what, method: Method::POST, path, body, status, says };
    let instance = |extra: Value| {
        let mut body = json!({"name": "x", "image": "halt", "vcpus": 1, "memory_mib": 64, "disk_gib": 1});
        body.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        body
    };
    let cases = [
        post("unknown image", "/v1/instances", instance(json!({"image": "nope"})), 404, "nope"),
        post("larger than any host", "/v1/instances", instance(json!({"vcpus": 256})), 507, "vcpu"),
        post("unknown field", "/v1/instances", instance(json!({"colour": "red"})), 400, "colour"),
        post("wrong type", "/v1/instances", instance(json!({"vcpus": "many"})), 400, "vcpus"),
        post("bad name", "/v1/instances", instance(json!({"name": "No Spaces"})), 400, "name"),
        post(
            "user data over its limit",
            "/v1/instances",
            instance(json!({"user_data": "x".repeat(70_000)})),
            400,
            "user_data",
        ),
        post("memory under its limit", "/v1/instances", instance(json!({"memory_mib": 1})), 400, "memory_mib"),
        post("unknown flavor", "/v1/instances", json!({"name": "x", "image": "halt", "flavor": "huge"}), 404, "huge"),
        post(
            "local disk that should survive its host",
            "/v1/instances",
            instance(json!({"on_host_loss": "restart"})),
            409,
            "local",
        ),
        post("bad ssh key", "/v1/ssh-keys", json!({"name": "k", "public_key": "ssh-rsa nonsense"}), 400, "public_key"),
        Case {
            what: "bad cursor",
            method: Method::GET,
            path: "/v1/instances?cursor=zzz",
            body: Value::Null,
            status: 400,
            says: "cursor",
        },
        Case {
            what: "bad limit",
            method: Method::GET,
            path: "/v1/instances?limit=0",
            body: Value::Null,
            status: 400,
            says: "limit",
        },
        Case {
            what: "no such route",
            method: Method::GET,
            path: "/v1/nothing",
            body: Value::Null,
            status: 404,
            says: "not",
        },
        Case {
            what: "wrong method",
            method: Method::DELETE,
            path: "/v1/instances",
            body: Value::Null,
            status: 405,
            says: "method",
        },
    ];
    for case in cases {
        let body = (!case.body.is_null()).then_some(&case.body);
        let (status, problem) = rest.answer(case.method.clone(), case.path, body).await?;
        ensure!(status == case.status, "{}: {status} {problem}", case.what);
        for field in ["type", "title", "code", "detail", "request_id"] {
            ensure!(problem[field].is_string(), "{}: no {field}: {problem}", case.what);
        }
        let text = problem.to_string().to_lowercase();
        ensure!(text.contains(case.says), "{}: doesn't say `{}`: {problem}", case.what, case.says);
    }
    // 507 carries the explain record.
    let (_, refused) = rest.answer(Method::POST, "/v1/instances", Some(&instance(json!({"vcpus": 256})))).await?;
    ensure!(refused["explain"]["hosts_considered"] == 1, "{refused}");

    // Quota: which, and how much.
    rest.call(Method::PUT, "/v1/projects/demo/quota", Some(&small)).await?;
    let (status, problem) = rest.answer(Method::POST, "/v1/instances", Some(&instance(json!({"vcpus": 2})))).await?;
    ensure!(
        status == 403 && problem["detail"].as_str().is_some_and(|d| d.contains("vcpus: 2 requested, 0 used, limit 1")),
        "{problem}"
    );
    ensure!(rest.get("/v1/instances").await?["items"] == json!([]), "nothing is left behind");
    let used = usage(&rest).await?;
    ensure!(used == json!([0, 0, 0, 0, 0]), "{used}");

    // A dry run says what would be, and changes nothing.
    let plan = rest.post("/v1/instances?dry_run=true", &instance(json!({}))).await?;
    ensure!(plan["dry_run"] == true && plan["plan"]["summary"].is_string(), "{plan}");
    ensure!(rest.get("/v1/instances").await?["items"] == json!([]), "a dry run makes nothing");
    server.stop()
}

fn kernel() -> Vec<u8> {
    let mut bytes = vec![0u8; 8192];
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    bytes
}
