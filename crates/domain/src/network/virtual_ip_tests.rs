use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use uuid::Uuid;

fn port(number: u128) -> PortId {
    PortId(Uuid::from_u128(number))
}

fn member(number: u128, priority: u16, own: Verdict) -> MemberState {
    MemberState { port_id: port(number), priority, in_use: true, host_answers: true, own, witness: Verdict::Unknown }
}

fn held_by(number: u128, epoch: i64) -> Tenure {
    Tenure { holder: Some(port(number)), epoch }
}

fn moved(number: u128, epoch: i64, cause: MoveCause) -> Decision {
    Decision::Move { to: held_by(number, epoch), cause }
}

#[test]
fn the_best_member_that_is_up_gets_an_address_that_nobody_has() {
    use Verdict::{Down, Unknown, Up};
    let nobody = Tenure::default();
    assert_eq!(decide(nobody, &[], false), Decision::Keep(Standing::NoHolder));
    let none_up = [member(1, 1, Unknown), member(2, 1, Down)];
    assert_eq!(decide(nobody, &none_up, false), Decision::Keep(Standing::NoHolder));
    let members = [member(1, 9, Down), member(3, 5, Up), member(2, 5, Up), member(4, 1, Up)];
    assert_eq!(decide(nobody, &members, false), moved(2, 1, MoveCause::FirstHolder));
}

#[test]
fn the_address_leaves_a_holder_that_failed_and_comes_back_only_with_preemption() {
    use Verdict::{Down, Up};
    let failed = [member(1, 9, Down), member(2, 1, Up)];
    assert_eq!(decide(held_by(1, 7), &failed, false), moved(2, 8, MoveCause::ProbeFailed));
    let recovered = [member(1, 9, Up), member(2, 1, Up)];
    assert_eq!(decide(held_by(2, 8), &recovered, false), Decision::Keep(Standing::Healthy));
    assert_eq!(decide(held_by(2, 8), &recovered, true), moved(1, 9, MoveCause::Preempted));
    let equal = [member(1, 5, Up), member(2, 5, Up)];
    assert_eq!(decide(held_by(2, 8), &equal, true), Decision::Keep(Standing::Healthy), "equals don't preempt");
}

#[test]
fn a_witness_counts_only_while_the_holders_host_is_silent() {
    use Verdict::{Down, Unknown, Up};
    let other = member(2, 1, Up);
    let holder = |host_answers, own, witness| MemberState { host_answers, witness, ..member(1, 1, own) };
    let decided = |holder| decide(held_by(1, 3), &[holder, other], false);
    assert_eq!(
        decided(holder(true, Up, Down)),
        Decision::Keep(Standing::Healthy),
        "the path is broken, not the holder"
    );
    assert_eq!(decided(holder(false, Up, Down)), moved(2, 4, MoveCause::HostSilent));
    assert_eq!(decided(holder(false, Up, Up)), Decision::Keep(Standing::Healthy), "only the managers lost the host");
    assert_eq!(decided(holder(false, Up, Unknown)), Decision::Keep(Standing::Healthy), "silence alone is no failure");
    assert_eq!(decided(holder(false, Unknown, Unknown)), Decision::Keep(Standing::Unknown));
    assert_eq!(
        decided(holder(false, Down, Up)),
        moved(2, 4, MoveCause::ProbeFailed),
        "the host is there, the instance isn't"
    );
    assert_eq!(decided(holder(false, Unknown, Down)), moved(2, 4, MoveCause::HostSilent));
    assert_eq!(decided(holder(true, Down, Up)), moved(2, 4, MoveCause::ProbeFailed), "its own host is nearer");
}

#[test]
fn what_becomes_of_a_holder_that_is_gone() {
    use Verdict::{Down, Up};
    let gone = MemberState { in_use: false, ..member(1, 9, Up) };
    assert_eq!(decide(held_by(1, 3), &[gone, member(2, 1, Up)], false), moved(2, 4, MoveCause::NotInUse));
    assert_eq!(decide(held_by(1, 3), &[gone, member(2, 1, Down)], false), Decision::Keep(Standing::NobodyUp));
    assert_eq!(decide(held_by(1, 3), &[member(2, 1, Up)], false), moved(2, 4, MoveCause::Removed));
    let nobody = Decision::Move { to: Tenure { holder: None, epoch: 4 }, cause: MoveCause::Removed };
    assert_eq!(decide(held_by(1, 3), &[member(2, 1, Down)], false), nobody);
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop::sample::select(&Verdict::ALL[..])
}

fn any_member() -> impl Strategy<Value = MemberState> {
    (1u128..7, 0u16..4, prop::bool::weighted(0.9), prop::bool::weighted(0.8), verdict(), verdict()).prop_map(
        |(number, priority, in_use, host_answers, own, witness)| MemberState {
            in_use,
            host_answers,
            witness,
            ..member(number, priority, own)
        },
    )
}

/// Members with different ports.
fn members() -> impl Strategy<Value = Vec<MemberState>> {
    prop::collection::vec(any_member(), 0..6).prop_map(|members| {
        members.into_iter().map(|member| (member.port_id, member)).collect::<BTreeMap<_, _>>().into_values().collect()
    })
}

proptest! {
    #[test]
    fn whatever_happens_there_is_one_holder_at_each_epoch_and_it_was_up_when_it_got_the_address(
        history in prop::collection::vec((members(), any::<bool>()), 1..40),
    ) {
        let (mut now, mut holders) = (Tenure::default(), BTreeMap::from([(0, None)]));
        for (members, preemption) in history {
            let member = |id: PortId| members.iter().find(|member| member.port_id == id);
            let health = |id: PortId| member(id).map(MemberState::health);
            let somebody_up = members.iter().any(|member| member.health() == Verdict::Up);
            let mut turned = members.clone();
            turned.reverse();
            let decision = decide(now, &members, preemption);
            prop_assert_eq!(decision, decide(now, &turned, preemption), "the members' order doesn't matter");
            if let Decision::Move { to, cause } = decision {
                prop_assert_eq!(to.epoch, now.epoch + 1);
                prop_assert_ne!(to.holder, now.holder);
                prop_assert_eq!(holders.insert(to.epoch, to.holder), None, "an epoch is given once");
                match to.holder {
                    Some(id) => prop_assert_eq!(health(id), Some(Verdict::Up)),
                    None => prop_assert_eq!(cause, MoveCause::Removed),
                }
                if let Some(old) = now.holder && health(old) == Some(Verdict::Up) {
                    let higher = to.holder.and_then(member).map(|new| new.priority) > member(old).map(|old| old.priority);
                    prop_assert!(preemption && higher && cause == MoveCause::Preempted);
                }
                now = to;
            }
            let after = decide(now, &members, preemption);
            prop_assert!(matches!(after, Decision::Keep(_)), "it is settled: {after:?}");
            let holder = now.holder.and_then(health);
            prop_assert!(holder != Some(Verdict::Down) || !somebody_up, "a member is up, and the address isn't there");
            prop_assert!(now.holder.is_some() || !somebody_up);
            prop_assert!(now.holder.is_none() || holder.is_some(), "whoever is no member has nothing");
        }
    }
}
