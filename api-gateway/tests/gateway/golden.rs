//! Files in docs/ that are made from the code: they don't drift. `UPDATE_GOLDEN=1` rewrites them.

use api_gateway::http::codes;
use std::{collections::BTreeSet, path::Path};

fn check(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("the directory is made");
        std::fs::write(&file, text).expect("the file is written");
        return;
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == text,
        "{path} isn't what the code says: run UPDATE_GOLDEN=1 cargo test -p api-gateway --test gateway golden"
    );
}

#[test]
fn the_api_description_is_checked_in() {
    let text = api_gateway::v1::routes::openapi_text().expect("it renders");
    assert!(text.contains("\"openapi\": \"3.1"));
    check("docs/api/openapi.json", &text);
}

#[test]
fn the_list_of_error_codes_is_checked_in() {
    check("docs/errors.md", &codes::markdown());
}

/// The string literal that comes next in `text`.
fn next_literal(text: &str) -> Option<&str> {
    let start = text.find('"')? + 1;
    let end = start + text[start..].find('"')?;
    Some(&text[start..end])
}

fn codes_in(source: &str, found: &mut BTreeSet<String>) {
    let word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let code = source.split("#[cfg(test)]").next().unwrap_or("");
    for (marker, is_kind) in [("Problem::new(", false), ("Problem::not_found(", true), ("problem.code = ", false)] {
        for (at, _) in code.match_indices(marker) {
            let rest = &code[at + marker.len()..];
            // The literal must stand before the call's end, else the code is computed.
            let rest = rest.split("\n}").next().unwrap_or_default();
            let Some(literal) = next_literal(&rest[..rest.len().min(200)]) else { continue };
            let text = if is_kind {
                format!("{}_not_found", literal.replace(' ', "_").to_lowercase())
            } else {
                literal.to_owned()
            };
            if word(&text) {
                found.insert(text);
            }
        }
    }
}

fn walk(dir: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("codes.rs") {
            codes_in(&std::fs::read_to_string(&path).expect("a source file"), found);
        }
    }
}

#[test]
fn every_code_that_the_sources_name_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    for part in
        ["api-gateway/src", "cluster-manager/src", "storage-manager/src", "resource-manager/src", "crates/domain/src"]
    {
        walk(&root.join(part), &mut found);
    }
    assert!(found.len() > 40, "the search finds codes: {found:?}");
    let listed: BTreeSet<String> = codes::CODES.iter().map(|c| c.code.to_owned()).collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(missing.is_empty(), "codes without a line in api-gateway/src/http/codes.rs: {missing:?}");
}
