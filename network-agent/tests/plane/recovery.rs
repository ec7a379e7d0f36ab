//! A ledger that is lost, as a whole or in part, while guests run: nothing of theirs is cut.

use crate::rig::{Guest, Lab, TestHost, TestPort, eventually, group, inside, network, open_rules, root, run};
use domain::{NetworkId, SecurityGroupId};
use network_agent::model::state::Wiring;
use proto::sync::v1::DesiredObject;
use std::path::PathBuf;

const PINGS: u32 = 250;

struct Running {
    lab: Lab,
    host: TestHost,
    objects: Vec<DesiredObject>,
    ports: [TestPort; 2],
    guests: [Guest; 2],
}

async fn running() -> Running {
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Veth).await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort::new(1, &["10.0.0.5"], &[sg]);
    let b = TestPort::new(2, &["10.0.0.6"], &[sg]);
    let objects =
        vec![network(net, 100, &["10.0.0.0/24"], &[], None), group(sg, 1, &open_rules()), a.local(net), b.local(net)];
    host.send(&objects).await;
    host.acquire(&a).await;
    host.acquire(&b).await;
    let guests = [lab.static_guest(&host, net, &a), lab.static_guest(&host, net, &b)];
    guests[0].reaches("10.0.0.6");
    Running { lab, host, objects, ports: [a, b], guests }
}

fn journal(host: &TestHost) -> PathBuf {
    host.config.state_dir.join("ledger/network.journal")
}

/// Flips one byte in the last line that says so.
fn damage(text: &mut [u8], says: &str) {
    let lines: Vec<usize> = (0..text.len()).filter(|at| *at == 0 || text[*at - 1] == b'\n').collect();
    let line = lines.into_iter().rfind(|at| text[*at..].starts_with(says.as_bytes())).expect("there is such a line");
    text[line + says.len() + 30] ^= 1;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_or_record_cuts_no_running_guest() {
    if !root() {
        return;
    }
    let Running { lab: _lab, mut host, objects, ports, guests } = running().await;
    let losses =
        ["everything", r#"{"kind":"network"#, r#"{"kind":"security_group"#, r#"{"kind":"port"#, r#"{"commit""#];
    for loss in losses {
        let path = journal(&host);
        let pinging = {
            let count = PINGS;
            inside(&guests[0].ns, move || run(&format!("ping -n -q -c {count} -i 0.01 -W 3 10.0.0.6")).1)
        };
        let stopped = host.kill().await;
        if loss == "everything" {
            std::fs::remove_file(&path).expect("there was one");
        } else {
            let mut text = std::fs::read(&path).expect("readable");
            damage(&mut text, loss);
            std::fs::write(&path, text).expect("written");
        }
        host = TestHost::restart(stopped);
        // The manager sends everything, in the order that hurts most: the ports last.
        guests[0].reaches("10.0.0.6");
        host.host.accept(objects.clone(), 7).await.expect("taken");
        guests[0].reaches("10.0.0.6");
        for port in &ports {
            let confirmed = host.host.confirm(port.id, port.instance, port.epoch, crate::rig::TIMEOUT).await;
            assert!(confirmed.is_ok(), "{loss}: {confirmed:?}");
        }
        host.settled().await;
        let said = pinging.join().expect("thread");
        assert!(said.contains(&format!("{PINGS} received")), "{loss}: {said}");
        // All is known again, durably.
        host = TestHost::restart(host.kill().await);
        host.settled().await;
        guests[0].reaches("10.0.0.6");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_nobody_confirms_goes_once_the_manager_has_spoken() {
    if !root() {
        return;
    }
    let Running { lab: _lab, host, objects, ports, guests } = running().await;
    let path = journal(&host);
    let stopped = host.kill().await;
    std::fs::remove_file(&path).expect("there was one");
    let host = TestHost::restart(stopped);
    host.host.accept(objects, 7).await.expect("taken");
    let [a, b] = &ports;
    host.host.confirm(a.id, a.instance, a.epoch, crate::rig::TIMEOUT).await.expect("confirmed");
    let wrong = host.host.confirm(b.id, a.instance, b.epoch, crate::rig::TIMEOUT).await;
    assert!(wrong.is_err(), "of another instance");
    eventually("the other's way is closed", || !guests[0].pings("10.0.0.6"));
    assert!(guests[0].pings("10.0.0.1"), "the confirmed one has its network");
}
