//! Network cards of real guests, over real taps: acquired before a start, plugged in and taken out while the guest runs, given back
//! with its end.

use crate::{
    ports::Ports,
    rig::{Host, Want, eventually},
};
use proto::cluster::v1::{InstanceState as S, Power};

async fn host() -> Option<(Host, Ports)> {
    let host =
        Host::start_with(1, |config| config.port_socket = config.run_dir.with_file_name("net/port.sock")).await?;
    let ports = Ports::start(&host.config.port_socket);
    Some((host, ports))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_its_port_and_the_guest_is_reached_through_it_until_it_stops() {
    let Some((mut host, ports)) = host().await else { return };
    let port = ports.port(1);
    let mut want = Want::tiny(&host, "web-1");
    want.desired.ports = vec![port.desired()];
    host.manager.want(&want.desired);
    let waits = format!("waiting for network port {}", port.id);
    let waiting = host.manager.report(&want.id(), "it waits", move |r| r.step == waits).await;
    assert!(waiting.reason.contains("the ledger is behind"), "{waiting:?}");
    assert_eq!((waiting.state(), host.qemu(&want)), (S::Building, None));
    ports.learn(&port);
    host.reached(&want, S::Running).await;
    ports.answers(&port).await;
    assert_eq!(ports.acquired(), [port.id]);

    // An agent that comes back finds the card in, and touches nothing.
    let qemu = host.qemu(&want);
    host.kill_agent().await;
    assert!(ports.ping(&port), "a guest needs no agent");
    host.start_agent().await;
    host.reach(&want, S::Running).await;
    assert_eq!((host.qemu(&want), ports.acquired().len()), (qemu.clone(), 1));
    assert!(ports.ping(&port));

    // QEMU dies: what is started in its place acquires anew.
    let pid = qemu.expect("it runs").pid;
    let pid = rustix::process::Pid::from_raw(pid).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    host.manager.report(&want.id(), "it crashed and runs", |r| r.crash_count == 1 && r.converged).await;
    ports.answers(&port).await;
    assert_eq!(ports.acquired(), [port.id, port.id]);

    want.power(Power::Off);
    host.reach(&want, S::Stopped).await;
    eventually("the port is given back", || (ports.released() == [port.id]).then_some(())).await;
    assert!(ports.free(&port));
    want.power(Power::On);
    host.reach(&want, S::Running).await;
    ports.answers(&port).await;
    want.delete();
    host.manager.want(&want.desired);
    host.manager.report(&want.id(), "gone", |r| r.state() == S::Deleted).await;
    assert_eq!(ports.released(), [port.id, port.id]);
    assert!(ports.free(&port));
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_come_and_go_while_the_guest_runs_also_across_a_killed_agent() {
    let Some((mut host, ports)) = host().await else { return };
    let (first, second) = (ports.port(1), ports.port(2));
    let mut want = Want::tiny(&host, "web-2");
    host.reach(&want, S::Running).await;
    host.guest_up(&want, 0).await;
    let qemu = host.qemu(&want);
    ports.learn(&first);
    want.desired.ports = vec![first.desired()];
    want.change(|_| {});
    host.reach(&want, S::Running).await;
    ports.answers(&first).await;

    // The agent is killed while a card is on its way: its port isn't there yet.
    want.desired.ports.push(second.desired());
    want.change(|_| {});
    host.manager.want(&want.desired);
    let behind = |r: &proto::agent::v1::Report| r.reason.contains("the ledger is behind");
    host.manager.report(&want.id(), "it waits for the second", behind).await;
    host.kill_agent().await;
    ports.learn(&second);
    host.start_agent().await;
    host.reached(&want, S::Running).await;
    ports.answers(&second).await;
    assert!(ports.ping(&first));

    want.desired.ports.remove(0);
    want.change(|_| {});
    host.reach(&want, S::Running).await;
    assert_eq!(ports.released(), [first.id]);
    assert!(ports.free(&first) && !ports.ping(&first) && ports.ping(&second));
    // And in again, into the slot that is free.
    want.desired.ports.insert(0, first.desired());
    want.change(|_| {});
    host.reach(&want, S::Running).await;
    ports.answers(&first).await;
    assert_eq!(host.qemu(&want), qemu, "the same machine all the while");
    assert_eq!(ports.acquired(), [first.id, second.id, first.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_the_network_agent_only_take_longer() {
    let Some((host, ports)) = host().await else { return };
    let (first, second) = (ports.port(1), ports.port(2));
    ports.learn(&first);
    ports.learn(&second);
    let mut want = Want::tiny(&host, "web-3");
    want.desired.ports = vec![first.desired()];
    ports.lose_answers(2);
    host.reach(&want, S::Running).await;
    assert!(ports.all_lost());
    host.guest_up(&want, 0).await;
    ports.lose_answers(1);
    want.desired.ports.push(second.desired());
    want.change(|_| {});
    host.reach(&want, S::Running).await;
    ports.answers(&second).await;
    ports.lose_answers(2);
    want.desired.ports.remove(0);
    want.change(|_| {});
    host.reach(&want, S::Running).await;
    assert!(ports.all_lost() && ports.free(&first) && ports.ping(&second));
    // A deletion isn't held up by a network-agent that never answers.
    ports.lose_answers(u32::MAX);
    want.delete();
    host.manager.want(&want.desired);
    host.manager.report(&want.id(), "gone", |r| r.state() == S::Deleted).await;
}
