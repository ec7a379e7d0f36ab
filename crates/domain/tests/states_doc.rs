//! docs/states.md is generated from `InstanceState::valid_transition`, the one truth. `UPDATE_GOLDEN=1 cargo test -p domain` rewrites it.

use domain::instance::InstanceState as S;
use std::{fmt::Write, path::Path};

fn meaning(state: S) -> &'static str {
    match state {
        S::Pending => "accepted and placed; its host doesn't know of it yet",
        S::Scheduling => "being placed again",
        S::Building => "its host prepares disks or starts QEMU; `step` says what it is at",
        S::Running => "QEMU says that it runs; what the guest itself says is `guest_up_at`",
        S::Paused => "QEMU keeps it in memory, no vCPU runs",
        S::Stopped => "no QEMU; its disks and its claim on the host stay",
        S::Suspended => "its memory is on disk",
        S::Migrating => "moves to another host while it runs",
        S::Recovering => "its host was lost; it comes up elsewhere",
        S::Resizing => "its size changes",
        S::Rebuilding => "its root disk is made anew from an image",
        S::Deleting => "its host stops it and destroys its disks; quota is free already, the place on the host not yet",
        S::Deleted => "gone: seen at the end of a timeline, never stored",
        S::Error => {
            "it could not be made what it should be; `reason` says why; it is tried again from its desired state"
        }
    }
}

fn render() -> String {
    let mut out = String::from(
        "# States of an instance\n\nGenerated from `domain::instance::InstanceState::valid_transition`; don't edit.\n\n\
         States in **bold** may last. Every other one has a deadline: past it the instance shows a reason.\n\n| state | meaning | next |\n|---|---|---|\n",
    );
    for from in S::ALL {
        let next: Vec<_> =
            S::ALL.into_iter().filter(|to| *to != from && S::valid_transition(from, *to)).map(S::as_str).collect();
        let name = if from.is_final() { format!("**{}**", from.as_str()) } else { from.as_str().to_owned() };
        let next = if next.is_empty() { "—".to_owned() } else { next.join(", ") };
        writeln!(out, "| {name} | {} | {next} |", meaning(from)).expect("a string grows");
    }
    out.push_str("\n```mermaid\nstateDiagram-v2\n    [*] --> pending\n");
    for from in S::ALL {
        // Every state may fail or be deleted; drawn, that would hide the rest.
        let drawn = S::ALL.into_iter().filter(|to| *to != from && !matches!(to, S::Error | S::Deleting));
        for to in drawn.filter(|to| S::valid_transition(from, *to)) {
            writeln!(out, "    {} --> {}", from.as_str(), to.as_str()).expect("a string grows");
        }
    }
    out.push_str("    deleted --> [*]\n```\n\nNot drawn: any state but `deleted` may go to `deleting`, and any but `deleting` and `deleted` to `error`.\n");
    out
}

#[test]
fn the_document_is_what_the_function_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/states.md");
    let rendered = render();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &rendered).expect("docs/states.md can be written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == rendered, "docs/states.md is stale: UPDATE_GOLDEN=1 cargo test -p domain, and read the diff");
}
