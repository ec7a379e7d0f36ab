use super::*;
use proptest::prelude::*;

const TIMING: LeaseTiming = LeaseTiming { heartbeat_ms: 1000, duration_ms: 5000, margin_ms: 1000 };

fn at(ms: u64) -> BootInstant {
    BootInstant(ms * NANOS_PER_MS)
}

fn grant(number: u64, until_ms: u64) -> Grant {
    Grant { number: LeaseNumber(number), valid_until: at(until_ms) }
}

#[test]
fn a_lease_is_renewed_until_it_lapses_and_never_after() {
    let mut lease = HostLease::None;
    assert_eq!(lease.grant(grant(1, 5000), at(100), false), Err(GrantRefusal::NotClear));
    assert_eq!(lease.grant(grant(1, 5000), at(100), true), Ok(()));
    assert_eq!(lease.grant(grant(1, 6000), at(1100), false), Ok(()), "a renewal needs no clear host");
    assert_eq!(lease.grant(grant(1, 5500), at(1200), false), Ok(()), "answers may overtake each other");
    assert_eq!(lease.valid_until(), Some(at(6000)));
    assert_eq!(lease.grant(grant(2, 9000), at(1300), true), Err(GrantRefusal::OtherNumber));
    assert!(lease.permits(LeaseNumber(1), at(5999)) && !lease.permits(LeaseNumber(1), at(6000)));
    assert!(!lease.permits(LeaseNumber(2), at(5999)));
    assert!(!lease.elapse(at(5999)));
    // The answer came before anybody looked at the clock, and too late all the same.
    let mut late = lease;
    assert_eq!(late.grant(grant(1, 9000), at(6000), true), Err(GrantRefusal::OtherNumber));
    assert_eq!(late.standing(), Standing::Lapsed(LeaseNumber(1)));
    assert!(lease.elapse(at(6000)) && !lease.elapse(at(6001)), "once");
    assert_eq!(lease.grant(grant(1, 99_000), at(6100), true), Err(GrantRefusal::OtherNumber));
    assert_eq!(lease.grant(grant(2, 99_000), at(6100), false), Err(GrantRefusal::NotClear));
    assert_eq!(lease.grant(grant(2, 6000), at(6100), true), Err(GrantRefusal::Late));
    assert_eq!(lease.grant(grant(2, 99_000), at(6100), true), Ok(()));
    assert!(lease.permits(LeaseNumber(2), at(6200)) && !lease.permits(LeaseNumber(1), at(6200)));
}

#[test]
fn a_number_is_durable_before_it_is_granted_and_a_host_without_one_is_never_judged() {
    let mut record = LeaseRecord::of_row(None, false, at(0));
    assert_eq!(record.answer(Standing::None, true, at(10)), Answer::Admit(LeaseNumber(1)));
    assert_eq!(record.answer(Standing::None, true, at(20)), Answer::Admit(LeaseNumber(1)), "not durable yet");
    assert_eq!(record.judge(&TIMING, at(0), at(1_000_000)), None, "it may run what nothing ends");
    record.admitted(LeaseNumber(1), at(30));
    assert_eq!(record.answer(Standing::None, true, at(40)), Answer::Valid(LeaseNumber(1)));
    assert_eq!(record.answer(Standing::None, true, at(50)), Answer::Valid(LeaseNumber(1)), "its answer was lost");
    assert_eq!(record.answer(Standing::Held(LeaseNumber(1)), false, at(1000)), Answer::Valid(LeaseNumber(1)));
    // Its guard was started anew, and what it guarded is gone.
    assert_eq!(record.answer(Standing::None, true, at(2000)), Answer::Admit(LeaseNumber(2)));
    assert_eq!(record.answer(Standing::None, false, at(2000)), Answer::Refused(AnswerRefusal::NotClear));
    record.admitted(LeaseNumber(2), at(2000));
    let stale = record.answer(Standing::Held(LeaseNumber(1)), true, at(2001));
    assert_eq!(stale, Answer::Refused(AnswerRefusal::OtherNumber));
}

