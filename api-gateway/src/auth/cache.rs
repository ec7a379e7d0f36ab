//! A small map whose entries expire: what lets a request authenticate without a database round trip.
//!
//! A value loaded before an invalidation must not be stored after it, or a revoked right would live on for a whole lifetime of the
//! entry. So whoever loads takes the version first, and the store of a value is refused when the version has moved.

use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

pub struct TtlCache<K, V> {
    ttl: Duration,
    max: usize,
    version: AtomicU64,
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Hash + Eq, V: Clone> TtlCache<K, V> {
    #[must_use]
    pub fn new(ttl: Duration, max: usize) -> Self {
        Self { ttl, max, version: AtomicU64::new(0), entries: Mutex::new(HashMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, (Instant, V)>> {
        // No code panics while holding it, and a map is whole after any operation.
        self.entries.lock()
    }

    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.lock().get(key).filter(|(at, _)| at.elapsed() < self.ttl).map(|(_, value)| value.clone())
    }

    /// The version, which is taken before a value is loaded.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Keeps the value unless something was invalidated since `version` was taken.
    pub fn put(&self, key: K, value: V, version: u64) {
        if self.ttl.is_zero() {
            return;
        }
        let mut entries = self.lock();
        if self.version() != version {
            return;
        }
        if entries.len() >= self.max && !entries.contains_key(&key) {
            entries.retain(|_, (at, _)| at.elapsed() < self.ttl);
            if entries.len() >= self.max {
                entries.clear();
            }
        }
        entries.insert(key, (Instant::now(), value));
    }

    /// Forgets everything: writes that change what is cached are rare.
    pub fn invalidate(&self) {
        let mut entries = self.lock();
        self.version.fetch_add(1, Ordering::AcqRel);
        entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_loaded_before_an_invalidation_is_not_kept() {
        let cache = TtlCache::new(Duration::from_secs(60), 2);
        let version = cache.version();
        cache.put("a".to_owned(), 1, version);
        assert_eq!(cache.get("a"), Some(1));
        let before = cache.version();
        cache.invalidate();
        cache.put("a".to_owned(), 1, before);
        assert_eq!(cache.get("a"), None);
    }

    #[test]
    fn it_stays_bounded() {
        let cache = TtlCache::new(Duration::from_secs(60), 2);
        for i in 0..10 {
            cache.put(i, i, cache.version());
        }
        assert!(cache.lock().len() <= 2);
        assert_eq!(cache.get(&9), Some(9));
    }
}
