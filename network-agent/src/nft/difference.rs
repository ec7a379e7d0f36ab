//! What leads from one ruleset to another, in an order that no moment of the transaction refers to something that isn't there. Pure.

use super::{
    element::{Element, Value},
    ruleset::{Head, Limit, Ruleset, Set, Table},
};
use std::collections::BTreeSet;

/// A part of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Declare { table: Table, name: String, head: Head },
    AddChain { name: String },
    DeleteElements { table: Table, set: String, elements: Vec<Element> },
    DeleteLimit { name: String },
    AddLimit { name: String, limit: Limit },
    AddElements { table: Table, set: String, elements: Vec<Element> },
    FlushChain { name: String },
    AddRules { chain: String, rules: Vec<String> },
    DeleteChain { name: String },
    DeleteSet { table: Table, name: String, map: bool },
}

/// Empty when they are the same.
#[must_use]
pub fn difference(old: &Ruleset, new: &Ruleset) -> Vec<Change> {
    let mut changes = Vec::new();
    let none = BTreeSet::new();
    for ((table, name), set) in &new.sets {
        if !old.sets.contains_key(&(*table, name.clone())) {
            changes.push(Change::Declare { table: *table, name: name.clone(), head: set.head });
        }
    }
    for name in new.chains.keys().filter(|name| !old.chains.contains_key(*name)) {
        changes.push(Change::AddChain { name: name.clone() });
    }
    // Elements that go, while what they point to still stands.
    for (key, set) in &old.sets {
        let kept = new.sets.get(key).map_or(&none, |set| &set.elements);
        let gone = |e: &&Element| !kept.contains(*e) || leads_to_moved_limit(e, old, new);
        let elements = chosen(set, gone);
        if !elements.is_empty() {
            changes.push(Change::DeleteElements { table: key.0, set: key.1.clone(), elements });
        }
    }
    for (name, limit) in &old.limits {
        if new.limits.get(name) != Some(limit) {
            changes.push(Change::DeleteLimit { name: name.clone() });
        }
    }
    for (name, limit) in &new.limits {
        if old.limits.get(name) != Some(limit) {
            changes.push(Change::AddLimit { name: name.clone(), limit: *limit });
        }
    }
    for (key, set) in &new.sets {
        let known = old.sets.get(key).map_or(&none, |set| &set.elements);
        let fresh = |e: &&Element| !known.contains(*e) || leads_to_moved_limit(e, old, new);
        let elements = chosen(set, fresh);
        if !elements.is_empty() {
            changes.push(Change::AddElements { table: key.0, set: key.1.clone(), elements });
        }
    }
    for (name, rules) in &new.chains {
        let known = old.chains.get(name);
        if known == Some(rules) {
            continue;
        }
        if known.is_some_and(|rules| !rules.is_empty()) {
            changes.push(Change::FlushChain { name: name.clone() });
        }
        if !rules.is_empty() {
            changes.push(Change::AddRules { chain: name.clone(), rules: rules.clone() });
        }
    }
    let gone: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
    changes.extend(gone.iter().map(|name| Change::FlushChain { name: (*name).clone() }));
    changes.extend(gone.iter().map(|name| Change::DeleteChain { name: (*name).clone() }));
    for ((table, name), set) in &old.sets {
        if !new.sets.contains_key(&(*table, name.clone())) {
            changes.push(Change::DeleteSet { table: *table, name: name.clone(), map: set.head.map });
        }
    }
    changes
}

fn chosen(set: &Set, choose: impl Fn(&&Element) -> bool) -> Vec<Element> {
    set.elements.iter().filter(choose).cloned().collect()
}

/// A limit can only be replaced while nothing refers to it.
fn leads_to_moved_limit(element: &Element, old: &Ruleset, new: &Ruleset) -> bool {
    match &element.value {
        Some(Value::Limit(name)) => old.limits.get(name) != new.limits.get(name),
        Some(Value::Jump(_) | Value::Addr(_)) | None => false,
    }
}
