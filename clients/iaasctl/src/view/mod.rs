//! How each kind of object looks in a table, and alone.

mod capacity;
mod identity;
mod network;
mod placement;
mod recovery;
mod resource;
mod system;

pub use capacity::{capacity_flavors, capacity_zones};
pub use system::{QuotaLine, beyond_capacity, quota_lines, unaccepted};

use domain::Timestamp;
use std::collections::BTreeMap;

/// To the second, without the fraction.
pub(super) fn time(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('.').map_or_else(|| text.clone(), |(whole, _)| format!("{whole}Z"))
}

pub(super) fn time_or_none(at: Option<Timestamp>) -> String {
    at.map(time).unwrap_or_default()
}

pub(super) fn tags(tags: &BTreeMap<String, String>) -> String {
    tags.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// The fields that say something.
pub(super) fn filled(mut fields: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    fields.retain(|(_, value)| !value.is_empty());
    fields
}

/// Nothing, if there is none.
pub(super) fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// Any number of things in one text.
pub(super) fn joined<T: ToString>(items: &[T], separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

pub(super) fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

pub(super) fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
