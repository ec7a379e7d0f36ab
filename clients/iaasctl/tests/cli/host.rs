//! Hosts by command line: tokens that admit them, and their removal.

use crate::server::{Home, record, stderr, stdout};
use domain::host::HostFacts;
use serde_json::{Value, json};

const ID: &str = "01234567-89ab-7def-8123-456789abcdef";
const AT: &str = "2026-01-31T00:00:00.000Z";
const TOKEN: &str = "iaasj1.aa.bb.https://10.0.0.1:7480";

fn token() -> Value {
    json!({
        "id": ID, "name": "rack-1", "zone": "b", "state": "used", "host_id": ID, "redeemed_at": AT, "created_by": "admin",
        "created_at": AT, "expires_at": AT,
    })
}

fn answer(requests: &str) -> (u16, Value) {
    match requests {
        "POST /v1/host-tokens" => {
            let mut made = token();
            made["token"] = json!(TOKEN);
            (201, made)
        }
        "GET /v1/host-tokens" => (200, json!({"items": [token()], "next_cursor": null})),
        _ if requests.starts_with("DELETE ") => (204, Value::Null),
        _ => panic!("nobody should ask {requests}"),
    }
}

#[test]
fn every_command_asks_for_what_it_says() {
    for (line, what) in [
        ("host token create --name rack-1 --zone b --ttl 30m", "POST /v1/host-tokens"),
        ("host token create", "POST /v1/host-tokens"),
        ("host token list", "GET /v1/host-tokens"),
        ("host token delete one two", "DELETE /v1/host-tokens/one DELETE /v1/host-tokens/two"),
        ("host remove rack-1 rack-2", "DELETE /v1/hosts/rack-1 DELETE /v1/hosts/rack-2"),
    ] {
        let (url, received) = record(|requests, _| answer(requests));
        let output = Home::new().run_at(&url, &line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
        let received = received.lock();
        let mut requests: Vec<_> = received.iter().map(|(requests, _)| requests.as_str()).collect();
        requests.sort_unstable();
        assert_eq!(requests.join(" "), what, "{line}");
        let body = match line {
            "host token create" => json!({"ttl_secs": 3600}),
            _ if line.contains("create") => json!({"name": "rack-1", "zone": "b", "ttl_secs": 1800}),
            _ => Value::Null,
        };
        assert_eq!(received[0].1, body, "{line}");
    }
}

#[test]
fn what_an_operator_keeps_of_a_host_is_said_and_a_host_that_holds_more_is_warned_of() {
    let host = |beyond: u64| {
        let memory = |memory_mib: u64| json!({"vcpus": 0, "memory_mib": memory_mib, "disk_gib": 0});
        json!({
            "id": ID, "name": "rack-1", "zone": "a", "tags": {}, "state": "up", "state_reason": "", "cordoned": false, "cordon_reason": "",
            "draining": false, "capacity": memory(0), "offered": memory(0), "reserved": memory(0), "used": memory(512),
            "beyond_capacity": memory(beyond), "cpu_overcommit": 1.0, "memory_overcommit": 1.5, "disk_overcommit": 3.0,
            "overhead": {"fixed_mib": 0, "per_vcpu_mib": 0, "per_gib_mib": 0}, "facts": HostFacts::default(),
            "generation": 1, "registered_at": AT, "state_changed_at": AT,
        })
    };
    let line = "host set rack-1 --reserve-vcpus 2 --reserve-memory 2GiB --reserve-disk 10GiB --memory-overcommit 1.5 --disk-overcommit 3";
    let (url, received) = record(move |_, _| (200, host(512)));
    let output = Home::new().run_at(&url, &line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = "warning: host rack-1 is overcommitted by 512 MiB of memory; it takes no new instances\n";
    assert_eq!(stderr(&output), said);
    let reserved = json!({"vcpus": 2, "memory_mib": 2048, "disk_gib": 10});
    let body = json!({"reserved": reserved, "memory_overcommit": 1.5, "disk_overcommit": 3.0});
    assert_eq!(received.lock()[0], ("PATCH /v1/hosts/rack-1".to_owned(), body));
    let (url, received) = record(move |_, _| (200, host(0)));
    let output = Home::new().run_at(&url, &["host", "set", "rack-1", "--reserve-disk", "0"]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    assert_eq!(received.lock()[0].1, json!({"reserved": {"disk_gib": 0}}), "what isn't named stays");
}

#[test]
fn a_token_is_alone_on_the_output_and_no_list_shows_it() {
    let (url, _) = record(|requests, _| answer(requests));
    let home = Home::new();
    let made = home.run_at(&url, &["host", "token", "create"]);
    assert_eq!(stdout(&made), format!("{TOKEN}\n"), "for scripts");
    for agent in ["compute-agent", "network-agent"] {
        assert!(stderr(&made).contains(&format!("iaasd {agent} --join {TOKEN}")), "{}", stderr(&made));
    }
    let made = home.run_at(&url, &["host", "token", "create", "-o", "json"]);
    let made: Value = serde_json::from_str(&stdout(&made)).expect("JSON");
    assert_eq!((&made["token"], &made["id"]), (&json!(TOKEN), &json!(ID)));
    let listed = stdout(&home.run_at(&url, &["host", "token", "list"]));
    assert!(listed.contains("rack-1") && listed.contains("used") && !listed.contains("iaasj1"), "{listed}");
}

#[test]
fn a_flavor_says_how_its_vcpus_are_pinned() {
    let flavor = || {
        json!({"id": ID, "name": "own", "vcpus": 1, "memory_mib": 512, "disk_gib": 0, "pinning": "numa",
        "description": "", "generation": 1, "created_at": AT})
    };
    for (pin, sent) in [(" --pin numa", json!("numa")), (" --pin none", Value::Null), ("", Value::Null)] {
        let (url, received) = record(move |_, _| (201, flavor()));
        let line = format!("flavor create own --vcpus 1 --memory 512MiB --disk 0{pin}");
        let output = Home::new().run_at(&url, &line.split_whitespace().collect::<Vec<_>>());
        assert!(stdout(&output).contains("numa"), "{}", stderr(&output));
        assert_eq!(received.lock()[0].1["pinning"], sent, "{pin}");
    }
}

#[test]
fn nonsense_is_refused_before_anything_is_asked() {
    for line in [
        "host token create --ttl never",
        "host token create rack-1",
        "host token delete",
        "host remove",
        "host set rack-1 --reserve-memory lots",
        "host set rack-1 --reserve-vcpus -1",
        "flavor create own --vcpus 1 --memory 1GiB --disk 0 --pin cores",
    ] {
        let output = Home::new().run_at("http://127.0.0.1:1", &line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(2), "{line}: {}", stderr(&output));
    }
}
