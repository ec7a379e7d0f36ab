//! The connections of reads.
//!
//! sqlx's pool asks each connection whether it is still there, whenever one is given back (and on PostgreSQL before it is taken, too). Here a
//! read is one short statement, so that doubled or tripled the round trips: to the thread of a SQLite connection, to the server of PostgreSQL.
//! These connections are used as they are. What that could overlook is found where it shows: a read on a connection that had waited is repeated on
//! a new one when the old one turns out to be dead, which is harmless because a read changes nothing; one that waited long is asked before; and one whose
//! reader went away in the middle is asked, with its place still taken, before another reader gets it, so that abandoned reads are never more
//! than the connections.

use parking_lot::Mutex;
use sqlx::Connection;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A connection that has waited for longer is asked whether its server is still there.
const WAITED_LONG: Duration = Duration::from_secs(1);

pub(crate) struct Readers<C: Connection> {
    options: C::Options,
    most: u32,
    /// For a place, for a connection, and for the answer of one that has waited.
    timeout: Duration,
    places: Arc<Semaphore>,
    /// The last one that was used is used next, so that those that aren't needed are the ones that wait long.
    idle: Arc<Mutex<Vec<Idle<C>>>>,
}

struct Idle<C> {
    connection: C,
    since: Instant,
}

/// A connection in use, and its place.
pub(crate) struct Taken<C: Connection + 'static> {
    connection: Option<C>,
    place: Option<OwnedSemaphorePermit>,
    idle: Arc<Mutex<Vec<Idle<C>>>>,
    /// It isn't new, so that it may have died since it was used last.
    waited: bool,
}

/// What became of a read.
pub(crate) enum Outcome<T, C: Connection + 'static> {
    Done(sqlx::Result<T>),
    /// It is to be repeated on this connection.
    Again(Taken<C>),
}

impl<C: Connection + 'static> Taken<C> {
    pub(crate) fn connection(&mut self) -> sqlx::Result<&mut C> {
        self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)
    }
}

impl<C: Connection + 'static> Drop for Taken<C> {
    /// Only where a reader went away in the middle.
    fn drop(&mut self) {
        let (Some(mut connection), place) = (self.connection.take(), self.place.take()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let idle = Arc::clone(&self.idle);
        runtime.spawn(async move {
            if connection.ping().await.is_ok() {
                idle.lock().push(Idle { connection, since: Instant::now() });
            }
            drop(place);
        });
    }
}

impl<C: Connection + 'static> Readers<C> {
    pub(crate) fn new(options: C::Options, most: u32, timeout: Duration) -> Self {
        let places = Arc::new(Semaphore::new(most as usize));
        Self { options, most, timeout, places, idle: Arc::default() }
    }

    /// A connection for one read, whose result [`Readers::finish`] is told.
    pub(crate) async fn take(&self) -> sqlx::Result<Taken<C>> {
        let place = async { Arc::clone(&self.places).acquire_owned().await.map_err(|_| sqlx::Error::PoolClosed) };
        let place = self.within(place).await?;
        loop {
            let found = self.idle.lock().pop();
            let Some(Idle { mut connection, since }) = found else { return self.connect(place).await };
            if since.elapsed() < WAITED_LONG || self.within(connection.ping()).await.is_ok() {
                let idle = Arc::clone(&self.idle);
                return Ok(Taken { connection: Some(connection), place: Some(place), idle, waited: true });
            }
        }
    }

    pub(crate) async fn finish<T>(&self, mut taken: Taken<C>, result: sqlx::Result<T>) -> Outcome<T, C> {
        let (Some(connection), Some(place)) = (taken.connection.take(), taken.place.take()) else {
            return Outcome::Done(result);
        };
        match result {
            Err(error) if is_dead(&error) => {
                drop(connection);
                if !taken.waited {
                    return Outcome::Done(Err(error));
                }
                // The others that wait died with it, most likely.
                self.idle.lock().clear();
                self.connect(place).await.map_or_else(|error| Outcome::Done(Err(error)), Outcome::Again)
            }
            done => {
                self.idle.lock().push(Idle { connection, since: Instant::now() });
                Outcome::Done(done)
            }
        }
    }

    async fn connect(&self, place: OwnedSemaphorePermit) -> sqlx::Result<Taken<C>> {
        let connection = self.within(C::connect_with(&self.options)).await?;
        Ok(Taken { connection: Some(connection), place: Some(place), idle: Arc::clone(&self.idle), waited: false })
    }

    async fn within<T>(&self, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        tokio::time::timeout(self.timeout, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Waits for the reads that run, refuses others, and closes all connections.
    pub(crate) async fn close(&self) {
        let all = self.places.acquire_many(self.most).await;
        self.places.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        for Idle { connection, .. } in idle {
            if let Err(error) = connection.close().await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection wasn't closed in order");
            }
        }
        drop(all);
    }
}

