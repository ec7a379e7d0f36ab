//! NICs of real guests, over real taps: acquired before a start, plugged in and unplugged while the guest runs, released
//! with its end.

use crate::{
    ports::Ports,
    rig::{Host, TestInstance, eventually},
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
    let mut instance = TestInstance::tiny(&host, "web-1");
    instance.desired.ports = vec![port.desired()];
    host.manager.instance(&instance.desired);
    let waits = format!("waiting for network port {}", port.id);
    let waiting = host.manager.report(&instance.id(), "it waits", move |r| r.step == waits).await;
    assert!(waiting.reason.contains("the ledger is behind"), "{waiting:?}");
    assert_eq!((waiting.state(), host.qemu(&instance)), (S::Building, None));
    ports.add(&port);
    host.reached(&instance, S::Running).await;
    ports.answers(&port).await;
    assert_eq!(ports.acquired(), [port.id]);

    // An agent that comes back finds the NIC in, and touches nothing.
    let qemu = host.qemu(&instance);
    host.kill_agent().await;
    assert!(ports.ping(&port), "a guest needs no agent");
    host.start_agent().await;
    host.reach(&instance, S::Running).await;
    assert_eq!((host.qemu(&instance), ports.acquired().len()), (qemu.clone(), 1));
    assert!(ports.ping(&port));

    // QEMU dies: what is started in its place acquires anew.
    let pid = qemu.expect("it runs").pid;
    let pid = rustix::process::Pid::from_raw(pid).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    host.manager.report(&instance.id(), "it crashed and runs", |r| r.crash_count == 1 && r.converged).await;
    ports.answers(&port).await;
    assert_eq!(ports.acquired(), [port.id, port.id]);

    instance.power(Power::Off);
    host.reach(&instance, S::Stopped).await;
    eventually("the port is given back", || (ports.released() == [port.id]).then_some(())).await;
    assert!(ports.free(&port));
    instance.power(Power::On);
    host.reach(&instance, S::Running).await;
    ports.answers(&port).await;
    instance.delete();
    host.manager.instance(&instance.desired);
    host.manager.report(&instance.id(), "gone", |r| r.state() == S::Deleted).await;
    assert_eq!(ports.released(), [port.id, port.id]);
    assert!(ports.free(&port));
}

#[tokio::test(flavor = "multi_thread")]
async fn nics_come_and_go_while_the_guest_runs_also_across_a_killed_agent() {
    let Some((mut host, ports)) = host().await else { return };
    let (first, second) = (ports.port(1), ports.port(2));
    let mut instance = TestInstance::tiny(&host, "web-2");
    host.reach(&instance, S::Running).await;
    host.guest_up(&instance, 0).await;
    let qemu = host.qemu(&instance);
    ports.add(&first);
    instance.desired.ports = vec![first.desired()];
    instance.change(|_| {});
    host.reach(&instance, S::Running).await;
    ports.answers(&first).await;

    // The agent is killed while a NIC is on its way: its port isn't there yet.
    instance.desired.ports.push(second.desired());
    instance.change(|_| {});
    host.manager.instance(&instance.desired);
    let behind = |r: &crate::stand_in::Report| r.reason.contains("the ledger is behind");
    host.manager.report(&instance.id(), "it waits for the second", behind).await;
    host.kill_agent().await;
    ports.add(&second);
    host.start_agent().await;
    host.reached(&instance, S::Running).await;
    ports.answers(&second).await;
    assert!(ports.ping(&first));

    instance.desired.ports.remove(0);
    instance.change(|_| {});
    host.reach(&instance, S::Running).await;
    assert_eq!(ports.released(), [first.id]);
    assert!(ports.free(&first) && !ports.ping(&first) && ports.ping(&second));
    // And in again, into the slot that is free.
    instance.desired.ports.insert(0, first.desired());
    instance.change(|_| {});
    host.reach(&instance, S::Running).await;
    ports.answers(&first).await;
    assert_eq!(host.qemu(&instance), qemu, "the same machine all the while");
    assert_eq!(ports.acquired(), [first.id, second.id, first.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_the_network_agent_only_take_longer() {
    let Some((host, ports)) = host().await else { return };
    let (first, second) = (ports.port(1), ports.port(2));
    ports.add(&first);
    ports.add(&second);
    let mut instance = TestInstance::tiny(&host, "web-3");
    instance.desired.ports = vec![first.desired()];
    ports.lose_answers(2);
    host.reach(&instance, S::Running).await;
    assert!(ports.all_lost());
    host.guest_up(&instance, 0).await;
    ports.lose_answers(1);
    instance.desired.ports.push(second.desired());
    instance.change(|_| {});
    host.reach(&instance, S::Running).await;
    ports.answers(&second).await;
    ports.lose_answers(2);
    instance.desired.ports.remove(0);
    instance.change(|_| {});
    host.reach(&instance, S::Running).await;
    assert!(ports.all_lost() && ports.free(&first) && ports.ping(&second));
    // A deletion isn't held up by a network-agent that never answers.
    ports.lose_answers(u32::MAX);
    instance.delete();
    host.manager.instance(&instance.desired);
    host.manager.report(&instance.id(), "gone", |r| r.state() == S::Deleted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_agent_that_forgot_everything_learns_the_ports_of_running_instances_alone() {
    let Some((host, ports)) = host().await else { return };
    let (running, stopped) = (ports.port(1), ports.port(2));
    let mut instances = Vec::new();
    for (name, port) in [("web-1", &running), ("web-2", &stopped)] {
        ports.add(port);
        let mut instance = TestInstance::tiny(&host, name);
        instance.desired.ports = vec![port.desired()];
        host.manager.instance(&instance.desired);
        host.reached(&instance, S::Running).await;
        instances.push(instance);
    }
    ports.answers(&running).await;
    instances[1].power(Power::Off);
    host.reach(&instances[1], S::Stopped).await;
    eventually("its port is released", || (ports.released() == [stopped.id]).then_some(())).await;
    eventually("it attends", || ports.attended().then_some(())).await;
    for _ in 0..2 {
        ports.restart_without_memory();
        eventually("the port is confirmed", || (!ports.confirmed().is_empty()).then_some(())).await;
        eventually("it attends again", || ports.attended().then_some(())).await;
        let holder = instances[0].desired.instance_id.parse().ok();
        assert_eq!(ports.confirmed(), [(running.id, holder)]);
    }
    assert!(ports.ping(&running));
    assert_eq!(ports.acquired().len(), 2, "no tap was opened again");
}