#[test]
fn a_host_is_lost_after_its_lease_and_the_margin_and_then_never_answered() {
    let mut record = LeaseRecord::of_row(Some(LeaseNumber(7)), false, at(0));
    assert_eq!(record.answer(Standing::Held(LeaseNumber(7)), false, at(500)), Answer::Valid(LeaseNumber(7)));
    assert_eq!(record.judge(&TIMING, at(0), at(6500)), None);
    assert_eq!(record.judge(&TIMING, at(501), at(6501)), None, "silence counts from when this manager began");
    assert_eq!(record.judge(&TIMING, at(0), at(6501)), Some(LeaseNumber(7)));
    assert_eq!(record.judge(&TIMING, at(0), at(9000)), None, "once");
    for standing in [Standing::Held(LeaseNumber(7)), Standing::Lapsed(LeaseNumber(7)), Standing::None] {
        assert_eq!(record.answer(standing, true, at(7000)), Answer::Refused(AnswerRefusal::Judged));
    }
    record.readmit(at(10_000));
    let same = record.answer(Standing::Held(LeaseNumber(7)), false, at(10_000));
    assert_eq!(same, Answer::Valid(LeaseNumber(7)), "a host that says this never reported that it is clear");
    assert_eq!(record.answer(Standing::Lapsed(LeaseNumber(7)), true, at(10_001)), Answer::Admit(LeaseNumber(8)));
}

#[test]
fn a_manager_that_was_paused_notices() {
    assert!(!was_paused(at(0), 200, at(600)) && was_paused(at(0), 200, at(601)));
    assert!(!was_paused(at(0), 50, at(500)) && was_paused(at(0), 50, at(501)));
    assert!(!was_paused(at(9), 200, at(3)), "no clock runs backwards");
}

#[test]
fn timings_that_make_no_sense_are_refused_by_their_keys() {
    assert_eq!(LeaseTiming::default().objections(), []);
    for (bad, key) in [
        (LeaseTiming { heartbeat_ms: 0, ..TIMING }, "heartbeat_ms"),
        (LeaseTiming { duration_ms: 2999, ..TIMING }, "duration_ms"),
        (LeaseTiming { duration_ms: u64::MAX, ..TIMING }, "duration_ms"),
        (LeaseTiming { margin_ms: 199, ..TIMING }, "margin_ms"),
        (LeaseTiming { margin_ms: u64::MAX, ..TIMING }, "margin_ms"),
        (LeaseTiming { duration_ms: 500_000, ..TIMING }, "margin_ms"),
    ] {
        assert!(bad.objections().iter().any(|(found, _)| *found == key), "{key}: {:?}", bad.objections());
    }
}

/// What happens to a host and its manager, one after the other. Times are of no clock of theirs.
#[derive(Debug, Clone)]
enum Event {
    Pass {
        ms: u64,
    },
    /// The host's agent reads its guard's standing and the clock. It may send that much later.
    Compose,
    Send,
    /// The heartbeat at this place of those under way arrives, or is lost.
    Arrive {
        place: usize,
        lost: bool,
    },
    Answered {
        place: usize,
        lost: bool,
    },
    /// The number that was to be made durable is.
    Stored,
    Judge,
    /// Another manager takes over.
    TakeOver,
    Readmit,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0_u64..2500).prop_map(|ms| Event::Pass { ms }),
        6 => Just(Event::Compose),
        6 => Just(Event::Send),
        6 => (0..4_usize, prop::bool::weighted(0.2)).prop_map(|(place, lost)| Event::Arrive { place, lost }),
        6 => (0..4_usize, prop::bool::weighted(0.2)).prop_map(|(place, lost)| Event::Answered { place, lost }),
        4 => Just(Event::Stored),
        3 => Just(Event::Judge),
        1 => Just(Event::TakeOver),
        1 => Just(Event::Readmit),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    standing: Standing,
    clear: bool,
    sent_at: BootInstant,
}

/// A host and its manager, whose clocks have different speeds and know nothing of each other.
struct Pair {
    real_ms: u64,
    /// The speeds of the clocks, in millionths of the true one.
    host_ppm: u64,
    manager_ppm: u64,
    lease: HostLease,
    /// Whether something fenced runs on the host.
    runs: bool,
    composed: Option<Beat>,
    beats: Vec<Beat>,
    answers: Vec<Grant>,
    record: LeaseRecord,
    since: BootInstant,
    durable: Option<LeaseNumber>,
    to_store: Option<LeaseNumber>,
    verdict: bool,
}

