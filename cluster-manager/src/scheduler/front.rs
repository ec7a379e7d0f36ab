//! The cheapest occupied buckets of a cell for one shape of claim: the candidate set that decisions of this shape start from, kept up
//! to date as buckets become occupied and empty, so that a decision needn't look at all of them.
//!
//! Invariant: the front holds exactly the occupied buckets that could hold the shape and whose key isn't above `bound`. What comes
//! in below the bound is inserted (and pushes the last one out, which lowers the bound), what empties is taken out, what happens above
//! concerns nobody. Empty before everything was in it, or priced anew: it is filled again.

use super::grid::{Bucket, Kind, Shape};

/// Buckets kept. Tests with their few hosts come to the end too.
const KEPT: usize = if cfg!(test) { 2 } else { 16 };

/// What a bucket costs, then its number: buckets in order of their keys are in order of preference.
pub type Key = u64;

#[must_use]
pub fn bucket_of(key: Key) -> Bucket {
    key as Bucket
}

#[derive(Debug)]
pub struct Front {
    shape: Shape,
    /// Of the prices.
    age: u32,
    len: usize,
    keys: [Key; KEPT],
    bound: Key,
}

impl Front {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self { shape, age: 0, len: 0, keys: [0; KEPT], bound: 0 }
    }

    /// Cheapest first.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys[..self.len]
    }

    /// The last key that the front would hold, were it occupied.
    #[must_use]
    pub fn bound(&self) -> Key {
        self.bound
    }

    #[must_use]
    pub fn must_be_filled(&self, kind: &Kind) -> bool {
        self.age != kind.age() || (self.len == 0 && self.bound != Key::MAX)
    }

    pub fn fill(&mut self, kind: &Kind, occupied: impl Iterator<Item = Bucket>) {
        (self.age, self.len, self.bound) = (kind.age(), 0, Key::MAX);
        occupied.for_each(|bucket| self.came(kind, bucket));
    }

    /// The bucket, empty before, has a host.
    pub fn came(&mut self, kind: &Kind, bucket: Bucket) {
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

    /// The bucket is empty.
    pub fn went(&mut self, bucket: Bucket) {
        if let Some(at) = self.keys().iter().position(|key| bucket_of(*key) == bucket) {
            self.keys.copy_within(at + 1..self.len, at);
            self.len -= 1;
        }
    }
}