/// The connection is of no use any more, whatever is asked of it.
fn is_dead(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Database(database) = error {
        // Of PostgreSQL: connection exceptions, and a server that is told to stop, or was made to end the session.
        return database
            .code()
            .is_some_and(|code| code.len() == 5 && (code.starts_with("08") || code.starts_with("57P")));
    }
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{SqliteConnection, sqlite::SqliteConnectOptions};

    fn readers(most: u32) -> Readers<SqliteConnection> {
        Readers::new(SqliteConnectOptions::new().in_memory(true), most, Duration::from_secs(5))
    }

    async fn one(readers: &Readers<SqliteConnection>) -> sqlx::Result<i64> {
        let mut taken = readers.take().await?;
        let read = sqlx::query_scalar("SELECT 1").fetch_one(taken.connection()?).await;
        match readers.finish(taken, read).await {
            Outcome::Done(done) => done,
            Outcome::Again(_) => Err(sqlx::Error::WorkerCrashed),
        }
    }

    fn died() -> sqlx::Result<i64> {
        Err(sqlx::Error::WorkerCrashed)
    }

    #[tokio::test]
    async fn a_dead_connection_that_had_waited_is_replaced_once_and_a_new_one_is_not() {
        let readers = readers(1);
        let new = readers.take().await.expect("new");
        assert!(matches!(readers.finish(new, died()).await, Outcome::Done(Err(_))), "a new one that dies is told");
        assert_eq!(one(&readers).await.expect("read"), 1);
        let waited = readers.take().await.expect("one that waited");
        let Outcome::Again(again) = readers.finish(waited, died()).await else { panic!("it is repeated") };
        assert!(matches!(readers.finish(again, died()).await, Outcome::Done(Err(_))), "once");
        assert_eq!(one(&readers).await.expect("read"), 1, "no place was lost");
    }

    #[tokio::test]
    async fn a_statement_that_fails_costs_no_connection_and_no_place() {
        let readers = readers(1);
        for _ in 0..3 {
            let taken = readers.take().await.expect("taken");
            assert!(matches!(
                readers.finish(taken, Err::<i64, _>(sqlx::Error::RowNotFound)).await,
                Outcome::Done(Err(_))
            ));
            assert_eq!(readers.idle.lock().len(), 1);
        }
        assert_eq!(one(&readers).await.expect("read"), 1);
    }

    #[tokio::test]
    async fn readers_that_go_away_are_never_more_than_the_connections() {
        let readers = readers(1);
        let gone = readers.take().await.expect("taken");
        let next = one(&readers);
        tokio::pin!(next);
        assert!(futures::poll!(&mut next).is_pending(), "the place is taken");
        drop(gone);
        assert!(futures::poll!(&mut next).is_pending(), "until the connection has answered");
        assert_eq!(next.await.expect("read"), 1);
        assert_eq!((readers.places.available_permits(), readers.idle.lock().len()), (1, 1), "by the same connection");
        readers.close().await;
        assert!(matches!(one(&readers).await, Err(sqlx::Error::PoolClosed)));
    }
}
