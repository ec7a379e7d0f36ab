//! Maps and sets by id. We make the ids ourselves, most of their bits at random, so a multiplication mixes them well enough; the standard
//! library's hasher, which withstands chosen keys, would be a good part of what a decision costs.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
pub type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

#[derive(Debug, Default)]
pub struct IdHasher(u64);

/// The golden ratio, as in Fibonacci hashing (Knuth, TAOCP 3, 6.4).
const GOLDEN: u128 = 0x9e37_79b9_7f4a_7c15;

impl IdHasher {
    /// Folds both halves of the product, so that the high bits of a word reach the low bits of the hash.
    fn fold(&mut self, word: u64) {
        let product = u128::from(self.0.rotate_left(23) ^ word) * GOLDEN;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_be_bytes(word));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.fold(u64::from(n));
    }

    /// Lengths are left out: those of ids are all the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(GOLDEN as u64);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn ids_in_a_row_spread_over_a_table() {
        let hash = |n: u128| BuildHasherDefault::<IdHasher>::default().hash_one(uuid::Uuid::from_u128(n));
        for step in [1, 1 << 40, 1 << 64, 1 << 100] {
            // The table has 4,096 places; it compares seven bits of the hash first.
            let (mut places, mut tops) = (HashSet::new(), HashSet::new());
            for n in 0..4096 {
                places.insert(hash(n * step) & 4095);
                tops.insert(hash(n * step) >> 57);
            }
            // At random it would be 2,589 places (1 - 1/e), and all 128.
            assert!(places.len() > 2300 && tops.len() > 100, "{step}: {} {}", places.len(), tops.len());
        }
    }
}
