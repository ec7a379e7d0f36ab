//! Enumerates, so that forgetting is impossible: the walk through all aggregates must commit every kind of op and call every read.

use crate::{fixture::Lab, kinds, plan};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use store::Op;

#[tokio::test(flavor = "multi_thread")]
async fn every_op_on_each_database() {
    for lab in Lab::each().await {
        kinds::identity::walk(&lab).await;
        kinds::catalog::walk(&lab).await;
        kinds::quota::walk(&lab).await;
        kinds::host::walk(&lab).await;
        kinds::image::walk(&lab).await;
        kinds::disk::walk(&lab).await;
        kinds::instance::walk(&lab).await;
        kinds::host_token::walk(&lab).await;
        kinds::placement::walk(&lab).await;
        kinds::placement_record::walk(&lab).await;
        kinds::recovery::walk(&lab).await;
        kinds::network::walk(&lab).await;
        kinds::port::walk(&lab).await;
        kinds::log::walk(&lab).await;
        kinds::log::retention(&lab).await;
        kinds::leak::walk(&lab).await;
        let covered = lab.covered.lock().clone();
        let all: BTreeSet<&str> = Op::NAMES.iter().copied().collect();
        let missing: Vec<&&str> = all.difference(&covered).collect();
        assert!(missing.is_empty(), "ops that no test commits: {missing:?}");
        plan::every_read_finds_its_rows_by_an_index(&lab).await;
    }
}

fn sources(directory: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn every_read_is_called_by_a_test() {
    let text = |directory: &str| -> String {
        sources(directory).iter().map(|path| std::fs::read_to_string(path).expect("UTF-8")).collect()
    };
    let tests = text("tests");
    let source = text("src");
    let reads: Vec<&str> = source
        .split("pub async fn ")
        .skip(1)
        .filter(|rest| rest.contains("(&self") && rest.find("(&self") < rest.find(')'))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .collect();
    assert!(reads.len() > 40, "the reads were not found in the source: {reads:?}");
    let uncalled: Vec<&&str> = reads.iter().filter(|read| !tests.contains(&format!(".{read}("))).collect();
    assert!(uncalled.is_empty(), "reads that no test calls: {uncalled:?}");
}
