//! Whether the ledger takes what the manager says. Pure.
//!
//! Managers restart, streams are cut, messages are repeated and overtaken, a database may have been restored from a backup. So
//! nothing is taken for being new because it arrived last: the order of (epoch, generation) alone decides. The generation in it is the
//! manager's number of the word to this host, which rises with every word, so what was buried comes back only by a later word: an
//! object may leave this host and return many times under one epoch.

use crate::model::object::Version;

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
    /// Exactly what is held, or the deletion of what is buried: nothing to write, what was observed is reported again.
    Repeat,
    /// Older than what is held, or of an epoch that is over here.
    Refuse { held: Version },
}

#[must_use]
pub fn accept(current: Option<Current>, incoming: Incoming) -> Decision {
    let Some(current) = current else { return Decision::Take };
    if incoming.version > current.version {
        return Decision::Take;
    }
    match (current.buried, incoming.deleted) {
        (false, _) if incoming.version == current.version => Decision::Repeat,
        (false, _) => Decision::Refuse { held: current.version },
        (true, true) => Decision::Repeat,
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

    #[test]
    fn each_case() {
        let live = Some(Current { version: at(2, 5), buried: false });
        let grave = Some(Current { version: at(2, 5), buried: true });
        let word = |epoch, generation, deleted| Incoming { version: at(epoch, generation), deleted };
        let refused = Decision::Refuse { held: at(2, 5) };
        for (current, incoming, expected) in [
            (None, word(1, 1, false), Decision::Take),
            (None, word(1, 1, true), Decision::Take),
            (live, word(2, 6, false), Decision::Take),
            (live, word(3, 1, true), Decision::Take),
            (live, word(2, 5, false), Decision::Repeat),
            (live, word(2, 4, true), refused),
            (live, word(1, 9, false), refused),
            (grave, word(2, 6, false), Decision::Take),
            (grave, word(2, 5, false), refused),
            (grave, word(3, 1, false), Decision::Take),
            (grave, word(2, 6, true), Decision::Take),
            (grave, word(1, 6, true), Decision::Repeat),
        ] {
            assert_eq!(accept(current, incoming), expected, "{current:?} {incoming:?}");
        }
    }

    proptest! {
        #[test]
        fn never_older_and_no_resurrection(words in proptest::collection::vec((1i64..4, 1i64..6, any::<bool>()), 0..24)) {
            let mut held: Option<Current> = None;
            for (epoch, generation, deleted) in words {
                let word = Incoming { version: at(epoch, generation), deleted };
                let before = held;
                if accept(held, word) == Decision::Take {
                    held = Some(Current { version: word.version, buried: deleted });
                }
                let now = held.expect("a first word is taken");
                if let Some(before) = before {
                    prop_assert!(now.version >= before.version);
                    prop_assert!(!before.buried || now.buried || now.version > before.version);
                }
                prop_assert!(accept(held, word) != Decision::Take, "a repeat changes nothing");
            }
        }
    }
}
