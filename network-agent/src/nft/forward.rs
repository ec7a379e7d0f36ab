//! Our rules in Docker's chain DOCKER-USER, which decides before Docker's own ([`crate::host`]'s firewall keeps them there). Pure.
//!
//! Between an external network and the outside everything passes: what instances may do was decided in their network's namespace. To Docker's
//! own bridges nothing does: containers stay as far from instances as Docker wants them.

use std::{collections::BTreeSet, fmt::Write};

pub const CHAIN: &str = "DOCKER-USER";
pub const FAMILIES: [&str; 2] = ["ip", "ip6"];

/// As nft lists them, in their order. `mark`: by which comment our rules are known.
fn rules(mark: &str, bridges: &BTreeSet<String>) -> Vec<String> {
    let of = |bridge: &String| {
        [
            format!("iifname \"{bridge}\" oifname \"{bridge}\" counter accept comment \"{mark}\""),
            format!(
                "iifname \"{bridge}\" oifname != \"docker0\" oifname != \"br-*\" counter accept comment \"{mark}\""
            ),
            format!(
                "oifname \"{bridge}\" iifname != \"docker0\" iifname != \"br-*\" counter accept comment \"{mark}\""
            ),
        ]
    };
    bridges.iter().flat_map(of).collect()
}

/// The transaction that leaves our rules, and no others of ours, at the chain's beginning; `None` where they are there. `listing`: what
/// `nft -s -a list chain` prints.
#[must_use]
pub fn render(family: &str, listing: &str, mark: &str, bridges: &BTreeSet<String>) -> Option<String> {
    let found: Vec<(&str, &str)> = listing.lines().filter_map(|line| line.trim().split_once(" # handle ")).collect();
    // The first of them is the chain itself.
    let found: Vec<(&str, &str)> = found.into_iter().filter(|(rule, _)| !rule.starts_with("chain ")).collect();
    let comment = format!("comment \"{mark}\"");
    let ours = || found.iter().filter(|(rule, _)| rule.ends_with(&comment));
    let desired = rules(mark, bridges);
    let first = found.iter().take(desired.len()).map(|(rule, _)| *rule);
    if first.eq(desired.iter().map(String::as_str)) && ours().count() == desired.len() {
        return None;
    }
    let mut text = String::new();
    for (_, handle) in ours() {
        let _ = writeln!(text, "delete rule {family} filter {CHAIN} handle {handle}");
    }
    for rule in desired.iter().rev() {
        let _ = writeln!(text, "insert rule {family} filter {CHAIN} {rule}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(rules: &[String]) -> String {
        let mut text = String::from("table ip filter {\n\tchain DOCKER-USER { # handle 3\n");
        for (at, rule) in rules.iter().enumerate() {
            let _ = writeln!(text, "\t\t{rule} # handle {}", at + 10);
        }
        text + "\t}\n}\n"
    }

    #[test]
    fn our_rules_come_first_once_and_others_stay() {
        let bridges = BTreeSet::from(["br-ext".to_owned()]);
        let (others, ours) = (["counter return".to_owned()], rules("iaas", &bridges));
        let fresh = render("ip", &listing(&others), "iaas", &bridges).expect("to write");
        assert!(!fresh.contains("delete"), "{fresh}");
        let inserted: Vec<&str> =
            fresh.lines().rev().filter_map(|line| line.strip_prefix("insert rule ip filter DOCKER-USER ")).collect();
        assert_eq!(inserted, ours);
        let written = [&ours[..], &others].concat();
        assert_eq!(render("ip", &listing(&written), "iaas", &bridges), None);
        // Somebody put a rule before ours, removed one, or one of an earlier configuration is left.
        for changed in [
            [&others[..], &ours].concat(),
            ours[1..].to_vec(),
            rules("iaas", &["a", "br-ext"].map(str::to_owned).into()),
        ] {
            let text = render("ip", &listing(&changed), "iaas", &bridges).expect("to write");
            let deleted = text.lines().filter(|line| line.starts_with("delete")).count();
            assert_eq!(deleted, changed.iter().filter(|rule| ours.contains(rule) || rule.contains("\"a\"")).count());
        }
    }
}
