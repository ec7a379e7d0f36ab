//! What requests tell hosts apart by: each tag and CPU feature that a request ever named gets a bit, and hosts are kept apart in the
//! index only by these bits. A cloud whose every host has a tag of its own, that nobody asks for, stays one cell.

use super::{host::HostEntry, request::Request};

/// Bits. Past them a request's further wishes are checked host by host.
const MOST: usize = 128;
/// Wishes remembered that no host fulfills.
const ABSENT_MOST: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Atom {
    Tag(String, String),
    Feature(String),
}

impl Atom {
    #[must_use]
    pub fn holds(&self, host: &HostEntry) -> bool {
        match self {
            Self::Tag(key, value) => host.tags.get(key) == Some(value),
            Self::Feature(feature) => host.cpu_features.contains(feature),
        }
    }
}

/// A wish by reference: looking one up allocates nothing.
#[derive(Debug, Clone, Copy)]
pub enum Wish<'a> {
    Tag(&'a str, &'a str),
    Feature(&'a str),
}

impl Wish<'_> {
    fn is(self, atom: &Atom) -> bool {
        match (self, atom) {
            (Wish::Tag(key, value), Atom::Tag(k, v)) => key == k && value == v,
            (Wish::Feature(feature), Atom::Feature(f)) => feature == f,
            (Wish::Tag(..), Atom::Feature(_)) | (Wish::Feature(_), Atom::Tag(..)) => false,
        }
    }

    #[must_use]
    pub fn to_atom(self) -> Atom {
        match self {
            Wish::Tag(key, value) => Atom::Tag(key.to_owned(), value.to_owned()),
            Wish::Feature(feature) => Atom::Feature(feature.to_owned()),
        }
    }
}

/// What a request asks of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    pub needs: u128,
    pub forbids: u128,
    /// Which of the needs are tags.
    pub tags: u128,
    /// No host has something that is needed.
    pub hopeless: bool,
    /// Not all fitted into the bits: check each host.
    pub rest: bool,
}

#[derive(Debug, Default)]
pub struct Atoms {
    known: Vec<Atom>,
    absent: Vec<Atom>,
}

/// Where a wish stands.
pub enum Standing {
    Bit(u128),
    Absent,
    Unknown,
}

impl Atoms {
    #[must_use]
    pub fn of(&self, host: &HostEntry) -> u128 {
        self.known.iter().enumerate().filter(|(_, atom)| atom.holds(host)).fold(0, |bits, (at, _)| bits | 1 << at)
    }

    #[must_use]
    pub fn find(&self, wish: Wish<'_>) -> Standing {
        if let Some(at) = self.known.iter().position(|atom| wish.is(atom)) {
            Standing::Bit(1 << at)
        } else if self.absent.iter().any(|atom| wish.is(atom)) {
            Standing::Absent
        } else {
            Standing::Unknown
        }
    }

    /// A wish is met for the first time. A new bit: all hosts must be looked at again. Still unknown: there is no bit left.
    pub fn learn<'h>(&mut self, wish: Wish<'_>, mut hosts: impl Iterator<Item = &'h HostEntry>) -> Standing {
        let atom = wish.to_atom();
        if !hosts.any(|host| atom.holds(host)) {
            if self.absent.len() >= ABSENT_MOST {
                self.absent.clear();
            }
            self.absent.push(atom);
            return Standing::Absent;
        }
        if self.known.len() >= MOST {
            return Standing::Unknown;
        }
        self.known.push(atom);
        Standing::Bit(1 << (self.known.len() - 1))
    }

    /// A host came or changed its tags: what no host had, one may have now.
    pub fn hosts_changed(&mut self) {
        self.absent.clear();
    }
}

/// All wishes of a request, and whether each is a need (or else forbidden).
pub fn wishes(request: &Request) -> impl Iterator<Item = (Wish<'_>, bool)> {
    let tags = request.tags.iter().map(|(k, v)| (Wish::Tag(k, v), true));
    let forbidden = request.forbidden_tags.iter().map(|(k, v)| (Wish::Tag(k, v), false));
    tags.chain(forbidden).chain(request.cpu_features.iter().map(|f| (Wish::Feature(f), true)))
}
