//! A namespace's rules as data: what changes with networks, ports and groups. What never changes is the skeleton's text
//! ([`super::render`]).

use std::collections::{BTreeMap, BTreeSet};

/// A set or a map. Elements are text, as nft writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub table: Table,
    pub map: bool,
    /// `ifname . ether_addr`, for maps `ifname : verdict`.
    pub kind: &'static str,
    pub interval: bool,
    pub elements: BTreeSet<String>,
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

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// By (table, name). The skeleton's own sets are always here, if only empty.
    pub sets: BTreeMap<(Table, String), Set>,
    /// Chains that base chains jump to, with their rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Named limits: rate and burst.
    pub limits: BTreeMap<String, String>,
}

impl Ruleset {
    pub fn declare(&mut self, table: Table, name: &str, kind: &'static str, map: bool, interval: bool) {
        let set = Set { table, map, kind, interval, elements: BTreeSet::new() };
        self.sets.entry((table, name.to_owned())).or_insert(set);
    }

    /// Adds to a declared set.
    pub fn insert(&mut self, table: Table, name: &str, element: String) {
        if let Some(set) = self.sets.get_mut(&(table, name.to_owned())) {
            set.elements.insert(element);
        } else {
            debug_assert!(false, "the set {name} is not declared");
        }
    }
}
