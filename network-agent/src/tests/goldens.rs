//! Rendered text and plans, as reviewed.

use super::{DB, NET, WEB, desired_state, host, port, port_id, rule, tcp};
use crate::{
    model::{
        object::{Object, Port, SecurityGroup},
        state::{NsState, namespace_state},
    },
    nft::{
        batch,
        difference::difference,
        render::{render_changes, render_full},
        ruleset::Ruleset,
    },
    plan::{Planned, Rules, Step, plan},
};
use domain::network::{Direction, Remote};

fn shown(steps: &[Planned]) -> String {
    let line = |planned: &Planned| {
        let step = if let Step::Rules(rules) = &planned.step {
            let (full, text) = match rules {
                Rules::Whole(text) => (true, text.clone()),
                Rules::Delta(changes) => (false, render_changes(changes)),
            };
            format!("Rules {{ full: {full}, lines: {} }}", text.lines().count())
        } else {
            format!("{:?}", planned.step)
        };
        let owner = planned.owner.map_or("-".to_owned(), |key| format!("{:?}", key.kind()));
        format!("{owner:<4} {step}")
    };
    steps.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn state(desired_state: &crate::model::DesiredState) -> NsState {
    namespace_state(desired_state, &desired_state.networks[&NET], &host())
}

fn delta(before: &crate::model::DesiredState, after: &crate::model::DesiredState) -> String {
    render_changes(&difference(&state(before).rules, &state(after).rules))
}

#[test]
fn the_whole_of_the_rules() {
    insta::assert_snapshot!(render_full(&state(&desired_state()).rules));
}

#[test]
fn a_port_more_is_elements_alone() {
    let before = desired_state();
    let mut after = before.clone();
    after.put(Object::Port(port(8, &[WEB], false)));
    let delta = delta(&before, &after);
    insta::assert_snapshot!(delta);
    assert!(delta.lines().all(|line| line.starts_with("add element ")));
}

#[test]
fn a_port_elsewhere_with_its_blocks_is_elements_alone() {
    let before = desired_state();
    let mut after = before.clone();
    let blocks = |blocks: &[&str]| blocks.iter().map(|block| block.parse().expect("cidr")).collect();
    // One host's blocks are one set: of nested ones of two ports the widest alone.
    after.put(Object::Port(Port { allowed: blocks(&["10.7.1.0/24", "fd00:7::/48"]), ..port(8, &[WEB], true) }));
    after.put(Object::Port(Port { allowed: blocks(&["10.7.0.0/16"]), ..port(9, &[WEB], true) }));
    let changes = difference(&state(&before).rules, &state(&after).rules);
    let delta = render_changes(&changes);
    insta::assert_snapshot!(delta);
    assert!(delta.lines().all(|line| line.starts_with("add element ")));
    assert!(batch::encode(&changes, 1).is_some(), "without an nft");
}

#[test]
fn a_rule_that_changes_touches_its_chain_alone() {
    let before = desired_state();
    let mut after = before.clone();
    let rules = vec![rule(Direction::Ingress, tcp(5433, 5433), Remote::Any)];
    after.put(Object::SecurityGroup(SecurityGroup { id: DB, rules }));
    insta::assert_snapshot!(delta(&before, &after));
}

#[test]
fn a_port_less_leaves_nothing() {
    let before = desired_state();
    let mut after = before.clone();
    after.remove_port(port_id(6));
    insta::assert_snapshot!(delta(&before, &after));
}

#[test]
fn a_network_from_nothing() {
    insta::assert_snapshot!(shown(&plan(&state(&desired_state()), &NsState::default(), None)));
}

#[test]
fn a_port_handed_over_and_one_gone() {
    let before = state(&desired_state());
    let mut after = desired_state();
    after.acquired.insert(port_id(6));
    after.remove_port(port_id(5));
    insta::assert_snapshot!(shown(&plan(&state(&after), &before, Some(&before.rules))));
}

#[test]
fn what_is_as_it_should_be_needs_nothing() {
    let state = state(&desired_state());
    assert_eq!(plan(&state, &state, Some(&state.rules)), []);
    assert_eq!(difference(&Ruleset::default(), &Ruleset::default()), []);
}
