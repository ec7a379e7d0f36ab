//! Pools that many share: there are only so many places, and nobody may keep the others out.
//!
//! **Problem.** With one bound for all (1,000 event streams), whoever comes first and stays takes the whole pool, and the others find none.
//! **Rejected:** a fixed share for each. It is too small while nobody else is there, and a few together still take everything.
//!
//! **What holds.** One more place is given only while its taker holds fewer places than are free (the dynamic threshold of Choudhury and
//! Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998, with the factor 1). One alone gets half of the pool, n
//! who take all they can get a share of 1/(n + 1) each, and that much stays free for whoever comes next. A pool may have a fixed bound for each
//! beside that.
//!
//! Who shares is the pool's affair: a project, a user, or the network of a peer. Every pool of the product is named in [`Pool`], so that the
//! metrics show them and a test can try them all.

use parking_lot::Mutex;
use std::{collections::HashMap, hash::Hash, sync::Arc};
use tokio::sync::Notify;

macro_rules! pools {
    ($($(#[$meta:meta])* $name:ident = $label:literal),+ $(,)?) => {
        /// The pools of the product.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Pool { $($(#[$meta])* $name),+ }

        impl Pool {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The label in metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }
        }
    };
}

pools! {
    /// Connections to the API, shared by peers.
    Connections = "connections",
    /// Passwords that are hashed or wait for it, shared by peers.
    PasswordHashes = "password_hashes",
    /// Event streams, shared by users.
    EventStreams = "event_streams",
    /// Requests with `?wait=`, shared by users.
    Waits = "waits",
    /// Console sessions and followed logs, shared by projects.
    Consoles = "consoles",
    /// Uploads of images, shared by projects.
    Uploads = "uploads",
}

/// Why no place was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// The taker holds its share.
    Share,
    /// All places are taken.
    Total,
}

/// Places of one pool, shared by `K`. Clones share them.
pub struct SharedPool<K: Eq + Hash> {
    inner: Arc<Inner<K>>,
}

impl<K: Eq + Hash> Clone for SharedPool<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<K> {
    pool: Pool,
    total: usize,
    /// What one may hold at most, however many are free.
    most: usize,
    taken: Mutex<Taken<K>>,
    released: Notify,
}

struct Taken<K> {
    all: usize,
    /// Only of those who hold one.
    by: HashMap<K, usize>,
}

/// A place in a pool, until it is dropped.
pub struct Place<K: Eq + Hash> {
    inner: Arc<Inner<K>>,
    /// `None`: taken outside the shares.
    taker: Option<K>,
}

impl<K: Eq + Hash + Clone> SharedPool<K> {
    #[must_use]
    pub fn new(pool: Pool, total: usize) -> Self {
        Self::with_most(pool, total, total)
    }

    /// With a bound of what one may hold, however many are free.
    #[must_use]
    pub fn with_most(pool: Pool, total: usize, most: usize) -> Self {
        let taken = Mutex::new(Taken { all: 0, by: HashMap::new() });
        Self { inner: Arc::new(Inner { pool, total, most, taken, released: Notify::new() }) }
    }

    /// A place, if `taker` may have one more.
    pub fn take(&self, taker: K) -> Result<Place<K>, Exhausted> {
        let mut taken = self.inner.taken.lock();
        let free = self.inner.total.saturating_sub(taken.all);
        let held = taken.by.get(&taker).copied().unwrap_or(0);
        let refused = match (free, held) {
            (0, _) => Some(Exhausted::Total),
            (free, held) if held >= free || held >= self.inner.most => Some(Exhausted::Share),
            _ => None,
        };
        if let Some(exhausted) = refused {
            drop(taken);
            return Err(self.refuse(exhausted));
        }
        taken.all += 1;
        *taken.by.entry(taker.clone()).or_insert(0) += 1;
        self.show(taken.all);
        Ok(Place { inner: Arc::clone(&self.inner), taker: Some(taker) })
    }

