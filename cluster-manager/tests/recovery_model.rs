//! Recovery and return, every interleaving of them: two hosts that lose power, boot, connect and are cut off at any moment, one instance, an operator who declares hosts
//! lost, and a manager that takes the instance from one to the other and admits hosts again. Proofs are lost, or come late.
//!
//! What the model takes from the code: a verdict is refused for a host that is shown as up; taking is one unit guarded by the verdict, and not done while the host's agent is
//! connected; the verdict's end is guarded by nothing being left to prove; a session says at its beginning whether starts are withheld, and an agent that was told nothing in
//! this life starts nothing that may run elsewhere. What it leaves out: capacity, several instances, and operators who are wrong.

use stateright::{Checker, Model, Property};

const HOSTS: usize = 2;
/// Epochs that one run may reach, and losses of power in it.
const EPOCHS: u8 = 3;
const LOSSES: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Permit {
    Unknown,
    Granted,
    Withheld,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Host {
    on: bool,
    permit: Permit,
    /// The epoch that its ledger holds.
    holds: Option<u8>,
    runs: bool,
    connected: bool,
    /// The report that this epoch is gone is on its way.
    proof: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Fleet {
    hosts: [Host; HOSTS],
    /// The rows.
    up: [bool; HOSTS],
    lost: [bool; HOSTS],
    taken: [Option<u8>; HOSTS],
    host: usize,
    epoch: u8,
    losses: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    LosePower(usize),
    Boot(usize),
    Connect(usize),
    Cut(usize),
    ShowDisconnected(usize),
    Declare(usize),
    Take,
    Deliver(usize),
    End(usize),
    LoseProof(usize),
    Prove(usize),
    Admit(usize),
    Start(usize),
}

struct Recovery {
    /// Whether agents ask before they start what may run elsewhere. Without that it must fail, or it proves nothing.
    agents_ask: bool,
}

impl Recovery {
    fn may(&self, fleet: &Fleet, step: Step) -> bool {
        let host = |at: usize| fleet.hosts[at];
        match step {
            Step::LosePower(at) => host(at).on && fleet.losses > 0,
            Step::Boot(at) => !host(at).on,
            Step::Connect(at) => host(at).on && !host(at).connected,
            Step::Cut(at) => host(at).connected,
            Step::ShowDisconnected(at) => fleet.up[at] && !host(at).connected,
            // The operator is right: nothing runs, and nothing may start by what its agent was told before.
            Step::Declare(at) => {
                !fleet.lost[at] && !fleet.up[at] && !host(at).runs && host(at).permit != Permit::Granted
            }
            Step::Take => {
                let (from, to) = (fleet.host, 1 - fleet.host);
                fleet.lost[from] && !host(from).connected && fleet.up[to] && !fleet.lost[to] && fleet.epoch < EPOCHS
            }
            Step::Deliver(at) => {
                host(at).connected && !fleet.lost[at] && fleet.host == at && host(at).holds != Some(fleet.epoch)
            }
            Step::End(at) => host(at).connected && fleet.lost[at] && fleet.taken[at].is_some(),
            Step::LoseProof(at) | Step::Prove(at) => host(at).proof.is_some(),
            Step::Admit(at) => fleet.lost[at] && fleet.taken[at].is_none() && host(at).connected,
            Step::Start(at) => {
                let allowed = host(at).permit == Permit::Granted || !self.agents_ask;
                host(at).on && host(at).holds.is_some() && !host(at).runs && allowed
            }
        }
    }

    fn take(fleet: &mut Fleet, step: Step) {
        match step {
            Step::LosePower(at) => {
                fleet.losses -= 1;
                let Host { holds, proof, .. } = fleet.hosts[at];
                let (permit, on, runs, connected) = (Permit::Unknown, false, false, false);
                fleet.hosts[at] = Host { on, permit, holds, runs, connected, proof };
            }
            Step::Boot(at) => fleet.hosts[at].on = true,
            Step::Connect(at) => {
                fleet.up[at] = !fleet.lost[at];
                let host = &mut fleet.hosts[at];
                host.connected = true;
                host.permit = if fleet.lost[at] { Permit::Withheld } else { Permit::Granted };
                // What its Hello doesn't list is proved.
                if host.holds.is_none() {
                    fleet.taken[at] = None;
                }
            }
            Step::Cut(at) => fleet.hosts[at].connected = false,
            Step::ShowDisconnected(at) => fleet.up[at] = false,
            Step::Declare(at) => {
                fleet.lost[at] = true;
                fleet.hosts[at].connected = false;
            }
            Step::Take => {
                fleet.taken[fleet.host] = Some(fleet.epoch);
                fleet.epoch += 1;
                fleet.host = 1 - fleet.host;
            }
            Step::Deliver(at) => fleet.hosts[at].holds = Some(fleet.epoch),
            Step::End(at) => {
                let (epoch, host) = (fleet.taken[at], &mut fleet.hosts[at]);
                if host.holds <= epoch {
                    (host.holds, host.runs) = (None, false);
                }
                host.proof = epoch;
            }
            Step::LoseProof(at) => fleet.hosts[at].proof = None,
            Step::Prove(at) => {
                let proof = fleet.hosts[at].proof.take();
                if fleet.taken[at] == proof {
                    fleet.taken[at] = None;
                }
            }
            Step::Admit(at) => {
                (fleet.lost[at], fleet.up[at]) = (false, false);
                fleet.hosts[at].connected = false;
            }
            Step::Start(at) => fleet.hosts[at].runs = true,
        }
    }
}

impl Model for Recovery {
    type State = Fleet;
    type Action = Step;

    fn init_states(&self) -> Vec<Fleet> {
        let idle = Host { on: true, permit: Permit::Granted, holds: None, runs: false, connected: true, proof: None };
        let first = Host { holds: Some(1), runs: true, ..idle };
        vec![Fleet {
            hosts: [first, idle],
            up: [true; HOSTS],
            lost: [false; HOSTS],
            taken: [None; HOSTS],
            host: 0,
            epoch: 1,
            losses: LOSSES,
        }]
    }

    fn actions(&self, fleet: &Fleet, actions: &mut Vec<Step>) {
        let kinds = [
            Step::LosePower,
            Step::Boot,
            Step::Connect,
            Step::Cut,
            Step::ShowDisconnected,
            Step::Declare,
            Step::Deliver,
            Step::End,
            Step::LoseProof,
            Step::Prove,
            Step::Admit,
            Step::Start,
        ];
        let all = kinds.iter().flat_map(|kind| (0..HOSTS).map(kind)).chain([Step::Take]);
        actions.extend(all.filter(|step| self.may(fleet, *step)));
    }

    fn next_state(&self, fleet: &Fleet, step: Step) -> Option<Fleet> {
        let mut next = fleet.clone();
        Self::take(&mut next, step);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("it runs on one host at most", |_, fleet: &Fleet| {
                fleet.hosts.iter().filter(|host| host.runs).count() <= 1
            }),
            Property::always("a host that isn't lost has nothing to prove", |_, fleet: &Fleet| {
                (0..HOSTS).all(|at| fleet.lost[at] || fleet.taken[at].is_none())
            }),
            Property::sometimes("it goes to the other host and back, and both hosts are there", |_, fleet: &Fleet| {
                fleet.epoch == EPOCHS && fleet.up == [true; HOSTS] && fleet.hosts[fleet.host].runs
            }),
            Property::sometimes("a host comes back before anything was taken from it", |_, fleet: &Fleet| {
                fleet.epoch == 1 && fleet.losses < LOSSES && fleet.hosts[0].runs
            }),
        ]
    }
}

#[test]
fn every_interleaving_of_losses_recoveries_and_returns_runs_an_instance_once_at_most() {
    let checker = Recovery { agents_ask: true }.checker().spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
}

#[test]
fn agents_that_start_by_their_ledger_alone_would_run_it_twice() {
    let checker = Recovery { agents_ask: false }.checker().spawn_bfs().join();
    assert!(checker.discovery("it runs on one host at most").is_some());
}
