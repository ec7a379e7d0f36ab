//! Lines of the audit log that anybody can make by the thousand: refusals, wrong passwords, console tickets.
//!
//! **Problem.** One line and one commit for each lets any user fill the database, and a wrong password of an existing user would take a commit longer
//! than one of a made-up name, which tells who exists. **Rejected:** leaving repeats out, which hides an attack from who reads the log.
//!
//! **What holds.** What repeats within a minute (the same principal, action, object and outcome) is one line with a count. Refusals are
//! written behind the answer by one task: the first at once, and while more come one commit a second. What can't be written waits in
//! memory, which is bounded too: past `LINES_MAX` different lines in a minute, the rest are counted in lines for nobody in particular. A process that is
//! killed loses what it refused in its last second.

use crate::failure::ApiError;
use domain::{AuditId, ProjectId, Timestamp, event::AuditEntry};
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};
use store::{AuditAdd, Store, Unit};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Different lines within a minute.
const LINES_MAX: usize = 10_000;
/// Between two commits while refusals come.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines of one commit.
const BATCH: usize = 500;
/// Who is written when too many principals are refused within a minute.
const OTHERS: &str = "others";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    principal: String,
    project_id: Option<ProjectId>,
    action: String,
    object_id: String,
    outcome: String,
}

impl Key {
    fn of(entry: &AuditEntry) -> Self {
        Self {
            principal: entry.principal.clone(),
            project_id: entry.project_id,
            action: entry.action.clone(),
            object_id: entry.object_id.clone(),
            outcome: entry.outcome.clone(),
        }
    }
}

#[derive(Default)]
struct Minute {
    number: i64,
    /// The first entry of each kind; its count is what isn't written yet.
    lines: HashMap<Key, AuditEntry>,
    /// The entries of past minutes that aren't written yet.
    late: Vec<AuditEntry>,
}

impl Minute {
    /// The line that the entry belongs to.
    fn line(&mut self, entry: AuditEntry) -> &mut AuditEntry {
        let number = entry.at.0.div_euclid(60_000);
        if number != self.number {
            self.number = number;
            let past = self.lines.drain().map(|(_, line)| line).filter(|line| line.count > 0);
            let room = LINES_MAX.saturating_sub(self.late.len());
            self.late.extend(past.take(room));
        }
        let mut key = Key::of(&entry);
        let mut first = AuditEntry { count: 0, ..entry };
        if self.lines.len() >= LINES_MAX && !self.lines.contains_key(&key) {
            first = AuditEntry {
                id: AuditId::new(),
                principal: OTHERS.to_owned(),
                principal_name: OTHERS.to_owned(),
                project_id: None,
                object_id: String::new(),
                detail: "refused in a minute in which too many others were".to_owned(),
                ..first
            };
            key = Key::of(&first);
        }
        self.lines.entry(key).or_insert(first)
    }

    fn take_unwritten(&mut self) -> Vec<AuditEntry> {
        let mut unwritten = std::mem::take(&mut self.late);
        for line in self.lines.values_mut().filter(|line| line.count > 0) {
            unwritten.push(line.clone());
            line.count = 0;
        }
        unwritten
    }
}

pub struct AuditFold {
    store: Store,
    minute: Mutex<Minute>,
    wake: Notify,
}