    /// A place outside the shares: for who stands for many others.
    pub fn take_unshared(&self) -> Result<Place<K>, Exhausted> {
        let mut taken = self.inner.taken.lock();
        if taken.all >= self.inner.total {
            drop(taken);
            return Err(self.refuse(Exhausted::Total));
        }
        taken.all += 1;
        self.show(taken.all);
        Ok(Place { inner: Arc::clone(&self.inner), taker: None })
    }

    /// Waits until a place is free. It may be taken by another then.
    pub async fn vacancy(&self) {
        loop {
            let released = self.inner.released.notified();
            if self.inner.taken.lock().all < self.inner.total {
                return;
            }
            released.await;
        }
    }

    /// How many places are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.inner.taken.lock().all
    }

    #[must_use]
    pub fn total(&self) -> usize {
        self.inner.total
    }

    fn refuse(&self, exhausted: Exhausted) -> Exhausted {
        let bound = match exhausted {
            Exhausted::Share => "share",
            Exhausted::Total => "total",
        };
        metrics::counter!("iaas_pool_refused_total", "pool" => self.inner.pool.as_str(), "bound" => bound).increment(1);
        exhausted
    }
}

impl<K: Eq + Hash> SharedPool<K> {
    fn show(&self, taken: usize) {
        show(self.inner.pool, taken);
    }
}

fn show(pool: Pool, taken: usize) {
    metrics::gauge!("iaas_pool_taken", "pool" => pool.as_str()).set(taken as f64);
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.inner.taken.lock();
        taken.all -= 1;
        if let Some(taker) = &self.taker
            && let Some(held) = taken.by.get_mut(taker)
        {
            *held -= 1;
            if *held == 0 {
                taken.by.remove(taker);
            }
        }
        show(self.inner.pool, taken.all);
        drop(taken);
        self.inner.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hog(pool: &SharedPool<&'static str>, who: &'static str) -> Vec<Place<&'static str>> {
        std::iter::from_fn(|| pool.take(who).ok()).collect()
    }

    #[test]
    fn one_alone_gets_half_and_each_newcomer_finds_a_place() {
        let pool = SharedPool::new(Pool::Waits, 64);
        let mut held = vec![hog(&pool, "a")];
        assert_eq!(held[0].len(), 32);
        for (at, who) in ["b", "c", "d", "e"].into_iter().enumerate() {
            let got = hog(&pool, who);
            assert!(!got.is_empty(), "{who} comes after {} who took all they could", at + 1);
            held.push(got);
            assert!(pool.taken() < 64, "something is left for the next");
        }
        drop(held);
        assert_eq!(pool.taken(), 0);
        assert!(pool.inner.taken.lock().by.is_empty(), "nobody is remembered");
    }

    #[test]
    fn the_smallest_pools_leave_a_place_too() {
        for total in 2..8 {
            let pool = SharedPool::new(Pool::Uploads, total);
            let first = hog(&pool, "a");
            assert!(!first.is_empty() && pool.take("b").is_ok(), "of {total}");
            assert!(matches!(pool.take("a"), Err(Exhausted::Share)), "of {total}");
        }
        let single = SharedPool::new(Pool::Uploads, 1);
        let place = single.take("a").ok();
        assert!(place.is_some());
        assert!(matches!(single.take("b"), Err(Exhausted::Total)));
    }

    #[test]
    fn a_fixed_bound_holds_beside_the_share() {
        let pool = SharedPool::with_most(Pool::Connections, 100, 3);
        assert_eq!(hog(&pool, "a").len(), 3);
        let many: Vec<_> = std::iter::from_fn(|| pool.take_unshared().ok()).collect();
        assert_eq!(many.len(), 100, "who stands for many is bounded by the total alone");
    }

    #[tokio::test]
    async fn whoever_waits_for_a_vacancy_is_woken() {
        let pool = SharedPool::new(Pool::Connections, 1);
        let place = pool.take("a").ok();
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { pool.vacancy().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(place);
        waiting.await.expect("it is woken");
    }
}
