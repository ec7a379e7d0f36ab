//! Whatever the change: applying the plan to what was gives what should be, and undoing it what was.

use super::{DB, NET, WEB, desired_state, host, port};
use crate::{
    model::{
        DesiredState,
        object::Object,
        state::{Link, LinkKind, NsState, namespace_state},
    },
    plan::{Step, plan},
};
use proptest::prelude::*;

fn world() -> impl Strategy<Value = DesiredState> {
    let some = proptest::collection::vec((2u8..40, any::<bool>(), any::<bool>(), 0u8..4), 0..12);
    some.prop_map(|ports| {
        let mut desired_state = desired_state();
        for (n, remote, acquired, groups) in ports {
            let groups = [WEB, DB].into_iter().enumerate().filter(|(at, _)| groups & (1 << at) != 0).map(|(_, g)| g);
            let port = port(n, &groups.collect::<Vec<_>>(), remote);
            if acquired {
                desired_state.acquired.insert(port.id);
            } else {
                desired_state.acquired.remove(&port.id);
            }
            desired_state.put(Object::Port(port));
        }
        desired_state
    })
}

fn carry_out(state: &mut NsState, step: &Step) {
    match step.clone() {
        Step::AddLink { name, mac, mtu, .. } => {
            state.links.insert(name, Link { kind: LinkKind::Found, mac, mtu, up: false, port_id: None });
        }
        Step::SetLink { name, mac, mtu } => {
            state.links.insert(name, Link { kind: LinkKind::Found, mac, mtu, up: true, port_id: None });
        }
        Step::DeleteLink { name } => {
            state.links.remove(&name);
            state.neighbours.retain(|(link, _), _| *link != name);
            state.addresses.retain(|(link, ..)| *link != name);
            state.routes.retain(|_, hop| {
                !matches!(hop, crate::model::state::Hop::Link(l) | crate::model::state::Hop::Via(_, l) if *l == name)
            });
        }
        Step::AddAddress { link, addr, prefix } => {
            state.addresses.insert((link, addr, prefix));
        }
        Step::DeleteAddress { link, addr, prefix } => {
            state.addresses.remove(&(link, addr, prefix));
        }
        Step::Rules(_) => {}
        Step::SetNeighbour { link, addr, mac } => {
            state.neighbours.insert((link, addr), mac);
        }
        Step::DeleteNeighbour { link, addr } => {
            state.neighbours.remove(&(link, addr));
        }
        Step::SetForwarding { mac, underlay } => {
            state.fdb.insert(mac, underlay);
        }
        Step::DeleteForwarding { mac, .. } => {
            state.fdb.remove(&mac);
        }
        Step::SetRoute { destination, hop } => {
            state.routes.insert(destination, hop);
        }
        Step::DeleteRoute { destination, .. } => {
            state.routes.remove(&destination);
        }
    }
}

fn found(desired_state: &DesiredState) -> NsState {
    let mut state = namespace_state(desired_state, &desired_state.networks[&NET], &host());
    for link in state.links.values_mut() {
        (link.kind, link.port_id) = (LinkKind::Found, None);
    }
    state.rules = Default::default();
    state
}

proptest! {
    #[test]
    fn a_plan_leads_where_it_should(before in world(), after in world()) {
        let (start, end) = (found(&before), found(&after));
        let desired = namespace_state(&after, &after.networks[&NET], &host());
        let mut state = start.clone();
        for planned in plan(&desired, &start, None) {
            carry_out(&mut state, &planned.step);
        }
        prop_assert_eq!(state, end);
    }

    #[test]
    fn undoing_what_was_added_leads_back(before in world(), after in world(), cut in any::<prop::sample::Index>()) {
        let start = found(&before);
        let desired = namespace_state(&after, &after.networks[&NET], &host());
        let steps = plan(&desired, &start, None);
        let adding: Vec<Step> = steps.into_iter().map(|p| p.step).filter(|s| s.inverse(&start).is_some()).collect();
        let adding = &adding[..if adding.is_empty() { 0 } else { cut.index(adding.len()) }];
        let mut state = start.clone();
        for step in adding {
            carry_out(&mut state, step);
        }
        for inverse in adding.iter().rev().filter_map(|step| step.inverse(&start)) {
            carry_out(&mut state, &inverse);
        }
        prop_assert_eq!(state, start);
    }
}
