//! What takes back a half-done change. Steps push their inverse when they are done; a failure takes them off again, last first.

use std::collections::BTreeMap;

/// Inverses by owner, in the order of the steps.
#[derive(Debug)]
pub struct UndoStack<S, T> {
    by_owner: BTreeMap<S, Vec<T>>,
}

impl<S: Ord, T> Default for UndoStack<S, T> {
    fn default() -> Self {
        Self { by_owner: BTreeMap::new() }
    }
}

impl<S: Ord, T> UndoStack<S, T> {
    pub fn push(&mut self, owner: S, inverse: T) {
        self.by_owner.entry(owner).or_default().push(inverse);
    }

    /// The inverses of what was done for `owner`, the last first. It is clean afterwards.
    pub fn take(&mut self, owner: &S) -> Vec<T> {
        let mut inverses = self.by_owner.remove(owner).unwrap_or_default();
        inverses.reverse();
        inverses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_step_is_undone_first_and_only_its_own_subjects() {
        let mut stack = UndoStack::default();
        stack.push("a", 1);
        stack.push("b", 2);
        stack.push("a", 3);
        assert_eq!(stack.take(&"a"), [3, 1]);
        assert_eq!(stack.take(&"a"), [0; 0]);
        assert_eq!(stack.take(&"b"), [2]);
    }
}
