//! The writer: takes what is queued, merges it, commits once, answers all.
//!
//! It never lingers for more: while one batch is in its fsync the next one gathers by itself. A batch that fails through one of its units
//! is rolled back and halved inside one transaction, each half under a savepoint, until the failing ones stand alone: the others pay a
//! logarithm, not a transaction each. A database that is away makes the batch wait and try again until its units' deadlines pass. When
//! the connection is lost between COMMIT and its answer, the batch is *resolved* (did that transaction commit?) before anything else.

use super::{
    Constraint, Counters,
    error::{Cause, CommitError, DatabaseError, Failure},
    term::Term,
    unit::{Class, EVENT_KIND, KINDS, Prepared},
};
use crate::ManagerRole;
use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    future::Future,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// A unit that waits for its commit.
#[derive(Debug)]
pub(crate) struct Job {
    pub unit: Prepared,
    pub deadline: Instant,
    pub answer: oneshot::Sender<Result<(), CommitError>>,
    /// Of a manager: the unit stands only if this term of its role still does.
    pub term: Option<Arc<Term>>,
}

impl Job {
    fn role(&self) -> Option<ManagerRole> {
        self.term.as_ref().map(|term| term.role)
    }

    /// Whether its term is none of those that stand now.
    fn fallen(&self, standing: &[(ManagerRole, i64)]) -> bool {
        self.term.as_ref().is_some_and(|term| !standing.contains(&(term.role, term.number)))
    }
}

#[derive(Debug)]
pub(crate) enum Request {
    Commit(Job),
    Ping(oneshot::Sender<Result<(), Cause>>),
    Close(oneshot::Sender<()>),
}

/// The terms of the managers' roles as they are in a transaction.
pub(crate) type StandingTerms = Vec<(ManagerRole, i64)>;

