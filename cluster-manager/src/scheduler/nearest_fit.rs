//! The nearest fit of a refusal: hosts that have the capacity and fail for a constraint, named with it, as in "3 hosts have enough capacity
//! but lack the tag gpu=a100". Those that fail for fewest constraints come first, and those that an operator keeps closed last: a tenant
//! can't open them.

use super::{
    filter,
    groups::Groups,
    host::HostEntry,
    inventory::Inventory,
    labels::{Label, labels_of},
    request::Request,
};
use domain::{explain::Rejection, flavor::Size, host::HostState};
use std::cmp::Reverse;

/// What one host doesn't meet.
#[derive(Debug, PartialEq, Eq)]
enum Unmet {
    Disconnected,
    Held,
    Lost,
    DiskFull,
    Draining,
    Cordoned,
    Zone,
    DedicatedToOthers,
    NotDedicated,
    Contended,
    Group,
    Lacks(Label),
    Has(Label),
    /// It has the amounts, but not on one NUMA node.
    Capacity(Rejection),
}

impl Unmet {
    /// Whether only an operator can change it.
    fn operators(&self) -> bool {
        match self {
            Self::Disconnected | Self::Held | Self::Lost | Self::DiskFull | Self::Draining | Self::Cordoned => true,
            Self::Zone
            | Self::DedicatedToOthers
            | Self::NotDedicated
            | Self::Contended
            | Self::Group
            | Self::Lacks(_)
            | Self::Has(_)
            | Self::Capacity(_) => false,
        }
    }

    fn order(&self) -> Rejection {
        match self {
            Self::Disconnected | Self::Held | Self::Lost | Self::DiskFull => Rejection::Disconnected,
            Self::Draining | Self::Cordoned => Rejection::Cordoned,
            Self::Zone => Rejection::Zone,
            Self::DedicatedToOthers | Self::NotDedicated => Rejection::Dedicated,
            Self::Lacks(Label::Tag(..)) => Rejection::Tags,
            Self::Has(_) => Rejection::ForbiddenTags,
            Self::Lacks(Label::Feature(_)) => Rejection::CpuFeatures,
            Self::Lacks(Label::Pool(_)) => Rejection::SharedPool,
            Self::Contended => Rejection::Contended,
            Self::Group => Rejection::Group,
            Self::Capacity(filter) => *filter,
        }
    }

    fn describe(&self, one: bool) -> String {
        let (are, were, lack, have) = if one { ("is", "was", "lacks", "has") } else { ("are", "were", "lack", "have") };
        match self {
            Self::Disconnected => format!("{are} disconnected"),
            Self::Held => format!("{are} held until an operator decides"),
            Self::Lost => format!("{were} declared lost"),
            Self::DiskFull => format!("{have} a full disk"),
            Self::Draining => format!("{are} draining"),
            Self::Cordoned => format!("{are} cordoned"),
            Self::Zone => format!("{are} in another zone"),
            Self::DedicatedToOthers => format!("{are} dedicated to others"),
            Self::NotDedicated => format!("{are} not dedicated to the project"),
            Self::Contended => format!("{were} taken or changed by others meanwhile"),
            Self::Group => format!("{are} ruled out by the placement group"),
            Self::Lacks(Label::Tag(key, value)) => format!("{lack} the tag {key}={value}"),
            Self::Lacks(Label::Feature(feature)) => format!("{lack} the CPU feature {feature}"),
            Self::Has(Label::Tag(key, value)) => format!("{have} the forbidden tag {key}={value}"),
            Self::Has(Label::Feature(feature)) => format!("{have} the CPU feature {feature}"),
            Self::Lacks(Label::Pool(id)) if id.is_empty() => format!("{lack} a shared pool"),
            Self::Lacks(Label::Pool(id)) => format!("{lack} the shared pool {id}"),
            Self::Has(Label::Pool(id)) => format!("{have} the shared pool {id}"),
            Self::Capacity(filter) => format!("{are} {}", filter.describe()),
        }
    }
}

pub(super) struct Nearest {
    pub text: String,
    /// Whether an operator would have to change something.
    pub operators: bool,
}

pub(super) fn nearest(inventory: &Inventory, request: &Request, groups: &Groups) -> Option<Nearest> {
    let mut kinds: Vec<(Vec<Unmet>, u32)> = Vec::new();
    for host in inventory.hosts().filter(|host| filter::lacks(host, request) == Size::default()) {
        let unmet = unmet(inventory, host, request, groups);
        if unmet.is_empty() {
            continue;
        }
        match kinds.iter_mut().find(|(known, _)| *known == unmet) {
            Some((_, hosts)) => *hosts += 1,
            None => kinds.push((unmet, 1)),
        }
    }
    // The text is last, so that the order of the hosts changes nothing.
    let rank = |(unmet, hosts): &(Vec<Unmet>, u32)| {
        let operators = unmet.iter().any(Unmet::operators);
        let first = unmet.first().map(Unmet::order);
        ((operators, unmet.len(), Reverse(*hosts), first, describe(unmet, *hosts)), operators)
    };
    let ((.., text), operators) = kinds.iter().map(rank).min()?;
    Some(Nearest { text, operators })
}

fn describe(unmet: &[Unmet], hosts: u32) -> String {
    let one = hosts == 1;
    let described: Vec<String> = unmet.iter().map(|unmet| unmet.describe(one)).collect();
    let have = if one { "1 host has".to_owned() } else { format!("{hosts} hosts have") };
    let advice = if unmet.contains(&Unmet::Group) { "; a soft policy would allow it" } else { "" };
    format!("{have} enough capacity but {}{advice}", described.join(" and "))
}

fn unmet(inventory: &Inventory, host: &HostEntry, request: &Request, groups: &Groups) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    match host.state {
        HostState::Up => {}
        HostState::Disconnected => unmet.push(Unmet::Disconnected),
        HostState::Held => unmet.push(Unmet::Held),
        HostState::Lost => unmet.push(Unmet::Lost),
        HostState::DiskFull => unmet.push(Unmet::DiskFull),
    }
    if host.policies.draining {
        unmet.push(Unmet::Draining);
    } else if host.cordoned {
        unmet.push(Unmet::Cordoned);
    }
    if request.zone.as_ref().is_some_and(|zone| **zone != *host.zone) {
        unmet.push(Unmet::Zone);
    }
    match host.policies.dedicated_to {
        Some(project) if request.project != Some(project) => unmet.push(Unmet::DedicatedToOthers),
        None if request.dedicated => unmet.push(Unmet::NotDedicated),
        Some(_) | None => {}
    }
    for (label, required) in labels_of(request) {
        let label = label.to_label();
        if label.holds(host) != required {
            unmet.push(if required { Unmet::Lacks(label) } else { Unmet::Has(label) });
        }
    }
    if groups.rule_out(inventory, host) {
        unmet.push(Unmet::Group);
    } else if request.avoid.contains(&host.id) {
        unmet.push(Unmet::Contended);
    }
    if let Some(filter) = filter::lacking(host, request) {
        unmet.push(Unmet::Capacity(filter));
    }
    unmet
}
