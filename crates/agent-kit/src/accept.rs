//! Whether a ledger takes what a manager says. Pure.
//!
//! Managers restart, streams are cut, messages are repeated and overtaken, a database may have been restored from a backup. So nothing is
//! taken for being new because it arrived last: the order of (epoch, generation) alone decides.
//!
//! What a tombstone ends differs by what a generation counts ([`Revival`]). An instance's generation counts changes of its row, so a
//! deleted instance may return only under a higher epoch. An object of a network gets the number of the message as its generation, which
//! rises with every message to the host, so it returns with any later one: it may leave this host and come back many times under one epoch.
//!
//! Invariants (the property tests below):
//! - What is held never gets older.
//! - A repeat changes nothing.
//! - After a tombstone, nothing of that epoch or an earlier one lives here again, unless a later message brings it
//!   ([`Revival::LaterVersion`] only).
//! - The order in which a set of commands arrives doesn't matter for what is held in the end, as long as none deletes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which revision of an object this is. The order is the fence: a greater one replaces a smaller one, never the other way around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Version {
    pub epoch: i64,
    pub generation: i64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.generation)
    }
}

/// What the ledger holds, as far as the decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    pub version: Version,
    pub tombstone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    pub version: Version,
    pub deleted: bool,
}

/// What an object that has a tombstone returns with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revival {
    /// A higher epoch: the object was given to this host anew.
    HigherEpoch,
    /// Any higher version.
    LaterVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The command is newer: it is written, then done.
    Take,
    /// It deletes what has a tombstone already: the tombstone is raised to this version, and `deleted` is reported for it.
    RaiseTombstone,
    /// It is exactly what is held. Nothing is written; what was observed is reported again.
    Repeat,
    /// It is older than what is held, or of an epoch that is over here.
    Refuse { held: Version },
}

#[must_use]
pub fn accept(current: Option<Current>, incoming: Incoming, revival: Revival) -> Decision {
    let Some(current) = current else { return Decision::Take };
    let newer = incoming.version > current.version;
    match (current.tombstone, incoming.deleted) {
        (false, _) if newer => Decision::Take,
        (false, _) if incoming.version == current.version => Decision::Repeat,
        (false, _) => Decision::Refuse { held: current.version },
        (true, true) if newer => Decision::RaiseTombstone,
        // The first report about our tombstone may have been lost; the tombstone answers older deletions too.
        (true, true) => Decision::Repeat,
        (true, false) => {
            let revived = match revival {
                Revival::HigherEpoch => incoming.version.epoch > current.version.epoch,
                Revival::LaterVersion => newer,
            };
            if revived { Decision::Take } else { Decision::Refuse { held: current.version } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Revival; 2] = [Revival::HigherEpoch, Revival::LaterVersion];

    fn at(epoch: i64, generation: i64) -> Version {
        Version { epoch, generation }
    }

    /// What the ledger holds afterwards; the reconciler writes the tombstone some time after the deletion was taken.
    fn apply(current: Option<Current>, incoming: Incoming, carried_out: bool, revival: Revival) -> Option<Current> {
        match accept(current, incoming, revival) {
            Decision::Take => Some(Current { version: incoming.version, tombstone: incoming.deleted && carried_out }),
            Decision::RaiseTombstone => Some(Current { version: incoming.version, tombstone: true }),
            Decision::Repeat | Decision::Refuse { .. } => current,
        }
    }

    #[test]
    fn each_case() {
        let live = Some(Current { version: at(2, 5), tombstone: false });
        let dead = Some(Current { version: at(2, 5), tombstone: true });
        let command = |epoch, generation, deleted| Incoming { version: at(epoch, generation), deleted };
        let refused = Decision::Refuse { held: at(2, 5) };
        let rows = [
            (None, command(1, 1, false), Decision::Take),
            (None, command(1, 1, true), Decision::Take),
            (live, command(2, 6, false), Decision::Take),
            (live, command(3, 1, false), Decision::Take),
            (live, command(2, 6, true), Decision::Take),
            (live, command(2, 5, false), Decision::Repeat),
            (live, command(2, 4, false), refused),
            (live, command(1, 9, true), refused),
            (dead, command(2, 5, false), refused),
            (dead, command(1, 9, false), refused),
            (dead, command(3, 1, false), Decision::Take),
            (dead, command(2, 6, true), Decision::RaiseTombstone),
            (dead, command(3, 7, true), Decision::RaiseTombstone),
            (dead, command(2, 5, true), Decision::Repeat),
            (dead, command(1, 6, true), Decision::Repeat),
        ];
        for (current, incoming, expected) in rows {
            for revival in BOTH {
                assert_eq!(accept(current, incoming, revival), expected, "{current:?} {incoming:?} {revival:?}");
            }
        }
        // The one difference: a later command of the same epoch.
        assert_eq!(accept(dead, command(2, 6, false), Revival::HigherEpoch), refused);
        assert_eq!(accept(dead, command(2, 6, false), Revival::LaterVersion), Decision::Take);
    }

    fn commands() -> impl Strategy<Value = Vec<(Incoming, bool)>> {
        let command = (1i64..4, 1i64..6, any::<bool>(), any::<bool>())
            .prop_map(|(e, g, deleted, carried_out)| (Incoming { version: at(e, g), deleted }, carried_out));
        proptest::collection::vec(command, 0..24)
    }

    proptest! {
        #[test]
        fn never_older_and_no_resurrection(commands in commands(), later in any::<bool>()) {
            let revival = BOTH[usize::from(later)];
            let mut held: Option<Current> = None;
            for (command, carried_out) in commands {
                let before = held;
                held = apply(held, command, carried_out, revival);
                let now = held.expect("a first command is taken");
                if let Some(before) = before {
                    prop_assert!(now.version >= before.version);
                    let revived = before.tombstone && !now.tombstone;
                    let may = match revival {
                        Revival::HigherEpoch => now.version.epoch > before.version.epoch,
                        Revival::LaterVersion => now.version > before.version,
                    };
                    prop_assert!(!revived || may);
                }
                let again = accept(held, command, revival);
                prop_assert!(!matches!(again, Decision::Take | Decision::RaiseTombstone), "a repeat changes nothing");
            }
        }

        #[test]
        fn the_order_of_arrival_does_not_matter(mut commands in commands(), later in any::<bool>()) {
            let revival = BOTH[usize::from(later)];
            for (command, _) in &mut commands {
                command.deleted = false;
            }
            let hold = |commands: &[(Incoming, bool)]| {
                commands.iter().fold(None, |held, (command, carried_out)| apply(held, *command, *carried_out, revival))
            };
            let forward = hold(&commands);
            commands.reverse();
            prop_assert_eq!(forward, hold(&commands));
        }
    }
}
