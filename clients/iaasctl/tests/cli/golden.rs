//! Texts that only change on purpose. `UPDATE_GOLDEN=1 cargo test -p iaasctl` writes them anew.

use client::model::{Host, HostToken, HostTokenState, Image, Instance, Quota, QuotaAmounts};
use iaasctl::{
    output::{Row, render_fields, render_table},
    view::quota_lines,
};
use serde_json::json;
use std::path::Path;

fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("the golden file is written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} drifted; if that is meant: UPDATE_GOLDEN=1 cargo test -p iaasctl\n--- now ---\n{text}",
        path.display()
    );
}

/// The help of a command and of everything below it.
fn help(command: &mut clap::Command, out: &mut String) {
    let text = command.render_help().to_string();
    // The same below every command: shown once, at the top.
    let own = if out.is_empty() { text.as_str() } else { text.split("\nGlobal options:").next().unwrap_or_default() };
    out.push_str(&format!("==== {} ====\n\n{}\n\n", command.get_bin_name().unwrap_or("iaasctl"), own.trim_end()));
    for sub in command.get_subcommands_mut() {
        help(sub, out);
    }
}

#[test]
fn the_help_of_every_command() {
    let mut command = iaasctl::command().term_width(100);
    command.build();
    let mut text = String::new();
    help(&mut command, &mut text);
    check("help.txt", &text);
}

