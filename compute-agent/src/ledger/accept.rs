//! Whether the ledger takes what a manager says. Pure.
//!
//! Managers restart, streams are cut, messages are repeated and overtaken, a database may have been restored from a backup. So
//! nothing is taken for being new because it arrived last: the order of (epoch, generation) alone decides.
//!
//! Invariants (the property tests below):
//! - what is held never gets older;
//! - a repeat changes nothing;
//! - once an epoch is buried, nothing of that epoch or an earlier one lives here again;
//! - the order in which a set of commands arrives doesn't matter for what is held in the end, as long as none deletes.

use super::entry::Version;

/// What the ledger holds, as far as the decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    pub version: Version,
    pub buried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    pub version: Version,
    pub deleted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Newer: write it, then act.
    Take,
    /// A deletion of what is buried already: raise the tombstone to this version and say `deleted` for it.
    Rebury,
    /// Exactly what is held. Nothing to write; what was observed is reported again.
    Repeat,
    /// Older than what is held, or of an epoch that is over here.
    Refuse { held: Version },
}

#[must_use]
pub fn accept(current: Option<Current>, incoming: Incoming) -> Decision {
    let Some(current) = current else { return Decision::Take };
    let newer = incoming.version > current.version;
    match (current.buried, incoming.deleted) {
        (false, _) if newer => Decision::Take,
        (false, _) if incoming.version == current.version => Decision::Repeat,
        (false, _) => Decision::Refuse { held: current.version },
        (true, true) if newer => Decision::Rebury,
        // The first word of our tombstone may have been lost; the grave serves as the answer to older deletions too.
        (true, true) => Decision::Repeat,
        (true, false) if incoming.version.epoch > current.version.epoch => Decision::Take,
        (true, false) => Decision::Refuse { held: current.version },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(epoch: i64, generation: i64) -> Version {
        Version { epoch, generation }
    }

    /// What the ledger holds afterwards; the reconciler buries a deletion some time after it was taken.
    fn apply(current: Option<Current>, incoming: Incoming, bury: bool) -> Option<Current> {
        match accept(current, incoming) {
            Decision::Take => Some(Current { version: incoming.version, buried: incoming.deleted && bury }),
            Decision::Rebury => Some(Current { version: incoming.version, buried: true }),
            Decision::Repeat | Decision::Refuse { .. } => current,
        }
    }

    #[test]
    fn each_case() {
        let live = Some(Current { version: at(2, 5), buried: false });
        let grave = Some(Current { version: at(2, 5), buried: true });
        let word = |epoch, generation, deleted| Incoming { version: at(epoch, generation), deleted };
        let refused = Decision::Refuse { held: at(2, 5) };
        let rows = [
            (None, word(1, 1, false), Decision::Take),
            (None, word(1, 1, true), Decision::Take),
            (live, word(2, 6, false), Decision::Take),
            (live, word(3, 1, false), Decision::Take),
            (live, word(2, 6, true), Decision::Take),
            (live, word(2, 5, false), Decision::Repeat),
            (live, word(2, 4, false), refused),
            (live, word(1, 9, true), refused),
            (grave, word(2, 6, false), refused),
            (grave, word(1, 9, false), refused),
            (grave, word(3, 1, false), Decision::Take),
            (grave, word(2, 6, true), Decision::Rebury),
            (grave, word(3, 7, true), Decision::Rebury),
            (grave, word(2, 5, true), Decision::Repeat),
            (grave, word(1, 5, true), Decision::Repeat),
        ];
        for (current, incoming, expected) in rows {
            assert_eq!(accept(current, incoming), expected, "{current:?} {incoming:?}");
        }
    }

    fn words() -> impl Strategy<Value = Vec<(Incoming, bool)>> {
        let word = (1i64..4, 1i64..6, any::<bool>(), any::<bool>())
            .prop_map(|(e, g, deleted, bury)| (Incoming { version: at(e, g), deleted }, bury));
        proptest::collection::vec(word, 0..24)
    }

    proptest! {
        #[test]
        fn never_older_and_no_resurrection(words in words()) {
            let mut held: Option<Current> = None;
            for (word, bury) in words {
                let before = held;
                held = apply(held, word, bury);
                let now = held.expect("a first word is taken");
                if let Some(before) = before {
                    prop_assert!(now.version >= before.version);
                    let revived = before.buried && !now.buried;
                    prop_assert!(!revived || now.version.epoch > before.version.epoch);
                }
                prop_assert!(!matches!(accept(held, word), Decision::Take | Decision::Rebury), "a repeat changes nothing");
            }
        }

        #[test]
        fn the_order_of_arrival_does_not_matter(mut words in words()) {
            for (word, _) in &mut words {
                word.deleted = false;
            }
            let hold = |words: &[(Incoming, bool)]| words.iter().fold(None, |held, (word, bury)| apply(held, *word, *bury));
            let forward = hold(&words);
            words.reverse();
            prop_assert_eq!(forward, hold(&words));
        }
    }
}
