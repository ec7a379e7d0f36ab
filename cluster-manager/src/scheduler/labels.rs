//! What tells hosts apart: each tag, CPU feature and shared pool that a request ever named is a label and gets a bit, and hosts are kept apart in the
//! index only by these bits. A cloud whose every host has a tag of its own, that nobody requests, stays one cell.

use super::{host::HostEntry, request::Request};

/// Bits. A request's labels beyond them are checked host by host.
const LABELS_MAX: usize = 128;
/// Labels remembered that no host has.
const ABSENT_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    Tag(String, String),
    Feature(String),
    /// A shared pool, by its id; empty: any.
    Pool(String),
}

impl Label {
    #[must_use]
    pub fn holds(&self, host: &HostEntry) -> bool {
        match self {
            Self::Tag(key, value) => host.tags.get(key) == Some(value),
            Self::Feature(feature) => host.cpu_features.contains(feature),
            Self::Pool(id) => host.pool.as_deref().is_some_and(|pool| id.is_empty() || pool == id),
        }
    }
}

/// A label by reference: looking one up allocates nothing.
#[derive(Debug, Clone, Copy)]
pub enum LabelRef<'a> {
    Tag(&'a str, &'a str),
    Feature(&'a str),
    Pool(&'a str),
}

impl LabelRef<'_> {
    fn is(self, label: &Label) -> bool {
        match (self, label) {
            (LabelRef::Tag(key, value), Label::Tag(k, v)) => key == k && value == v,
            (LabelRef::Feature(feature), Label::Feature(f)) => feature == f,
            (LabelRef::Pool(id), Label::Pool(pool)) => id == pool,
            (LabelRef::Tag(..), Label::Feature(_) | Label::Pool(_))
            | (LabelRef::Feature(_), Label::Tag(..) | Label::Pool(_))
            | (LabelRef::Pool(_), Label::Tag(..) | Label::Feature(_)) => false,
        }
    }

    #[must_use]
    pub fn to_label(self) -> Label {
        match self {
            LabelRef::Tag(key, value) => Label::Tag(key.to_owned(), value.to_owned()),
            LabelRef::Feature(feature) => Label::Feature(feature.to_owned()),
            LabelRef::Pool(id) => Label::Pool(id.to_owned()),
        }
    }
}

/// What a request demands of a cell, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestLabels {
    pub required: u128,
    pub forbidden: u128,
    /// Which of the required ones are tags.
    pub tags: u128,
    /// Which of the required ones are shared pools.
    pub pools: u128,
    /// Something is required that no host has.
    pub unsatisfiable: bool,
    /// Not all labels of the request got a bit: each host must be checked.
    pub incomplete: bool,
}

impl RequestLabels {
    #[must_use]
    pub fn suit(&self, labels: u128) -> bool {
        labels & self.required == self.required && labels & self.forbidden == 0
    }
}

#[derive(Debug, Default)]
pub struct Labels {
    known: Vec<Label>,
    absent: Vec<Label>,
}

/// A label is known by its bit, known to be on no host, or unknown.
pub enum LabelState {
    Bit(u128),
    /// No host has it.
    Absent,
    Unknown,
}

impl Labels {
    /// The bits of the labels that the host has.
    #[must_use]
    pub fn of(&self, host: &HostEntry) -> u128 {
        self.known.iter().enumerate().filter(|(_, label)| label.holds(host)).fold(0, |bits, (at, _)| bits | 1 << at)
    }

    #[must_use]
    pub fn find(&self, label: LabelRef<'_>) -> LabelState {
        if let Some(at) = self.known.iter().position(|known| label.is(known)) {
            LabelState::Bit(1 << at)
        } else if self.absent.iter().any(|absent| label.is(absent)) {
            LabelState::Absent
        } else {
            LabelState::Unknown
        }
    }

    /// Adds a label that a request names for the first time. After a new bit the bits of all hosts must be computed again. A label that
    /// stays unknown found no bit left.
    pub fn add<'h>(&mut self, label: LabelRef<'_>, mut hosts: impl Iterator<Item = &'h HostEntry>) -> LabelState {
        let label = label.to_label();
        if !hosts.any(|host| label.holds(host)) {
            if self.absent.len() >= ABSENT_MAX {
                self.absent.clear();
            }
            self.absent.push(label);
            return LabelState::Absent;
        }
        if self.known.len() >= LABELS_MAX {
            return LabelState::Unknown;
        }
        self.known.push(label);
        LabelState::Bit(1 << (self.known.len() - 1))
    }

    /// A host came or changed its tags: it may have what no host had before.
    pub fn hosts_changed(&mut self) {
        self.absent.clear();
    }
}

/// All labels of a request, and whether each is required (or else forbidden).
pub fn labels_of(request: &Request) -> impl Iterator<Item = (LabelRef<'_>, bool)> {
    let tags = request.tags.iter().map(|(k, v)| (LabelRef::Tag(k, v), true));
    let forbidden = request.forbidden_tags.iter().map(|(k, v)| (LabelRef::Tag(k, v), false));
    let features = request.cpu_features.iter().map(|f| (LabelRef::Feature(f), true));
    tags.chain(forbidden).chain(features).chain(request.pool.iter().map(|id| (LabelRef::Pool(id), true)))
}