/// One connection that writes. What it does is the same on both databases; how isn't.
pub(crate) trait Session: Send {
    /// Begins a transaction; says which terms these roles have, and keeps them from being raised until its end.
    fn begin(&mut self, roles: &[ManagerRole]) -> impl Future<Output = Result<StandingTerms, Failure>> + Send;
    fn savepoint(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
    fn release(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
    fn undo_to_savepoint(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Runs a kind's statements with a JSON array of its rows; the number of rows that its main statement changed.
    fn run(&mut self, kind: usize, rows: &str) -> impl Future<Output = Result<u64, Failure>> + Send;
    /// Takes `count` event ids, under the lock that orders commits; the last of them.
    fn event_ids(&mut self, count: i64) -> impl Future<Output = Result<i64, Failure>> + Send;
    /// `Unknown` when the answer was lost; then [`Session::resolve`] says whether it committed.
    fn commit(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
    fn rollback(&mut self) -> impl Future<Output = ()> + Send;
    /// Whether the disk has room for what is new.
    fn takes_new(&mut self) -> bool;
    /// Frees a part of the room that is reserved for the rest. False: nothing is left.
    fn release_reserve(&mut self) -> bool;
    fn resolve(&mut self) -> impl Future<Output = Result<bool, Failure>> + Send;
    fn pause(&mut self, time: Duration) -> impl Future<Output = ()> + Send;
    /// The last call: leaves the database tidy.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
}

pub(crate) struct Writer<S> {
    pub session: S,
    pub queue: mpsc::Receiver<Request>,
    pub counters: Arc<Counters>,
    pub events: watch::Sender<i64>,
    pub batch_max: usize,
    pub commit_wait: Duration,
    /// When something new was last refused for room, unless something new was committed since.
    pub refused_full_at: Option<Instant>,
}

/// So long after a refusal for room the disk counts as full. A database that has no reserve knows it by refusals alone, and a write of a few
/// bytes proves nothing.
const FULL_SAID: Duration = Duration::from_secs(10);

/// What became of each unit of a batch, in order.
type Outcomes = Vec<Result<(), Failure>>;

enum Attempt {
    Done(Outcomes),
    /// Some units are of terms that are over. Nothing was written.
    Fallen(StandingTerms),
    /// The transaction's end is unknown; the rest holds if it committed.
    Unknown {
        outcomes: Outcomes,
        last_event: Option<i64>,
        cause: Cause,
    },
}

impl<S: Session> Writer<S> {
    /// Runs until the store is closed or its last handle dropped, and all that was queued is answered.
    pub(crate) async fn run(mut self) {
        let mut waiting: VecDeque<Job> = VecDeque::new();
        let mut closing = Vec::new();
        loop {
            if waiting.is_empty() {
                match self.queue.recv().await {
                    Some(request) => self.admit(request, &mut waiting, &mut closing).await,
                    None => break,
                }
            }
            // Look further than one batch, so that units that can't share one don't shorten it.
            while waiting.len() < self.batch_max * 4 {
                match self.queue.try_recv() {
                    Ok(request) => self.admit(request, &mut waiting, &mut closing).await,
                    Err(_) => break,
                }
            }
            let batch = take_batch(&mut waiting, self.batch_max);
            if !batch.is_empty() {
                self.process(batch).await;
            }
        }
        self.session.finish().await;
        for answer in closing {
            let _ = answer.send(());
        }
    }

    async fn admit(&mut self, request: Request, waiting: &mut VecDeque<Job>, closing: &mut Vec<oneshot::Sender<()>>) {
        match request {
            Request::Commit(job) => waiting.push_back(job),
            Request::Ping(answer) => {
                let result = self.write_nothing().await;
                if result.is_err() {
                    self.session.rollback().await;
                }
                let mut result = result.map_err(Failure::into_cause);
                let refused = self.refused_full_at.is_some_and(|at| at.elapsed() < FULL_SAID);
                if result.is_ok() && (refused || !self.session.takes_new()) {
                    result = Err(Arc::new(DatabaseError::DiskFull));
                }
                let _ = answer.send(result);
            }
            Request::Close(answer) => {
                // What was sent before stays readable; then `recv` says that it is over.
                self.queue.close();
                closing.push(answer);
            }
        }
    }

    /// A transaction that changes nothing and yet is written: it needs the lock, the room and the flush that any commit needs.
    async fn write_nothing(&mut self) -> Result<(), Failure> {
        self.session.begin(&[]).await?;
        self.session.event_ids(0).await?;
        self.session.commit().await
    }

    /// Answers every unit of the batch.
    async fn process(&mut self, mut batch: Vec<Job>) {
        let mut backoff = Backoff::default();
        let mut last: Option<Cause> = None;
        loop {
            self.answer_expired(&mut batch, last.as_ref());
            self.refuse_terms(&mut batch, |job| job.term.as_ref().is_some_and(|term| !term.holds()));
            if !self.session.takes_new() {
                self.refuse_new(&mut batch, &Arc::new(DatabaseError::DiskFull));
            }
            if batch.is_empty() {
                return;
            }
            let started = Instant::now();
            let failure = match self.attempt(&batch).await {
                Ok(Attempt::Done(outcomes)) => {
                    metrics::histogram!("iaas_store_commit_seconds").record(started.elapsed().as_secs_f64());
                    backoff.over();
                    if self.refused_full_at.is_some() && batch.iter().any(|job| job.unit.makes_new()) {
                        self.refused_full_at = None;
                    }
                    return self.answer(batch, outcomes);
                }
                Ok(Attempt::Fallen(standing)) => {
                    self.refuse_terms(&mut batch, |job| job.fallen(&standing));
                    continue;
                }
                Ok(Attempt::Unknown { outcomes, last_event, cause }) => {
                    match self.resolve(&mut backoff, batch.last().map(|job| job.deadline)).await {
                        Ok(true) => {
                            self.committed(last_event);
                            backoff.over();
                            return self.answer(batch, outcomes);
                        }
                        Ok(false) => Failure::Away(cause),
                        Err(failure) => {
                            let outcomes = batch.iter().map(|_| Err(failure.clone())).collect();
                            return self.answer(batch, outcomes);
                        }
                    }
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Conflict(cause) => {
                    last = Some(cause);
                    self.session.pause(Duration::from_millis(5)).await;
                }
                Failure::Away(cause) => {
                    let pause = backoff.next(&cause);
                    last = Some(cause);
                    self.session.pause(pause).await;
                }
                Failure::Full(cause) => {
                    self.refused_full_at = Some(Instant::now());
                    self.refuse_new(&mut batch, &cause);
                    if !self.session.release_reserve() {
                        let outcomes = batch.iter().map(|_| Err(Failure::Full(cause.clone()))).collect();
                        return self.answer(batch, outcomes);
                    }
                }
                failure @ (Failure::Refused(_)
                | Failure::Unknown(_)
                | Failure::Constraint(_)
                | Failure::Guard(_)
                | Failure::Internal(_)) => {
                    let outcomes = batch.iter().map(|_| Err(failure.clone())).collect();
                    return self.answer(batch, outcomes);
                }
            }
        }
    }

    /// Answers those that make something new: the disk is full.
    fn refuse_new(&self, batch: &mut Vec<Job>, cause: &Cause) {
        for job in batch.extract_if(.., |job| job.unit.makes_new()) {
            self.counters.units.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("iaas_store_refused_full_total").increment(1);
            let _ = job.answer.send(Err(CommitError::Unavailable(cause.clone())));
        }
    }

    /// Answers those whose term is over, and ends it for its holder.
    fn refuse_terms(&self, batch: &mut Vec<Job>, over: impl Fn(&Job) -> bool) {
        for job in batch.extract_if(.., |job| over(job)) {
            let Some(term) = &job.term else { continue };
            term.end();
            self.counters.units.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("iaas_store_refused_term_total").increment(1);
            let _ = job.answer.send(Err(term.not_leader()));
        }
    }

    /// Whether the transaction whose COMMIT wasn't answered committed.
    async fn resolve(&mut self, backoff: &mut Backoff, deadline: Option<Instant>) -> Result<bool, Failure> {
        loop {
            match self.session.resolve().await {
                Ok(committed) => return Ok(committed),
                Err(Failure::Away(cause)) if deadline.is_some_and(|d| Instant::now() < d) => {
                    let pause = backoff.next(&cause);
                    self.session.pause(pause).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// One transaction. An error means that nothing of it stands.
    async fn attempt(&mut self, batch: &[Job]) -> Result<Attempt, Failure> {
        let attempt = self.attempt_inner(batch).await;
        if attempt.is_err() {
            self.session.rollback().await;
        }
        attempt
    }

    async fn attempt_inner(&mut self, batch: &[Job]) -> Result<Attempt, Failure> {
        let roles: Vec<ManagerRole> = batch.iter().filter_map(Job::role).collect::<BTreeSet<_>>().into_iter().collect();
        let standing = self.session.begin(&roles).await?;
        if batch.iter().any(|job| job.fallen(&standing)) {
            self.session.rollback().await;
            return Ok(Attempt::Fallen(standing));
        }
        let mut outcomes: Outcomes = batch.iter().map(|_| Ok(())).collect();
        match self.apply(batch).await {
            Ok(()) => {}
            Err(failure) if failure.has_failing_unit() => {
                self.session.rollback().await;
                if batch.len() == 1 {
                    outcomes[0] = Err(failure);
                    return Ok(Attempt::Done(outcomes));
                }
                self.counters.batch_reruns.fetch_add(1, Ordering::Relaxed);
                metrics::counter!("iaas_store_batch_reruns_total").increment(1);
                let standing = self.session.begin(&roles).await?;
                if batch.iter().any(|job| job.fallen(&standing)) {
                    self.session.rollback().await;
                    return Ok(Attempt::Fallen(standing));
                }
                self.apply_halved(batch, &mut outcomes).await?;
                if outcomes.iter().all(Result::is_err) {
                    self.session.rollback().await;
                    return Ok(Attempt::Done(outcomes));
                }
            }
            Err(failure) => return Err(failure),
        }
        let last_event = self.append_events(batch, &outcomes).await?;
        match self.session.commit().await {
            Ok(()) => {}
            Err(Failure::Unknown(cause)) => return Ok(Attempt::Unknown { outcomes, last_event, cause }),
            Err(failure) => return Err(failure),
        }
        self.committed(last_event);
        Ok(Attempt::Done(outcomes))
    }

    fn committed(&self, last_event: Option<i64>) {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("iaas_store_commits_total").increment(1);
        if let Some(id) = last_event {
            self.events.send_replace(id);
        }
    }

    /// All but the events, in the order of kinds.
    async fn apply(&mut self, batch: &[Job]) -> Result<(), Failure> {
        for statement in merge(batch) {
            let kind = &KINDS[statement.kind];
            let changed = match self.session.run(statement.kind, &statement.rows).await {
                Ok(changed) => changed,
                // A child row forbids a guarded change when the guard's own test was lost to a concurrent transaction.
                Err(Failure::Constraint(Constraint::ForeignKey(_) | Constraint::ChildExists))
                    if kind.class == Class::Change =>
                {
                    return Err(kind.guard.map_or(Failure::Constraint(Constraint::ChildExists), Failure::Guard));
                }
                Err(failure) => return Err(failure),
            };
            if let Some(guard) = kind.guard
                && changed < statement.named
            {
                return Err(Failure::Guard(guard));
            }
        }
        Ok(())
    }

    /// Applies the units that can be, keeping order, and says of the others why not.
    async fn apply_halved(&mut self, batch: &[Job], outcomes: &mut Outcomes) -> Result<(), Failure> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let halve = |range: Range<usize>, ranges: &mut Vec<Range<usize>>| {
            let middle = range.start + range.len() / 2;
            ranges.push(middle..range.end);
            ranges.push(range.start..middle);
        };
        halve(0..batch.len(), &mut ranges);
        while let Some(range) = ranges.pop() {
            self.session.savepoint().await?;
            match self.apply(&batch[range.clone()]).await {
                Ok(()) => self.session.release().await?,
                Err(failure) if failure.has_failing_unit() => {
                    self.session.undo_to_savepoint().await?;
                    if range.len() == 1 {
                        outcomes[range.start] = Err(failure);
                    } else {
                        halve(range, &mut ranges);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// The events of the units that stand, with their ids; the last one.
    async fn append_events(&mut self, batch: &[Job], outcomes: &Outcomes) -> Result<Option<i64>, Failure> {
        let events: Vec<&str> = batch
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| outcome.is_ok())
            .flat_map(|(job, _)| job.unit.rows())
            .filter(|row| row.kind == EVENT_KIND)
            .map(|row| row.json)
            .collect();
        let Ok(count) = i64::try_from(events.len()) else { return Ok(None) };
        if count == 0 {
            return Ok(None);
        }
        let last = self.session.event_ids(count).await?;
        let mut rows = String::with_capacity(events.iter().map(|e| e.len() + 32).sum());
        for (id, event) in (last - count + 1..).zip(events) {
            rows.push(if rows.is_empty() { '[' } else { ',' });
            // A row is a JSON object with at least one member: its id goes first.
            rows.push_str("{\"id\":");
            rows.push_str(&id.to_string());
            rows.push(',');
            rows.push_str(&event[1..]);
        }
        rows.push(']');
        self.session.run(EVENT_KIND, &rows).await?;
        Ok(Some(last))
    }

    fn answer(&self, batch: Vec<Job>, outcomes: Outcomes) {
        let units = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.counters.units.fetch_add(units, Ordering::Relaxed);
        metrics::counter!("iaas_store_units_total").increment(units);
        for (job, outcome) in batch.into_iter().zip(outcomes) {
            // A caller that stopped waiting is no reason to stop.
            let _ = job.answer.send(outcome.map_err(Failure::into_commit_error));
        }
    }

    fn answer_expired(&self, batch: &mut Vec<Job>, cause: Option<&Cause>) {
        let now = Instant::now();
        for job in batch.extract_if(.., |job| job.deadline <= now) {
            self.counters.units.fetch_add(1, Ordering::Relaxed);
            let waited: Cause = Arc::new(DatabaseError::WaitedTooLong(self.commit_wait.as_secs()));
            let cause = cause.cloned().unwrap_or(waited);
            let _ = job.answer.send(Err(CommitError::Unavailable(cause)));
        }
    }
}

/// Waits longer each time, and says when an outage begins and ends.
#[derive(Default)]
struct Backoff {
    times: u32,
    since: Option<Instant>,
}

impl Backoff {
    fn next(&mut self, cause: &Cause) -> Duration {
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(error = %cause, "the database is not available; commits wait");
        }
        self.times += 1;
        Duration::from_millis(20 << self.times.min(5)).min(Duration::from_millis(500))
    }

    fn over(&mut self) {
        if let Some(since) = self.since.take() {
            tracing::info!(outage_ms = since.elapsed().as_millis(), "the database is available again");
        }
    }
}

/// The next batch: in order of arrival, leaving for later what names a row that an earlier unit names.
fn take_batch(waiting: &mut VecDeque<Job>, max: usize) -> Vec<Job> {
    let mut batch = Vec::with_capacity(max.min(waiting.len()));
    let mut named: HashSet<u64> = HashSet::new();
    let mut later = VecDeque::new();
    while batch.len() < max {
        let Some(job) = waiting.pop_front() else { break };
        // A unit left for later holds back those behind it that name its rows: order per row is kept.
        let free = job.unit.exclusive_targets().all(|target| !named.contains(&target));
        named.extend(job.unit.exclusive_targets());
        if free {
            batch.push(job);
        } else {
            later.push_back(job);
        }
    }
    later.append(waiting);
    *waiting = later;
    batch
}

/// One statement over the rows of one kind.
struct Statement {
    kind: usize,
    rows: String,
    /// How many rows it names.
    named: u64,
}

/// The rows of all units, all kinds but events, in the order of kinds. Changes and sums are sorted by the row they name, so that
/// processes that share a PostgreSQL take its locks in one order.
fn merge(batch: &[Job]) -> Vec<Statement> {
    let mut by_kind: Vec<Vec<(u64, &str)>> = Vec::new();
    by_kind.resize_with(KINDS.len(), Vec::new);
    for row in batch.iter().flat_map(|job| job.unit.rows()).filter(|row| row.kind != EVENT_KIND) {
        by_kind[row.kind].push((row.target, row.json));
    }
    let mut statements = Vec::new();
    for (kind, mut rows) in by_kind.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let class = KINDS[kind].class;
        if class != Class::Insert {
            rows.sort_unstable_by_key(|(target, _)| *target);
        }
        let named = match class {
            Class::Insert | Class::Change => rows.len(),
            Class::Add => rows.chunk_by(|a, b| a.0 == b.0).count(),
        };
        let mut json = String::with_capacity(rows.iter().map(|(_, row)| row.len() + 1).sum::<usize>() + 1);
        for (_, row) in rows {
            json.push(if json.is_empty() { '[' } else { ',' });
            json.push_str(row);
        }
        json.push(']');
        statements.push(Statement { kind, rows: json, named: u64::try_from(named).unwrap_or(u64::MAX) });
    }
    statements
}
