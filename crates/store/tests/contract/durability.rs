//! `kill -9` at any moment: what was answered is there after it, and what is there is whole.

use crate::fixture::{Lab, T0, event, name};
use domain::ProjectId;
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};
use store::*;

const CHILD: &str = "IAAS_STORE_TEST_CHILD";

/// As the child: commits for ever, and says each name after its commit was answered.
async fn commit_for_ever(url: String) {
    let store = Store::open(&StoreConfig::new(url)).await.expect("opens");
    let tasks = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0u64.. {
                let called = format!("p-{task}-{i}");
                let id = ProjectId::new();
                let project = ProjectInsert { id, name: name(&called), description: String::new(), created_at: T0 };
                let unit = Unit::new().op(project).op(event(None, id, &called));
                store.commit(unit).await.expect("commits");
                println!("done {called}");
            }
        })
    });
    futures::future::join_all(tasks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_kill() {
    if let Ok(url) = std::env::var(CHILD) {
        return commit_for_ever(url).await;
    }
    for lab in Lab::each().await {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["durability::what_was_answered_survives_kill", "--exact", "--nocapture"])
            .env(CHILD, &lab.db.database.config.url)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut answered = Vec::new();
        for line in lines {
            if let Some((_, called)) = line.split_once("done ") {
                answered.push(called.to_owned());
            }
            if answered.len() == 200 {
                child.kill().expect("it was running");
            }
        }
        child.wait().expect("it ended");
        assert!(answered.len() >= 200, "the child ended by itself");
        for called in &answered {
            assert!(lab.project_find_by_name(called).await.unwrap().is_some(), "{called} was answered");
        }
        let projects = lab.project_list(Page::first(100_000)).await.unwrap();
        let (_, newest) = lab.event_head().await.unwrap();
        assert_eq!(i64::try_from(projects.len()).unwrap(), newest, "each unit is there whole or not at all");
    }
}
