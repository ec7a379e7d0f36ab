//! The optimistic commit, every interleaving of it: two schedulers, each with its own memory of what is used, that place instances of one
//! hard anti-affinity group and others on the same hosts. Requests are lost before the store sees them, answers after; a caller whose
//! outcome is unknown asks again under the same operation, and is perhaps placed elsewhere then.
//!
//! What the model takes from the code: the claim is guarded by `used + x <= capacity`; of a group no two members have one place; an
//! operation's id is unique and in the same unit as all else; after a conflict the scheduler takes over what the row says, after an
//! unknown outcome too. What it leaves out: the clock, deletion, several hosts in one unit.

use stateright::{Checker, Model, Property};
use std::collections::BTreeMap;

const HOSTS: usize = 2;
const CAPACITY: u8 = 2;
/// Of each scheduler: the first is a member of the group.
const REQUESTS: u8 = 2;
/// Messages that may be lost in one run.
const LOSSES: u8 = 2;

type Operation = (usize, u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Answer {
    Placed(usize),
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    /// Nothing is on its way.
    Idle,
    /// A unit is on its way to the store.
    Committing(usize),
    /// The store's answer is on its way back: `None` is a conflict.
    Answered(Option<usize>, usize),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scheduler {
    /// What it takes for used: confirmed, tentative, and the group's place.
    used: [u8; HOSTS],
    member: [bool; HOSTS],
    stage: Stage,
    request: u8,
    answers: Vec<Answer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cloud {
    /// The rows, by operation: where its instance is.
    rows: BTreeMap<Operation, usize>,
    schedulers: [Scheduler; 2],
    losses: u8,
    conflicts: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Decide(usize),
    Commit(usize),
    Receive(usize),
    LoseRequest(usize),
    LoseAnswer(usize),
}

fn in_group((_, request): Operation) -> bool {
    request == 0
}

impl Cloud {
    fn used(&self, host: usize) -> u8 {
        self.rows.values().filter(|at| **at == host).count() as u8
    }

    fn members(&self, host: usize) -> usize {
        self.rows.iter().filter(|(op, at)| in_group(**op) && **at == host).count()
    }

    /// The row is taken over, and the members with it.
    fn refresh(&mut self, who: usize, host: usize) {
        let (used, member) = (self.used(host), self.members(host) > 0);
        let scheduler = &mut self.schedulers[who];
        (scheduler.used[host], scheduler.member[host]) = (used, member);
    }

    fn settle(&mut self, who: usize, answer: Answer) {
        let scheduler = &mut self.schedulers[who];
        scheduler.answers.push(answer);
        scheduler.request += 1;
        scheduler.stage = Stage::Idle;
    }

    fn decide(&mut self, who: usize) {
        let grouped = in_group((who, self.schedulers[who].request));
        // Best fit: the fullest host that its memory says has the capacity.
        let scheduler = &self.schedulers[who];
        let open = |host: &usize| scheduler.used[*host] < CAPACITY && !(grouped && scheduler.member[*host]);
        let found = (0..HOSTS).filter(open).max_by_key(|host| (scheduler.used[*host], HOSTS - host));
        match found {
            Some(host) => {
                let scheduler = &mut self.schedulers[who];
                scheduler.used[host] += 1;
                scheduler.member[host] |= grouped;
                scheduler.stage = Stage::Committing(host);
            }
            // As every refusal: a first try that was committed answers instead.
            None => {
                let first = self.rows.get(&(who, self.schedulers[who].request)).copied();
                self.settle(who, first.map_or(Answer::Refused, Answer::Placed));
            }
        }
    }

    /// One transaction: the guard, the unique place, the operation's id.
    fn commit(&mut self, who: usize, host: usize) {
        let operation = (who, self.schedulers[who].request);
        let outcome = match self.rows.get(&operation) {
            // A repeat: the stored answer.
            Some(at) => Some(*at),
            None if self.used(host) >= CAPACITY || (in_group(operation) && self.members(host) > 0) => None,
            None => {
                self.rows.insert(operation, host);
                Some(host)
            }
        };
        self.schedulers[who].stage = Stage::Answered(outcome, host);
    }

    fn receive(&mut self, who: usize, outcome: Option<usize>, host: usize) {
        match outcome {
            Some(at) if at == host => self.settle(who, Answer::Placed(at)),
            // It was placed by its first try, elsewhere: the tentative claim is released.
            Some(at) => {
                self.refresh(who, host);
                self.refresh(who, at);
                self.settle(who, Answer::Placed(at));
            }
            None => {
                self.conflicts = 1;
                self.refresh(who, host);
                self.schedulers[who].stage = Stage::Idle;
            }
        }
    }

    /// The outcome is unknown: the claim is released, the row read, the caller repeats its request.
    fn lose(&mut self, who: usize, host: usize) {
        self.losses += 1;
        self.refresh(who, host);
        self.schedulers[who].stage = Stage::Idle;
    }
}

struct Commits;

impl Model for Commits {
    type State = Cloud;
    type Action = Step;

    fn init_states(&self) -> Vec<Cloud> {
        let scheduler =
            Scheduler { used: [0; HOSTS], member: [false; HOSTS], stage: Stage::Idle, request: 0, answers: vec![] };
        vec![Cloud { rows: BTreeMap::new(), schedulers: [scheduler.clone(), scheduler], losses: 0, conflicts: 0 }]
    }

    fn actions(&self, cloud: &Cloud, steps: &mut Vec<Step>) {
        for (who, scheduler) in cloud.schedulers.iter().enumerate() {
            let loses = cloud.losses < LOSSES;
            match scheduler.stage {
                Stage::Idle if scheduler.request < REQUESTS => steps.push(Step::Decide(who)),
                Stage::Idle => {}
                Stage::Committing(_) => {
                    steps.push(Step::Commit(who));
                    steps.extend(loses.then_some(Step::LoseRequest(who)));
                }
                Stage::Answered(..) => {
                    steps.push(Step::Receive(who));
                    steps.extend(loses.then_some(Step::LoseAnswer(who)));
                }
            }
        }
    }

    fn next_state(&self, cloud: &Cloud, step: Step) -> Option<Cloud> {
        let mut next = cloud.clone();
        let stage = |who: usize| cloud.schedulers[who].stage.clone();
        match step {
            Step::Decide(who) => next.decide(who),
            Step::Commit(who) => match stage(who) {
                Stage::Committing(host) => next.commit(who, host),
                Stage::Idle | Stage::Answered(..) => return None,
            },
            Step::Receive(who) => match stage(who) {
                Stage::Answered(outcome, host) => next.receive(who, outcome, host),
                Stage::Idle | Stage::Committing(_) => return None,
            },
            Step::LoseRequest(who) | Step::LoseAnswer(who) => match stage(who) {
                Stage::Committing(host) | Stage::Answered(_, host) => next.lose(who, host),
                Stage::Idle => return None,
            },
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no host is overcommitted", |_, cloud: &Cloud| {
                (0..HOSTS).all(|host| cloud.used(host) <= CAPACITY)
            }),
            Property::always("no two members of the group are on one host", |_, cloud: &Cloud| {
                (0..HOSTS).all(|host| cloud.members(host) <= 1)
            }),
            Property::always(
                "who is answered that it is placed has its row there, and who is refused has none",
                |_, cloud: &Cloud| {
                    let answered =
                        |who: usize| cloud.schedulers[who].answers.iter().zip(0u8..).map(move |(a, n)| ((who, n), *a));
                    (0..2).flat_map(answered).all(|(operation, answer)| match answer {
                        Answer::Placed(host) => cloud.rows.get(&operation) == Some(&host),
                        Answer::Refused => !cloud.rows.contains_key(&operation),
                    })
                },
            ),
            // Every run ends: there are no other terminal states than those in which all were answered.
            Property::always("whoever asks can go on", |_, cloud: &Cloud| {
                let mut steps = Vec::new();
                Commits.actions(cloud, &mut steps);
                !steps.is_empty() || cloud.schedulers.iter().all(|s| s.request == REQUESTS)
            }),
            Property::sometimes("all are placed", |_, cloud: &Cloud| cloud.rows.len() == 2 * usize::from(REQUESTS)),
            Property::sometimes("a conflict is met", |_, cloud: &Cloud| cloud.conflicts > 0),
        ]
    }
}

#[test]
fn every_interleaving_of_two_schedulers_and_lost_messages_keeps_the_promises() {
    let checker = Commits.checker().spawn_bfs().join();
    assert!(checker.unique_state_count() > 500, "{} states: too few to mean anything", checker.unique_state_count());
    checker.assert_properties();
}
