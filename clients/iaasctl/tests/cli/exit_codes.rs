//! What scripts depend on: the exit code of each kind of failure, data on stdout and nothing else there.

use crate::server::{Home, problem, stderr, stdout, table};
use serde_json::{Value, json};

#[test]
fn each_kind_of_refusal_has_its_code_and_repeats_the_servers_words() {
    for (status, code, expected) in [
        (400, "invalid_argument", 2),
        (422, "key_reused", 2),
        (404, "instance_not_found", 3),
        (401, "unauthenticated", 4),
        (403, "permission_denied", 4),
        (409, "name_taken", 5),
        (412, "precondition_failed", 5),
        (403, "quota_exceeded", 6),
        (507, "no_capacity", 7),
        (504, "wait_timeout", 9),
        (500, "internal", 1),
    ] {
        let url = table(move |_| problem(status, code));
        let output = Home::new().run_at(&url, &["instance", "show", "x"]);
        assert_eq!(output.status.code(), Some(expected), "{code}");
        let said = format!("error: it failed so\nhint: do this next\ncode: {code}\nrequest id: req-42\n");
        assert_eq!(stderr(&output), said);
        assert_eq!(stdout(&output), "", "{code}: errors are no data");
    }
}

#[test]
fn usage_and_an_absent_server_have_theirs() {
    let home = Home::new();
    for args in [&["instance", "fly"][..], &["flavor", "create", "x"], &["instance", "create", "x", "--image", "y"]] {
        let output = home.run(args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{args:?}");
    }
    let wrong = home.run(&["flavor", "create", "x", "--vcpus", "1", "--disk", "1GiB", "--memory", "5 apples"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("use MiB, GiB or TiB"), "{}", stderr(&wrong));
    let absent = home.run_at("http://127.0.0.1:1", &["instance", "list"]);
    assert_eq!(absent.status.code(), Some(8));
    assert!(stderr(&absent).contains("iaasctl doctor"), "{}", stderr(&absent));
    let nobody = home.run(&["--url", "http://127.0.0.1:1", "instance", "list"]);
    assert_eq!(nobody.status.code(), Some(4), "not logged in");
    assert!(stderr(&nobody).contains("iaasctl login"));
    assert_eq!(home.run(&["--version"]).status.code(), Some(0));
    assert_eq!(home.run(&["instance", "--help"]).status.code(), Some(0));
}

fn flavor() -> Value {
    json!({
        "id": "01234567-89ab-7def-8123-456789abcdef", "name": "small", "vcpus": 1, "memory_mib": 256, "disk_gib": 1, "pinning": "none",
        "description": "", "generation": 1, "created_at": "2026-01-31T00:00:00.000Z",
    })
}

#[test]
fn data_is_printed_as_asked() {
    let url = table(|requests| match requests {
        "GET /v1/flavors" => (200, json!({ "items": [flavor()], "next_cursor": null })),
        _ => problem(404, "not_found"),
    });
    let home = Home::new();
    let as_table = stdout(&home.run_at(&url, &["flavor", "list"]));
    assert!(as_table.starts_with("NAME   VCPUS  MEMORY   DISK"), "{as_table}");
    assert!(!as_table.contains('\x1b'), "no colours where nobody sees them");
    let as_json: Value =
        serde_json::from_str(&stdout(&home.run_at(&url, &["flavor", "list", "-o", "json"]))).expect("JSON");
    assert_eq!(as_json, json!([flavor()]));
    let as_yaml = stdout(&home.run_at(&url, &["flavor", "list", "-o", "yaml"]));
    let as_yaml: Value = serde_yaml_ng::from_str(&as_yaml).expect("YAML");
    assert_eq!(as_yaml, as_json);
}

#[test]
fn making_what_exists_already_can_be_fine() {
    let url = table(|requests| match requests {
        "POST /v1/flavors" => problem(409, "name_taken"),
        "GET /v1/flavors/small" => (200, flavor()),
        _ => problem(404, "not_found"),
    });
    let args = ["flavor", "create", "small", "--vcpus", "1", "--memory", "256MiB", "--disk", "1GiB", "-o", "json"];
    let home = Home::new();
    assert_eq!(home.run_at(&url, &args).status.code(), Some(5));
    let output = home.run_at(&url, &[&args[..], &["--if-not-exists"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).expect("JSON"), flavor());
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let url = table(|requests| match requests {
        "DELETE /v1/flavors/small" => {
            let plan = json!({ "summary": "the flavor would go", "touches": ["flavor small"] });
            (200, json!({ "dry_run": true, "plan": plan }))
        }
        _ => problem(404, "not_found"),
    });
    let output = Home::new().run_at(&url, &["flavor", "delete", "small", "--dry-run"]);
    assert_eq!(stdout(&output), "dry run: the flavor would go\n  affects flavor small\n");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn one_failure_of_many_is_said_and_does_not_stop_the_others() {
    let url = table(|requests| match requests {
        "DELETE /v1/flavors/a" | "DELETE /v1/flavors/c" => (200, Value::Null),
        _ => problem(404, "flavor_not_found"),
    });
    let output = Home::new().run_at(&url, &["flavor", "delete", "a", "b", "c"]);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    assert!(said.contains("flavor a deleted") && said.contains("flavor c deleted"), "{said}");
    assert!(said.contains("b: error: it failed so"), "{said}");
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Home::new().run(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("timeline"), "{shell} knows every verb");
    }
}

#[test]
fn a_doctor_says_what_is_wrong_and_what_to_do() {
    let home = Home::new();
    let url = table(|requests| match requests {
        "GET /healthz" => (200, json!({ "status": "ok" })),
        "GET /readyz" => {
            let check = json!({ "name": "database", "ok": false, "detail": "it is locked" });
            (503, json!({ "ready": false, "checks": [check] }))
        }
        _ => problem(401, "unauthenticated"),
    });
    let output = home.run_at(&url, &["doctor", "--no-local", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let checks: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let find = |name: &str| checks.as_array().expect("a list").iter().find(|c| c["check"] == name).expect(name).clone();
    assert_eq!(find("reachable")["verdict"], "ok");
    assert_eq!(
        (&find("ready")["verdict"], &find("ready")["found"]),
        (&json!("fail"), &json!("database: it is locked"))
    );
    assert_eq!(find("session")["verdict"], "fail");
    assert!(find("session")["advice"].as_str().is_some_and(|a| a.contains("iaasctl login")));
    let absent = home.run_at("http://127.0.0.1:1", &["doctor", "--no-local"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(stdout(&absent).contains("start iaasd"), "{}", stdout(&absent));
}
