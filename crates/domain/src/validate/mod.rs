//! What a request may say at all: every bound of this cloud, checked by one function that all services call.
//!
//! The api-gateway checks a request before it looks anything up, and the manager that decides checks what reaches it. Were each to have its own list of
//! bounds, the two would drift apart: the gateway would accept what a manager refuses, or a manager what the gateway would never pass. So
//! the bounds are constants in [`crate::limits`], the checks are functions here, and both sides call them. They differ in nothing but the
//! names of fields, which each caller passes: a JSON pointer at the gateway (`/tags`), the field of the message at a manager (`tags`).
//!
//! A request is refused once, with all of its violations ([`Violations`]): a caller who corrects one mistake and then learns of the next has
//! to try as often as there are mistakes.

pub mod host;
pub mod image;
pub mod instance;
pub mod network;

use crate::{FieldError, Name, Problem, limits};
use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, str::FromStr};

/// The fields of a request that break a rule, each with what is wrong with it.
#[derive(Debug, Default)]
pub struct Violations(Vec<FieldError>);

impl Violations {
    pub fn add(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError { field: field.into(), detail: detail.into() });
    }

    pub fn unless(&mut self, ok: bool, field: &str, detail: impl FnOnce() -> String) {
        if !ok {
            self.add(field, detail());
        }
    }

    /// Bounds the length of a list. Returns whether there are as few as allowed, so that the caller needn't look at each element of a list that is too long.
    pub fn at_most(&mut self, field: &str, count: usize, most: usize) -> bool {
        self.unless(count <= most, field, || format!("at most {most}"));
        count <= most
    }

    /// Bounds the length of a text.
    pub fn at_most_bytes(&mut self, field: &str, text: &str, most: usize) {
        self.unless(text.len() <= most, field, || format!("at most {most} bytes"));
    }

    /// Bounds a number.
    pub fn within<T: PartialOrd + Display>(&mut self, field: &str, value: T, bounds: &RangeInclusive<T>) {
        self.unless(bounds.contains(&value), field, || format!("{} to {}", bounds.start(), bounds.end()));
    }

    /// The value that a text stands for, or `None` and a violation.
    pub fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.add(field, error.to_string())).ok()
    }

    pub fn description(&mut self, field: &str, text: &str) {
        self.at_most_bytes(field, text, limits::DESCRIPTION_BYTES);
    }

    /// The problem that names all violations, if there are any.
    pub fn finish(self) -> Result<(), Problem> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let more = match self.0.len() {
            1 => String::new(),
            n => format!(" (and {} more: see errors)", n - 1),
        };
        let mut problem = Problem::invalid(&first.field, format!("{}{more}", first.detail));
        problem.errors = self.0;
        Err(problem)
    }
}

/// Runs checks, and answers with the problem that names all violations, if there are any.
pub fn check(checks: impl FnOnce(&mut Violations)) -> Result<(), Problem> {
    let mut violations = Violations::default();
    checks(&mut violations);
    violations.finish()
}

/// The tags of an object. A key has no `:` and no `=`, at which the filter `?tag=key:value` of lists is split.
pub fn tags(violations: &mut Violations, field: &str, tags: &BTreeMap<String, String>) {
    if violations.at_most(field, tags.len(), limits::TAGS_PER_OBJECT) {
        each_tag(violations, field, tags);
    }
}

/// The form of each tag; `field` holds them all.
fn each_tag(violations: &mut Violations, field: &str, tags: &BTreeMap<String, String>) {
    for (key, value) in tags {
        // As JSON pointers escape it (RFC 6901).
        let field = || format!("{field}/{}", key.replace('~', "~0").replace('/', "~1"));
        let plain = key.chars().all(|c| !c.is_control() && c != ':' && c != '=');
        if !(1..=limits::TAG_KEY_BYTES).contains(&key.len()) || !plain {
            let most = limits::TAG_KEY_BYTES;
            let detail = format!("a tag's key has 1 to {most} bytes without ':', '=' and control characters");
            violations.add(field(), detail);
        } else if value.len() > limits::TAG_VALUE_BYTES || value.chars().any(char::is_control) {
            let most = limits::TAG_VALUE_BYTES;
            violations.add(field(), format!("a tag's value has at most {most} bytes without control characters"));
        }
    }
}

/// Checks that a text is a name, where the text itself is kept.
pub fn name(violations: &mut Violations, field: &str, text: &str) {
    violations.parse::<Name>(field, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(violations: Violations) -> Vec<String> {
        violations.finish().err().map(|p| p.errors.into_iter().map(|e| e.field).collect()).unwrap_or_default()
    }

    #[test]
    fn all_violations_are_named_and_the_first_is_in_the_detail() {
        let mut violations = Violations::default();
        violations.within("vcpus", 0, &(1..=4));
        let one = violations.finish().expect_err("a violation");
        assert_eq!((one.detail.as_str(), one.errors.len()), ("vcpus: 1 to 4", 1));
        let mut violations = Violations::default();
        violations.within("vcpus", 0, &(1..=4));
        violations.description("/description", &"x".repeat(limits::DESCRIPTION_BYTES + 1));
        let two = violations.finish().expect_err("two violations");
        assert_eq!((two.detail.as_str(), two.errors.len()), ("vcpus: 1 to 4 (and 1 more: see errors)", 2));
        assert_eq!(Violations::default().finish(), Ok(()));
    }

    #[test]
    fn tags_are_bounded_and_their_keys_can_be_asked_for() {
        let check = |pairs: &[(&str, &str)]| {
            let mut violations = Violations::default();
            tags(&mut violations, "/tags", &pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
            fields(violations)
        };
        let (key, value) = ("k".repeat(limits::TAG_KEY_BYTES), "v".repeat(limits::TAG_VALUE_BYTES));
        assert!(check(&[(&key, &value), ("a/b~c", "x:y=z")]).is_empty());
        assert_eq!(check(&[("", ""), ("a/b:c", ""), ("a=b", "")]), ["/tags/", "/tags/a~1b:c", "/tags/a=b"]);
        assert_eq!(check(&[(&format!("{key}k"), "")]).len(), 1);
        assert_eq!(check(&[("a", &format!("{value}v"))]), ["/tags/a"]);
        assert_eq!(check(&[("a", "line\n"), ("b\t", "")]), ["/tags/a", "/tags/b\t"]);
        let many: BTreeMap<_, _> = (0..=limits::TAGS_PER_OBJECT).map(|n| (format!("k{n}"), String::new())).collect();
        let mut violations = Violations::default();
        tags(&mut violations, "tags", &many);
        assert_eq!(fields(violations), ["tags"]);
    }
}
