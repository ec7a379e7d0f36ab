//! Ports as the compute-agent gets them: over the socket, with a real tap.

use crate::rig::{Lab, TestPort, group, network, open_rules, root};
use domain::{InstanceId, NetworkId, SecurityGroupId};
use network_agent::{
    model::{names, state::Wiring},
    port,
};
use proto::port_socket::{PortClient, PortReply, PortRequest, RefusedReason};
use std::{sync::Arc, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_handed_over_with_its_tap_and_only_under_its_epoch() {
    if !root() {
        return;
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        println!("not run: no /dev/net/tun");
        return;
    }
    let lab = Lab::new().await;
    let host = lab.host(1, Wiring::Tap).await;
    let listener = port::listen(&host.config.port_socket).expect("listening");
    let serving = tokio::spawn(port::serve(Arc::clone(&host.host), listener, host.shutdown.clone()));
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort { epoch: 3, ..TestPort::new(1, &["10.0.0.5"], &[sg]) };
    let path = host.config.port_socket.clone();
    let call = |request: PortRequest| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut client = PortClient::connect(&path).expect("connected");
            client.call(&request, Duration::from_secs(60)).expect("answered")
        })
    };
    let acquire =
        |epoch, instance_id, timeout_ms| PortRequest::Acquire { port_id: a.id, instance_id, epoch, timeout_ms };
    let refused = |reply: PortReply| {
        let PortReply::Refused { reason, .. } = reply else { panic!("{reply:?}") };
        reason
    };
    let (reply, _) = call(acquire(3, a.instance, 50)).await.expect("task");
    assert_eq!(refused(reply), RefusedReason::NotYet, "the ledger is behind, and stays so");
    // The message arrives while the caller waits.
    let waiting = call(acquire(3, a.instance, 30_000));
    host.send(&[network(net, 100, &["10.0.0.0/24"], &[], None), group(sg, 1, &open_rules()), a.local(net)]).await;
    let (reply, tap) = waiting.await.expect("task");
    assert!(matches!(reply, PortReply::Acquired { mtu: 1450, .. }), "{reply:?}");
    let link = crate::rig::must(&format!("ip -n {} -d link show {}", host.tenant(net), names::port_link(a.id)));
    assert!(link.contains("tun type tap") && link.contains("vnet_hdr on") && link.contains("persist on"), "{link}");
    assert!(link.contains("LOWER_UP"), "the descriptor holds the tap's carrier: {link}");
    // Held by another, as by a QEMU that is ending: a wait that says so, and ends when the tap is let go.
    let (reply, _) = call(acquire(3, a.instance, 50)).await.expect("task");
    assert_eq!(refused(reply), RefusedReason::NotYet, "the tap is held");
    let waiting = call(acquire(3, a.instance, 30_000));
    drop(tap);
    let (reply, tap) = waiting.await.expect("task");
    assert!(matches!(reply, PortReply::Acquired { .. }) && tap.is_some(), "{reply:?}");
    drop(tap);
    let (reply, _) = call(acquire(2, a.instance, 50)).await.expect("task");
    assert_eq!(refused(reply), RefusedReason::Stale, "an epoch that is over");
    let (reply, _) = call(acquire(3, InstanceId::new(), 50)).await.expect("task");
    assert_eq!(refused(reply), RefusedReason::NotYours);
    let (reply, _) =
        call(PortRequest::Release { port_id: a.id, instance_id: a.instance, epoch: 3 }).await.expect("task");
    assert_eq!(reply, PortReply::Released);
    let routes = crate::rig::must(&format!("ip -n {} route", host.tenant(net)));
    assert!(!routes.contains("10.0.0.5"), "released: {routes}");
    // A higher epoch ends what was handed over, also while its caller waits for a tap that another holds.
    let (_, tap) = call(acquire(3, a.instance, 5_000)).await.expect("task");
    call(PortRequest::Release { port_id: a.id, instance_id: a.instance, epoch: 3 }).await.expect("task");
    let waiting = call(acquire(3, a.instance, 30_000));
    let list = format!("ip -n {} route", host.tenant(net));
    crate::rig::eventually("it is handed over but for its tap", || crate::rig::must(&list).contains("10.0.0.5"));
    host.send(&[TestPort { epoch: 4, ..a.clone() }.local(net)]).await;
    drop(tap);
    let (reply, _) = waiting.await.expect("task");
    assert_eq!(refused(reply), RefusedReason::Stale, "its epoch ended while it waited");
    let routes = crate::rig::must(&format!("ip -n {} route", host.tenant(net)));
    assert!(!routes.contains("10.0.0.5"), "the old epoch no longer answers: {routes}");
    host.shutdown.cancel();
    serving.await.expect("ended");
}
