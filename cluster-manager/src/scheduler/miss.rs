//! The nearest miss of a refusal: hosts that have the room and fail for a wish, told with the wish. "3 hosts have the room but lack the tag
//! gpu=a100". Those that fail for fewest wishes come first, and those that an operator keeps closed last: a tenant can't open them.

use super::{
    atoms::{Atom, wishes},
    explain::ruled_out,
    filter,
    host::HostEntry,
    inventory::Inventory,
    request::Request,
    roster::Groups,
};
use domain::{explain::Rejection, flavor::Size};
use std::cmp::Reverse;

/// The wishes that one host doesn't meet.
#[derive(Debug, PartialEq, Eq)]
enum Miss {
    Disconnected,
    Draining,
    Cordoned,
    Zone,
    DedicatedToOthers,
    NotDedicated,
    Contended,
    Group,
    Lacks(Atom),
    Has(Atom),
    /// It has the amounts, but not as they must lie together.
    Room(Rejection),
}

impl Miss {
    /// Only an operator can change it.
    fn operators(&self) -> bool {
        match self {
            Self::Disconnected | Self::Draining | Self::Cordoned => true,
            Self::Zone
            | Self::DedicatedToOthers
            | Self::NotDedicated
            | Self::Contended
            | Self::Group
            | Self::Lacks(_)
            | Self::Has(_)
            | Self::Room(_) => false,
        }
    }

    fn order(&self) -> Rejection {
        match self {
            Self::Disconnected => Rejection::Disconnected,
            Self::Draining | Self::Cordoned => Rejection::Cordoned,
            Self::Zone => Rejection::Zone,
            Self::DedicatedToOthers | Self::NotDedicated => Rejection::Dedicated,
            Self::Lacks(Atom::Tag(..)) => Rejection::Tags,
            Self::Has(_) => Rejection::ForbiddenTags,
            Self::Lacks(Atom::Feature(_)) => Rejection::CpuFeatures,
            Self::Contended => Rejection::Contended,
            Self::Group => Rejection::Group,
            Self::Room(filter) => *filter,
        }
    }

    fn describe(&self, one: bool) -> String {
        let (are, were, lack, have) = if one { ("is", "was", "lacks", "has") } else { ("are", "were", "lack", "have") };
        match self {
            Self::Disconnected => format!("{are} disconnected"),
            Self::Draining => format!("{are} draining"),
            Self::Cordoned => format!("{are} cordoned"),
            Self::Zone => format!("{are} in another zone"),
            Self::DedicatedToOthers => format!("{are} dedicated to others"),
            Self::NotDedicated => format!("{are} not dedicated to the project"),
            Self::Contended => format!("{were} taken or changed by others meanwhile"),
            Self::Group => format!("{are} ruled out by the placement group"),
            Self::Lacks(Atom::Tag(key, value)) => format!("{lack} the tag {key}={value}"),
            Self::Lacks(Atom::Feature(feature)) => format!("{lack} the CPU feature {feature}"),
            Self::Has(Atom::Tag(key, value)) => format!("{have} the forbidden tag {key}={value}"),
            Self::Has(Atom::Feature(feature)) => format!("{have} the CPU feature {feature}"),
            Self::Room(filter) => format!("{are} {}", filter::describe(*filter)),
        }
    }
}

pub(super) struct Nearest {
    pub text: String,
    /// An operator would have to change something.
    pub operators: bool,
}

pub(super) fn nearest(inventory: &Inventory, request: &Request, groups: &Groups) -> Option<Nearest> {
    let mut kinds: Vec<(Vec<Miss>, u32)> = Vec::new();
    for host in inventory.hosts().filter(|host| filter::lacks(host, request) == Size::default()) {
        let misses = misses(inventory, host, request, groups);
        if misses.is_empty() {
            continue;
        }
        match kinds.iter_mut().find(|(known, _)| *known == misses) {
            Some((_, hosts)) => *hosts += 1,
            None => kinds.push((misses, 1)),
        }
    }
    // The text is last: hosts that are met in another order are told alike.
    let rank = |(misses, hosts): &(Vec<Miss>, u32)| {
        let operators = misses.iter().any(Miss::operators);
        let first = misses.first().map(Miss::order);
        ((operators, misses.len(), Reverse(*hosts), first, describe(misses, *hosts)), operators)
    };
    let ((.., text), operators) = kinds.iter().map(rank).min()?;
    Some(Nearest { text, operators })
}

fn describe(misses: &[Miss], hosts: u32) -> String {
    let one = hosts == 1;
    let described: Vec<String> = misses.iter().map(|miss| miss.describe(one)).collect();
    let have = if one { "1 host has".to_owned() } else { format!("{hosts} hosts have") };
    let advice = if misses.contains(&Miss::Group) { "; a soft policy would allow it" } else { "" };
    format!("{have} the room but {}{advice}", described.join(" and "))
}

fn misses(inventory: &Inventory, host: &HostEntry, request: &Request, groups: &Groups) -> Vec<Miss> {
    let mut misses = Vec::new();
    if !host.up {
        misses.push(Miss::Disconnected);
    }
    if host.policies.draining {
        misses.push(Miss::Draining);
    } else if host.cordoned {
        misses.push(Miss::Cordoned);
    }
    if request.zone.as_ref().is_some_and(|zone| **zone != *host.zone) {
        misses.push(Miss::Zone);
    }
    match host.policies.dedicated_to {
        Some(project) if request.project != Some(project) => misses.push(Miss::DedicatedToOthers),
        None if request.dedicated => misses.push(Miss::NotDedicated),
        Some(_) | None => {}
    }
    for (wish, needed) in wishes(request) {
        let atom = wish.to_atom();
        if atom.holds(host) != needed {
            misses.push(if needed { Miss::Lacks(atom) } else { Miss::Has(atom) });
        }
    }
    if ruled_out(inventory, host, groups) {
        misses.push(Miss::Group);
    } else if request.avoid.contains(&host.id) {
        misses.push(Miss::Contended);
    }
    if let Some(filter) = filter::no_room(host, request) {
        misses.push(Miss::Room(filter));
    }
    misses
}