/// The lines of shell in a document that call `iaasctl`, without comments.
fn lines_of(document: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document);
    let text = std::fs::read_to_string(path).expect("the document").replace("\\\n", " ");
    let calls = text.lines().filter(|line| line.starts_with("iaasctl "));
    calls.map(|line| line.split(" #").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_the_documents_say_is_understood() {
    for document in ["docs/how-to/networks.md", "docs/how-to/placement.md", "README.md"] {
        let lines = lines_of(document);
        assert!(!lines.is_empty(), "{document} has no command");
        for line in lines {
            let parsed = iaasctl::command().try_get_matches_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{document}: {line}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn every_command_and_option_is_explained() {
    fn walk(command: &clap::Command, missing: &mut Vec<String>) {
        if command.get_about().is_none() {
            missing.push(command.get_name().to_owned());
        }
        // What a name says by itself needs no words.
        const PLAIN: [&str; 5] = ["name", "description", "zone", "vcpus", "role"];
        for argument in command.get_arguments().filter(|a| !a.is_positional() && a.get_help().is_none()) {
            if !PLAIN.contains(&argument.get_id().as_str()) {
                missing.push(format!("{} --{}", command.get_name(), argument.get_id()));
            }
        }
        command.get_subcommands().for_each(|sub| walk(sub, missing));
    }
    let mut missing = Vec::new();
    walk(&iaasctl::command(), &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

const ID: &str = "01234567-89ab-7def-8123-456789abcdef";
const AT: &str = "2026-01-31T12:00:00.250Z";

fn instance(name: &str, state: &str, step: &str, guest_up_at: Option<&str>) -> Instance {
    serde_json::from_value(json!({
        "id": ID, "project_id": ID, "name": name, "tags": { "tier": "web", "env": "prod" }, "generation": 4,
        "epoch": null, "host_id": null, "state": state, "step": step, "reason": "", "power": "on", "image_id": ID,
        "flavor": "small", "vcpus": 2, "memory_mib": 1536, "disk_gib": 10, "zone": "a", "on_crash": "restart",
        "on_host_loss": "wait", "pool": "local", "nics": [],
        "placement": { "group_ids": [], "required_tags": {}, "forbidden_tags": {}, "cpu_features": [], "dedicated": false, "pinning": "none" },
        "ssh_keys": ["SHA256:abc ann@laptop", "SHA256:def"], "root_disk_id": ID,
        "observed_generation": 3, "deadline_at": null, "started_at": AT, "guest_up_at": guest_up_at, "crash_count": 1,
        "created_at": AT, "updated_at": AT,
    }))
    .expect("an instance")
}

#[test]
fn the_tables() {
    let instances = [
        instance("hello", "running", "", Some("2026-01-31T12:00:02.000Z")),
        instance("a-longer-name", "building", "fetching image (41 %)", None),
        // Said before it was last started: of the boot before.
        instance("x", "running", "", Some("2026-01-31T11:00:00.000Z")),
    ];
    let rows: Vec<_> = instances.iter().map(Row::cells).collect();
    let image: Image = serde_json::from_value(json!({
        "id": ID, "project_id": ID, "name": "tiny", "visibility": "public", "kind": "kernel", "format": null,
        "cmdline": "console=ttyS0", "min_disk_gib": 0, "min_memory_mib": 128, "state": "active",
        "parts": [{ "kind": "kernel", "sha256": "aa", "size_bytes": 10_485_760 }, { "kind": "initrd", "sha256": "bb", "size_bytes": 900 }],
        "reason": "", "deadline_at": null, "generation": 3, "created_at": AT,
    }))
    .expect("an image");
    let host: Host = serde_json::from_value(json!({
        "id": ID, "name": "node-1", "zone": "a", "tags": {}, "state": "up", "state_reason": "", "cordoned": false, "cordon_reason": "",
        "capacity": { "vcpus": 8, "memory_mib": 16384, "disk_gib": 100 },
        "used": { "vcpus": 2, "memory_mib": 1024, "disk_gib": 120 }, "cpu_overcommit": 4.0, "memory_overcommit": 1.5, "disk_overcommit": 1.0,
        "offered": { "vcpus": 3, "memory_mib": 11947, "disk_gib": 110 }, "reserved": { "vcpus": 1, "memory_mib": 1024, "disk_gib": 10 },
        "beyond_capacity": { "vcpus": 0, "memory_mib": 0, "disk_gib": 20 },
        "draining": false, "overhead": { "fixed_mib": 0, "per_vcpu_mib": 0, "per_gib_mib": 0 },
        "facts": { "cpu_model": "Some CPU", "cpu_vendor": "", "cpu_features": [], "architecture": "", "sockets": 1, "cores": 8, "threads": 8,
            "numa_nodes": 1, "kernel": "", "accelerator": "tcg", "accelerator_reason": "no KVM", "qemu_version": "10.0.2", "agent_version": "" },
        "generation": 1, "registered_at": AT, "state_changed_at": AT,
    }))
    .expect("a host");
    let token: HostToken = serde_json::from_value(json!({
        "id": ID, "name": "rack-1", "zone": "b", "state": "used", "host_id": ID, "redeemed_at": AT, "created_by": "admin",
        "created_at": AT, "expires_at": AT,
    }))
    .expect("a token");
    let unused = HostToken { name: None, zone: None, state: HostTokenState::Unused, host_id: None, ..token.clone() };
    let amounts = |n| QuotaAmounts {
        instances: n,
        vcpus: 2 * n,
        memory_mib: 512 * n,
        disk_gib: 10 * n,
        networks: n,
        ..Default::default()
    };
    let quota = quota_lines(&Quota { limits: amounts(10), used: amounts(3) });
    let quota: Vec<_> = quota.iter().map(Row::cells).collect();
    let text = [
        render_table(Instance::HEADER, &rows, false),
        render_fields(&instances[0].fields()),
        render_table(Image::HEADER, &[image.cells()], false),
        render_fields(&image.fields()),
        render_table(Host::HEADER, &[host.cells()], false),
        render_fields(&host.fields()),
        render_table(HostToken::HEADER, &[token.cells(), unused.cells()], false),
        render_table(&["RESOURCE", "USED", "LIMIT", "LEFT"], &quota, false),
        render_table(Instance::HEADER, &[], false),
    ];
    check("tables.txt", &text.join("\n"));
}

#[test]
fn what_a_guest_or_a_stranger_named_can_not_reach_the_terminal() {
    let text = render_table(&["NAME"], &[vec!["a\x1b[31mred\nnext".to_owned()]], false);
    assert!(!text.contains('\x1b') && text.lines().count() == 2, "{text:?}");
    assert!(!render_fields(&[("reason", "a\x1b[2Jb".to_owned())]).contains('\x1b'));
}

#[test]
fn colours_are_for_states_alone() {
    let rows = [vec!["error-prone".to_owned(), "error".to_owned()]];
    let text = render_table(&["NAME", "STATE"], &rows, true);
    assert!(text.contains("\x1b[") && !text.contains("\x1b[38;5;9merror-prone"), "{text:?}");
    assert!(!render_table(&["NAME", "STATE"], &rows, false).contains('\x1b'));
}
