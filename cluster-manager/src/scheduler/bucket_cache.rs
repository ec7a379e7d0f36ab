//! The cheapest occupied buckets of a cell for one shape of claim: the candidates that decisions of this shape start from. They are kept
//! up to date as buckets become occupied and empty, so that a decision needn't examine all of them.
//!
//! Invariant: the cache holds exactly the occupied buckets that could hold the shape and whose key isn't above `bound`. A bucket that
//! becomes occupied below the bound is inserted (and pushes the last one out, which lowers the bound), one that empties is taken out, and
//! changes above the bound are ignored. A cache that ran empty before it held every bucket, or whose prices changed, is filled again.

use super::grid::{Bucket, BucketKey, Kind, Shape, bucket_of};

/// Buckets kept. It is small in tests, whose few hosts must reach the end too.
const KEPT: usize = if cfg!(test) { 2 } else { 16 };

#[derive(Debug)]
pub struct BucketCache {
    shape: Shape,
    /// The age of the prices.
    age: u32,
    len: usize,
    keys: [BucketKey; KEPT],
    bound: BucketKey,
}

impl BucketCache {
    /// A cache that must be filled before use.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self { shape, age: 0, len: 0, keys: [0; KEPT], bound: 0 }
    }

    /// The keys, cheapest first.
    #[must_use]
    pub fn keys(&self) -> &[BucketKey] {
        &self.keys[..self.len]
    }

    /// The last key that the cache would hold if its bucket were occupied.
    #[must_use]
    pub fn bound(&self) -> BucketKey {
        self.bound
    }

    #[must_use]
    pub fn must_be_filled(&self, kind: &Kind) -> bool {
        self.age != kind.age() || (self.len == 0 && self.bound != BucketKey::MAX)
    }

    pub fn fill(&mut self, kind: &Kind, occupied: impl Iterator<Item = Bucket>) {
        (self.age, self.len, self.bound) = (kind.age(), 0, BucketKey::MAX);
        occupied.for_each(|bucket| self.bucket_occupied(kind, bucket));
    }

    /// The bucket, empty before, has a host.
    pub fn bucket_occupied(&mut self, kind: &Kind, bucket: Bucket) {
        if self.age != kind.age() || !self.shape.may_fit(bucket) {
            return;
        }
        let key = kind.key(self.shape, bucket);
        if key > self.bound {
            return;
        }
        let at = self.keys().partition_point(|k| *k < key);
        if self.len < KEPT {
            self.len += 1;
        } else if at == KEPT {
            self.bound = self.keys[KEPT - 1];
            return;
        } else {
            self.bound = self.keys[KEPT - 1].saturating_sub(1);
        }
        self.keys.copy_within(at..self.len - 1, at + 1);
        self.keys[at] = key;
    }

    /// The bucket has no host any more.
    pub fn bucket_emptied(&mut self, bucket: Bucket) {
        if let Some(at) = self.keys().iter().position(|key| bucket_of(*key) == bucket) {
            self.keys.copy_within(at + 1..self.len, at);
            self.len -= 1;
        }
    }
}
