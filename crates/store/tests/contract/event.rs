//! Event ids are given in commit order: who remembers the last id it saw misses nothing, whatever the concurrency.

use crate::fixture::{Lab, compute, event};
use domain::ProjectId;
use std::sync::atomic::{AtomicUsize, Ordering};
use store::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_misses_no_event_of_two_writers() {
    const TASKS: usize = 16;
    const EACH: usize = 40;
    for lab in Lab::each().await {
        let other = lab.db.database.open().await;
        let running = AtomicUsize::new(TASKS);
        let writers = futures::future::join_all((0..TASKS).map(|task| {
            let store = if task % 2 == 0 { &lab.db.store } else { &other };
            let running = &running;
            async move {
                for i in 0..EACH {
                    // Some fail after they asked for an id; those must leave no gap that a follower could fall into.
                    if i % 10 == 9 {
                        let failing = Unit::new().op(event(None, task, "never")).op(compute(ProjectId::new(), 1));
                        store.commit(failing).await.expect_err("the project has no quota");
                    }
                    let unit = Unit::new().op(event(None, task, &format!("{i} first"))).op(event(
                        None,
                        task,
                        &format!("{i} second"),
                    ));
                    store.commit(unit).await.expect("commits");
                }
                running.fetch_sub(1, Ordering::SeqCst);
            }
        }));
        let follower = async {
            let mut read = Vec::new();
            loop {
                let done = running.load(Ordering::SeqCst) == 0;
                let after = read.last().map_or(0, |e: &domain::event::Event| e.id);
                let new = lab.event_after(after, None, 50).await.expect("reads");
                let end = done && new.is_empty();
                read.extend(new);
                if end {
                    return read;
                }
                tokio::task::yield_now().await;
            }
        };
        let (_, read) = tokio::join!(writers, follower);
        let ids: Vec<i64> = read.iter().map(|e| e.id).collect();
        let total = i64::try_from(TASKS * EACH * 2).expect("small");
        assert_eq!(ids, (1..=total).collect::<Vec<_>>(), "every id once, in order, without a gap");
        for task in 0..TASKS {
            let notified: Vec<&str> =
                read.iter().filter(|e| e.object_id == task.to_string()).map(|e| e.message.as_str()).collect();
            let expected: Vec<String> = (0..EACH).flat_map(|i| [format!("{i} first"), format!("{i} second")]).collect();
            assert_eq!(notified, expected, "one caller's events are in its order");
        }
        other.close().await;
    }
}