impl Pair {
    fn new(host_ppm: u64, manager_ppm: u64) -> Self {
        Self {
            real_ms: 0,
            host_ppm,
            manager_ppm,
            lease: HostLease::None,
            runs: false,
            composed: None,
            beats: vec![],
            answers: vec![],
            record: LeaseRecord::of_row(None, false, at(0)),
            since: at(0),
            durable: None,
            to_store: None,
            verdict: false,
        }
    }

    fn host_now(&self) -> BootInstant {
        BootInstant(77 * NANOS_PER_MS + self.real_ms * self.host_ppm)
    }

    fn manager_now(&self) -> BootInstant {
        BootInstant(123_456 * NANOS_PER_MS + self.real_ms * self.manager_ppm)
    }

    fn step(&mut self, event: &Event) {
        let (host_now, manager_now) = (self.host_now(), self.manager_now());
        match event {
            Event::Pass { ms } => self.real_ms += ms,
            Event::Compose => {
                let standing = self.lease.standing();
                self.composed = Some(Beat { standing, clear: !self.runs, sent_at: host_now });
            }
            Event::Send => self.beats.extend(self.composed.take()),
            Event::Arrive { place, lost } if !self.beats.is_empty() => {
                let beat = self.beats.remove(place % self.beats.len());
                match self.record.answer(beat.standing, beat.clear, manager_now) {
                    Answer::Valid(number) if !lost => {
                        let valid_until = beat.sent_at.plus_ms(TIMING.duration_ms);
                        self.answers.push(Grant { number, valid_until });
                    }
                    Answer::Admit(number) => self.to_store = Some(number),
                    Answer::Valid(_) | Answer::Refused(_) => {}
                }
            }
            Event::Answered { place, lost } if !self.answers.is_empty() => {
                let grant = self.answers.remove(place % self.answers.len());
                if !lost && self.lease.grant(grant, host_now, !self.runs).is_ok() {
                    self.runs = true;
                }
            }
            Event::Stored => {
                if let Some(number) = self.to_store.take() {
                    self.durable = self.durable.max(Some(number));
                    self.record.admitted(number, manager_now);
                }
            }
            Event::Judge => self.verdict |= self.record.judge(&TIMING, self.since, manager_now).is_some(),
            Event::TakeOver => {
                self.to_store = None;
                self.since = manager_now;
                self.record = LeaseRecord::of_row(self.durable, self.verdict, manager_now);
            }
            Event::Readmit if self.verdict && !self.runs => {
                self.verdict = false;
                self.record.readmit(manager_now);
            }
            Event::Arrive { .. } | Event::Answered { .. } | Event::Readmit => {}
        }
        // The guard never sleeps.
        if self.lease.elapse(self.host_now()) {
            self.runs = false;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Clocks that differ by 5 % (real ones differ by 0.02 %), messages that are late, lost or overtaken, an agent that is paused between
    /// looking at the clock and sending, managers that follow each other.
    #[test]
    fn nothing_runs_under_a_lease_that_was_judged(
        host_ppm in 970_000_u64..=1_030_000,
        manager_ppm in 970_000_u64..=1_030_000,
        events in prop::collection::vec(event(), 1..160),
    ) {
        let mut pair = Pair::new(host_ppm, manager_ppm);
        for event in &events {
            pair.step(event);
            prop_assert!(!(pair.verdict && pair.runs), "it was judged, and runs");
        }
    }

    /// While answers come in time, nothing ends and nobody is judged, whoever leads.
    #[test]
    fn a_host_that_is_answered_keeps_its_lease(
        host_ppm in 970_000_u64..=1_030_000,
        manager_ppm in 970_000_u64..=1_030_000,
        delays in prop::collection::vec((0_u64..700, 0_u64..700, prop::bool::weighted(0.1)), 2..60),
    ) {
        let (mut pair, mut begun) = (Pair::new(host_ppm, manager_ppm), false);
        for (up, down, take_over) in &delays {
            let round = [
                Event::Compose,
                Event::Send,
                Event::Pass { ms: *up },
                Event::Arrive { place: 0, lost: false },
                Event::Stored,
                Event::Pass { ms: *down },
                Event::Answered { place: 0, lost: false },
                Event::Judge,
            ];
            if *take_over {
                pair.step(&Event::TakeOver);
            }
            round.iter().for_each(|event| pair.step(event));
            prop_assert!(!pair.verdict);
            let held = matches!(pair.lease, HostLease::Held { .. });
            prop_assert!(held || !begun, "it was answered, and lapsed");
            begun |= held;
        }
    }
}
