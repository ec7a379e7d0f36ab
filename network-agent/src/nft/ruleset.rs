//! A namespace's rules as data: what changes with networks, ports and groups. What never changes is the skeleton's text
//! ([`super::render`]).

use super::element::Element;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display, Formatter},
};

/// What a set or a map is declared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub map: bool,
    /// `ifname . ether_addr`, for maps `ifname : verdict`.
    pub kind: &'static str,
    pub interval: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub head: Head,
    pub elements: BTreeSet<Element>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Inet,
    Arp,
}

impl Table {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet iaas",
            Self::Arp => "arp iaas",
        }
    }
}

/// A named limit: packets beyond it match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub bytes_per_sec: u64,
    pub burst_bytes: u32,
}

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "rate over {} bytes/second burst {} bytes", self.bytes_per_sec, self.burst_bytes)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// By (table, name). The skeleton's own sets are always here, if only empty.
    pub sets: BTreeMap<(Table, String), Set>,
    /// Chains that base chains jump to, with their rules.
    pub chains: BTreeMap<String, Vec<String>>,
    pub limits: BTreeMap<String, Limit>,
}

impl Ruleset {
    pub fn declare(&mut self, table: Table, name: &str, head: Head) {
        self.sets.entry((table, name.to_owned())).or_insert(Set { head, elements: BTreeSet::new() });
    }

    /// Adds to a declared set.
    pub fn insert(&mut self, table: Table, name: &str, element: Element) {
        if let Some(set) = self.sets.get_mut(&(table, name.to_owned())) {
            set.elements.insert(element);
        } else {
            debug_assert!(false, "the set {name} is not declared");
        }
    }
}
