//! Lease, guard, managers that follow each other, and a start elsewhere: every interleaving of them, with messages that are late, lost or
//! overtaken, an agent that is paused at any point, and a host whose clock is slow. An instance never runs on two hosts.
//!
//! What the model takes from the code: [`HostLease`] and [`LeaseRecord`] themselves. The guard is never paused (it has a real-time priority and
//! locked memory), and nobody enters its frozen control group. Numbers and verdicts are rows that are written under the leader's term, so that
//! there is one of each. A former leader doesn't answer any more when its successor begins. What it leaves out: more than one instance.

use domain::lease::{Answer, BootInstant, Grant, HostLease, LeaseNumber, LeaseRecord, LeaseTiming, Standing};
use stateright::{Checker, Model, Property};

/// A tick of the model is a second; of these it takes few.
const TIMING: LeaseTiming = LeaseTiming { heartbeat_ms: 1000, duration_ms: 2000, margin_ms: 1000 };
const TICKS: u64 = 6;
const TICK_NANOS: u64 = 1_000_000_000;
/// Of the messages in one run, of each kind and at once.
const UNDER_WAY: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Beat {
    standing: Standing,
    clear: bool,
    sent_at: BootInstant,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cloud {
    real: u64,
    /// By how many ticks the host's clock is behind: it never loses more than one in a lease's time.
    behind: u64,
    lease: HostLease,
    /// A start that has passed the agent's check and hasn't come to the guard's group yet: the number that it was made for.
    starting: Option<LeaseNumber>,
    runs_here: bool,
    runs_elsewhere: bool,
    /// Whether the host's ledger says that the instance is its own.
    owned: bool,
    composed: Option<Beat>,
    beats: Vec<Beat>,
    answers: Vec<Grant>,
    record: LeaseRecord,
    since: BootInstant,
    /// The rows.
    number: Option<LeaseNumber>,
    verdict: bool,
    took_over: bool,
    readmitted: bool,
}

impl Cloud {
    fn host_now(&self) -> BootInstant {
        BootInstant((self.real - self.behind) * TICK_NANOS)
    }

    fn manager_now(&self) -> BootInstant {
        BootInstant(self.real * TICK_NANOS)
    }

    fn clear(&self) -> bool {
        !self.runs_here
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Tick,
    /// A second in which the host's clock stands still.
    SlowTick,
    Compose,
    Send,
    LoseBeat,
    Receive,
    LoseAnswer,
    Take,
    BeginStart,
    Start,
    Judge,
    TakeOver,
    Readmit,
}

struct Leases {
    guarded: bool,
}

impl Leases {
    fn tick(&self, cloud: &mut Cloud, slow: bool) {
        cloud.real += 1;
        cloud.behind += u64::from(slow);
        if cloud.lease.elapse(cloud.host_now()) && self.guarded {
            cloud.runs_here = false;
        }
    }

    fn receive(cloud: &mut Cloud) {
        let (beat, now) = (cloud.beats.remove(0), cloud.manager_now());
        match cloud.record.answer(beat.standing, beat.clear, now) {
            Answer::Valid(number) => {
                let valid_until = beat.sent_at.plus_ms(TIMING.duration_ms);
                cloud.answers.push(Grant { number, valid_until });
            }
            Answer::Admit(number) => {
                cloud.number = cloud.number.max(Some(number));
                cloud.record.admitted(number, now);
            }
            Answer::Refused(_) => {}
        }
    }
}

impl Model for Leases {
    type State = Cloud;
    type Action = Step;

    fn init_states(&self) -> Vec<Cloud> {
        let zero = BootInstant(0);
        vec![Cloud {
            real: 0,
            behind: 0,
            lease: HostLease::None,
            starting: None,
            runs_here: false,
            runs_elsewhere: false,
            owned: true,
            composed: None,
            beats: vec![],
            answers: vec![],
            record: LeaseRecord::of_row(None, false, zero),
            since: zero,
            number: None,
            verdict: false,
            took_over: false,
            readmitted: false,
        }]
    }

    fn actions(&self, cloud: &Cloud, steps: &mut Vec<Step>) {
        let mut may = |condition: bool, step: Step| steps.extend(condition.then_some(step));
        may(cloud.real < TICKS, Step::Tick);
        may(cloud.real < TICKS && cloud.behind == 0, Step::SlowTick);
        may(cloud.composed.is_none(), Step::Compose);
        may(cloud.composed.is_some() && cloud.beats.len() < UNDER_WAY, Step::Send);
        may(!cloud.beats.is_empty(), Step::LoseBeat);
        may(!cloud.beats.is_empty() && cloud.answers.len() < UNDER_WAY, Step::Receive);
        may(!cloud.answers.is_empty(), Step::LoseAnswer);
        may(!cloud.answers.is_empty(), Step::Take);
        let held = matches!(cloud.lease.standing(), Standing::Held(_));
        may(cloud.owned && held && cloud.starting.is_none() && !cloud.runs_here, Step::BeginStart);
        may(cloud.starting.is_some(), Step::Start);
        let lost = cloud.record.has_lapsed(&TIMING, cloud.since, cloud.manager_now());
        may(!cloud.verdict && lost, Step::Judge);
        may(!cloud.took_over, Step::TakeOver);
        // The host has reported what it stopped, and its ledger gave up what was taken from it.
        may(cloud.verdict && cloud.clear() && !held, Step::Readmit);
    }

    fn next_state(&self, cloud: &Cloud, step: Step) -> Option<Cloud> {
        let mut next = cloud.clone();
        match step {
            Step::Tick => self.tick(&mut next, false),
            Step::SlowTick => self.tick(&mut next, true),
            Step::Compose => {
                let (standing, clear) = (next.lease.standing(), next.clear());
                next.composed = Some(Beat { standing, clear, sent_at: next.host_now() });
            }
            Step::Send => next.beats.extend(next.composed.take()),
            Step::LoseBeat => drop(next.beats.remove(0)),
            Step::Receive => Self::receive(&mut next),
            Step::LoseAnswer => drop(next.answers.remove(0)),
            Step::Take => {
                let grant = next.answers.remove(0);
                let (now, clear) = (next.host_now(), next.clear());
                // A grant that changes nothing is lost.
                let _ = next.lease.grant(grant, now, clear);
            }
            Step::BeginStart => match next.lease.standing() {
                Standing::Held(number) => next.starting = Some(number),
                Standing::None | Standing::Lapsed(_) => return None,
            },
            Step::Start => {
                let number = next.starting.take()?;
                next.runs_here |= next.lease.permits(number, next.host_now());
            }
            Step::Judge => {
                next.record.judge(&TIMING, next.since, next.manager_now())?;
                (next.verdict, next.runs_elsewhere) = (true, true);
            }
            Step::TakeOver => {
                let now = next.manager_now();
                next.record = LeaseRecord::of_row(next.number, next.verdict, now);
                (next.since, next.took_over) = (now, true);
            }
            Step::Readmit => {
                next.record.readmit(next.manager_now());
                (next.verdict, next.owned, next.readmitted) = (false, false, true);
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the instance never runs on two hosts", |_, cloud: &Cloud| {
                !(cloud.runs_here && cloud.runs_elsewhere)
            }),
            Property::always("what runs here has a lease", |model: &Self, cloud: &Cloud| {
                !model.guarded || !cloud.runs_here || matches!(cloud.lease, HostLease::Held { .. })
            }),
            Property::sometimes("it runs here under a second manager", |_, cloud: &Cloud| {
                cloud.took_over && cloud.runs_here
            }),
            Property::sometimes("it starts elsewhere", |_, cloud: &Cloud| cloud.runs_elsewhere),
            Property::sometimes("the host is admitted again, under another number", |_, cloud: &Cloud| {
                cloud.readmitted && matches!(cloud.lease, HostLease::Held { number, .. } if number > LeaseNumber(1))
            }),
        ]
    }
}

#[test]
fn every_interleaving_of_lease_guard_and_managers_runs_an_instance_once() {
    let checker = Leases { guarded: true }.checker().threads(2).spawn_bfs().join();
    assert!(checker.unique_state_count() > 5000, "{} states: too few to mean anything", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn without_the_guard_the_model_finds_the_instance_on_two_hosts() {
    let checker = Leases { guarded: false }.checker().spawn_bfs().join();
    checker.assert_any_discovery("the instance never runs on two hosts");
}