impl AuditFold {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, minute: Mutex::default(), wake: Notify::new() }
    }

    /// Notes a refusal. It is written soon, by [`Self::run`].
    pub fn refused(&self, entry: AuditEntry) {
        self.minute.lock().line(entry).count += 1;
        self.wake.notify_one();
    }

    /// Writes what must be written before it happens.
    pub async fn write(&self, entry: AuditEntry) -> Result<(), ApiError> {
        let line = {
            let mut minute = self.minute.lock();
            let line = minute.line(entry);
            AuditEntry { count: 1, ..line.clone() }
        };
        Ok(self.store.commit(Unit::new().op(AuditAdd(line))).await?)
    }

    /// Writes refusals until `shutdown`; [`Self::finish`] writes what is left then.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut failing = false;
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = self.wake.notified() => {}
                () = shutdown.cancelled() => {}
            }
            let written = self.flush().await;
            if let Err(error) = &written
                && !failing
            {
                tracing::warn!(problem = %error.problem(), "refusals can't be written to the audit log; it is tried again");
            }
            failing = written.is_err();
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Writes what is left when no more requests come.
    pub async fn finish(&self) {
        if let Err(error) = self.flush().await {
            tracing::warn!(problem = %error.problem(), "the last refusals are missing in the audit log");
        }
    }

    async fn flush(&self) -> Result<(), ApiError> {
        let mut unwritten = self.minute.lock().take_unwritten();
        while !unwritten.is_empty() {
            let rest = unwritten.split_off(unwritten.len().min(BATCH));
            let unit = unwritten.iter().cloned().map(AuditAdd).fold(Unit::new(), Unit::op);
            if let Err(error) = self.store.commit(unit).await {
                let mut minute = self.minute.lock();
                let room = LINES_MAX.saturating_sub(minute.late.len());
                minute.late.extend(unwritten.into_iter().chain(rest).take(room));
                self.wake.notify_one();
                return Err(error.into());
            }
            unwritten = rest;
        }
        Ok(())
    }
}

/// An entry of the log about a session.
#[must_use]
pub fn session_entry(
    user: (domain::UserId, &str),
    action: &str,
    outcome: &str,
    detail: &str,
    request_id: &str,
) -> AuditEntry {
    let (user_id, name) = user;
    AuditEntry {
        id: AuditId::new(),
        at: Timestamp::now(),
        principal: format!("user:{user_id}"),
        principal_name: name.to_owned(),
        project_id: None,
        action: action.to_owned(),
        object_kind: "session".to_owned(),
        object_id: user_id.to_string(),
        request_id: request_id.to_owned(),
        outcome: outcome.to_owned(),
        detail: detail.to_owned(),
        count: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::UserId;

    fn refusal(user: UserId, action: &str, at: i64) -> AuditEntry {
        AuditEntry { at: Timestamp(at), ..session_entry((user, "ann"), action, "denied", "no", "r-1") }
    }

    #[test]
    fn what_repeats_within_a_minute_is_one_line_and_the_next_minute_another() {
        let (mut minute, ann, bob) = (Minute::default(), UserId::new(), UserId::new());
        for at in [0, 1, 59_999] {
            minute.line(refusal(ann, "a", at)).count += 1;
        }
        minute.line(refusal(ann, "b", 5)).count += 1;
        minute.line(refusal(bob, "a", 5)).count += 1;
        let mut counts: Vec<i64> = minute.take_unwritten().iter().map(|line| line.count).collect();
        counts.sort_unstable();
        assert_eq!(counts, [1, 1, 3]);
        assert!(minute.take_unwritten().is_empty(), "written once");
        let first = minute.line(refusal(ann, "a", 59_999)).id;
        minute.line(refusal(ann, "a", 59_999)).count += 1;
        let second = minute.line(refusal(ann, "a", 60_000)).id;
        assert_ne!(first, second);
        let late = minute.take_unwritten();
        assert_eq!(
            late.iter().map(|line| (line.id, line.count)).collect::<Vec<_>>(),
            [(first, 1)],
            "the past one isn't lost"
        );
    }

    #[test]
    fn many_principals_fill_no_memory_and_none_is_left_uncounted() {
        let mut minute = Minute::default();
        for _ in 0..LINES_MAX + 500 {
            minute.line(refusal(UserId::new(), "a", 0)).count += 1;
        }
        let lines = minute.take_unwritten();
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!(lines.iter().map(|line| line.count).sum::<i64>(), LINES_MAX as i64 + 500);
        assert_eq!(lines.iter().find(|line| line.principal == OTHERS).map(|line| line.count), Some(500));
    }
}
