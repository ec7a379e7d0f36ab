//! Elements by netlink and by `nft -f`: the kernel must end up with the same.

use crate::rig::{Lab, TestPort, floating, group, must, network, open_rules, root, uplink};
use domain::{FloatingIpId, NetworkId, SecurityGroupId};
use network_agent::{
    apply::rules::load,
    link::{
        netns::Worker,
        nfnetlink::{BatchError, Nfnetlink},
    },
    model::{
        DesiredState,
        object::Desired,
        state::{HostFacts, Wiring},
    },
    nft::{
        batch,
        difference::{Change, difference},
        render::{render_changes, render_full},
        rules_of,
        ruleset::Ruleset,
    },
};
use proto::sync::v1 as sync;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

fn rules(objects: &[sync::DesiredObject], acquired: &[&TestPort], network: NetworkId) -> Ruleset {
    let mut desired_state = DesiredState::default();
    for desired in objects {
        desired_state.put(Desired::parse(desired).expect("understood").object.expect("there"));
    }
    desired_state.acquired = acquired.iter().map(|port| port.id).collect();
    let facts = HostFacts {
        underlay: "10.255.0.1".parse().expect("ip"),
        vxlan_port: 4789,
        external: BTreeMap::from([("public".into(), "br-ext".into())]),
        protected: Arc::new(BTreeSet::from(["192.168.0.0/16".parse().expect("cidr")])),
        wiring: Wiring::Tap,
        tap_owner_uid: 0,
    };
    rules_of(&desired_state, &desired_state.networks[&network], &facts)
}

fn with_allowed(desired: sync::DesiredObject, allowed: &[&str]) -> sync::DesiredObject {
    let Some(sync::desired_object::Object::Port(mut port)) = desired.object else { panic!("a port") };
    port.allowed_addresses = allowed.iter().map(ToString::to_string).collect();
    sync::DesiredObject { object: Some(sync::desired_object::Object::Port(port)), ..desired }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_to_write_elements_leave_the_same_rules_and_a_stranger_is_noticed() {
    if !root() {
        return;
    }
    let lab = Lab::new().await;
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let a = TestPort { rate: 80_000_000, ..TestPort::new(1, &["10.0.0.5", "fd00::5"], &[sg]) };
    let b = TestPort { rate: 8_000_000, ..TestPort::new(2, &["10.0.0.6", "fd00::6"], &[sg]) };
    let c = TestPort::new(3, &["10.0.0.7"], &[sg]);
    let there = "10.255.0.2".parse().expect("ip");
    let d = TestPort::new(4, &["10.0.0.8", "fd00::8"], &[sg]);
    let base = [network(net, 100, &["10.0.0.0/24", "fd00::/64"], &[], Some(uplink(11))), group(sg, 1, &open_rules())];
    let fip = FloatingIpId::new();
    let faster = TestPort { rate: 160_000_000, ..a.clone() };
    let wide: &[&str] = &["10.1.0.0/16", "10.2.0.9", "fd00:7::/48"];
    let stages = [
        rules(&[&base[..], &[a.local(net), c.local(net)]].concat(), &[&a], net),
        rules(
            &[
                &base[..],
                &[
                    faster.local(net),
                    with_allowed(b.local(net), wide),
                    with_allowed(d.remote_at(net, there), wide),
                    floating(fip, 1, net, &faster, "203.0.113.50"),
                ],
            ]
            .concat(),
            &[&faster, &b],
            net,
        ),
        rules(&[&base[..], &[c.local(net), b.local(net), d.remote_at(net, there)]].concat(), &[&b], net),
    ];
    let dir = Path::new("/run/netns");
    let (one, two) = (lab.ns("batch"), lab.ns("text"));
    let by_batch = Worker::create(&dir.join(&one)).expect("made");
    let by_text = Worker::create(&dir.join(&two)).expect("made");
    let full = render_full(&stages[0]);
    for worker in [&by_batch, &by_text] {
        let full = full.clone();
        worker.run(move |_| load(&full)).await.expect("worker").expect("loaded");
    }
    let listed = |ns: &str| must(&format!("ip netns exec {ns} nft list ruleset"));
    for pair in stages.windows(2) {
        let changes = difference(&pair[0], &pair[1]);
        let moves = |change: &Change| matches!(change, Change::AddElements { .. } | Change::DeleteElements { .. });
        assert!(changes.iter().any(moves), "{changes:?}");
        let text = render_changes(&changes);
        by_text.run(move |_| load(&text)).await.expect("worker").expect("loaded");
        let committed = by_batch.run(move |inside| {
            let generation = inside.rules.generation().expect("read");
            let batch = batch::encode(&changes, generation).expect("elements alone");
            inside.rules.commit(&batch).expect("committed");
            assert_eq!(inside.rules.generation().expect("read"), generation + 1, "one transaction");
            // What was made for an earlier generation, is refused whole.
            assert!(matches!(inside.rules.commit(&batch), Err(BatchError::Stale)));
            assert_eq!(inside.rules.generation().expect("read"), generation + 1);
        });
        committed.await.expect("worker");
        assert_eq!(listed(&one), listed(&two));
    }
    // All or nothing: the second change takes away what isn't there.
    let known = listed(&one);
    let mut changes = difference(&stages[2], &stages[1]);
    let nonsense =
        difference(&stages[1], &stages[0]).into_iter().filter(|c| matches!(c, Change::DeleteElements { .. }));
    changes.extend(nonsense.clone());
    changes.extend(nonsense);
    let refused = by_batch.run(move |inside| {
        let mut socket = Nfnetlink::open().expect("a socket");
        let generation = inside.rules.generation().expect("read");
        socket.commit(&batch::encode(&changes, generation).expect("elements alone"))
    });
    let refused = refused.await.expect("worker");
    assert!(matches!(refused, Err(BatchError::Refused(_))), "{refused:?}");
    assert_eq!(listed(&one), known);
}
