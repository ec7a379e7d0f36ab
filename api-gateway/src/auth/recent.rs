//! A bounded map that forgets what wasn't used for longest: two halves, of which the older one is dropped when the younger one is full. What
//! is read moves to the younger half. No entry costs more than two lookups, and nobody can make it grow.

use std::{collections::HashMap, hash::Hash};

pub struct Recent<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    /// Holds at most `max` entries, and at least the last `max / 2` that were used.
    pub fn new(max: usize) -> Self {
        Self { half: (max / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.put(key.clone(), value);
        }
        self.young.get_mut(key)
    }

    pub fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub fn get_or_put(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let known = self.young.remove(&key).or_else(|| self.old.remove(&key));
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(key).or_insert_with(|| known.unwrap_or_else(make))
    }

    pub fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut recent = Recent::new(10);
        recent.put("kept".to_owned(), 0);
        for i in 0..1000 {
            recent.put(i.to_string(), i);
            assert_eq!(recent.get(&"kept".to_owned()).copied(), Some(0), "after {i}");
            assert!(recent.len() <= 10, "{}", recent.len());
        }
        assert_eq!(recent.get(&"3".to_owned()), None);
        assert_eq!(recent.get(&"999".to_owned()).copied(), Some(999));
        recent.remove(&"kept".to_owned());
        assert_eq!(recent.get(&"kept".to_owned()), None);
    }
}
