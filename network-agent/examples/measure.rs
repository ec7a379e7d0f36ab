//! How fast a host programs its ports: one JSON object per line. Needs root; makes one namespace and removes it.
//! `cargo run --release -p network-agent --example measure -- [ports]`

use domain::{InstanceId, NetworkId, PortId, SecurityGroupId, SubnetId};
use network_agent::{
    config::Config,
    host::{Host, reconcile},
    link::netns::Worker,
};
use proto::network::v1 as pb;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

fn desired(id: String, generation: i64, object: pb::desired::Object) -> pb::Desired {
    let version = Some(pb::Version { epoch: 1, generation });
    pb::Desired { id, version, object: Some(object), ..Default::default() }
}

fn group(id: SecurityGroupId, generation: i64, port: u32) -> pb::Desired {
    let rule = |direction: &str, port: Option<u32>| pb::SecurityRule {
        direction: direction.into(),
        ethertype: "ipv4".into(),
        protocol: port.map(|_| 6),
        port_first: port,
        port_last: port,
        ..Default::default()
    };
    let rules = vec![rule("egress", None), rule("ingress", Some(port))];
    desired(
        id.to_string(),
        generation,
        pb::desired::Object::SecurityGroup(pb::SecurityGroup { rules, ..Default::default() }),
    )
}

fn port(n: u32, net: NetworkId, group: SecurityGroupId) -> (PortId, InstanceId, pb::Desired) {
    let (id, instance) = (PortId::new(), InstanceId::new());
    let [_, b, c, d] = n.to_be_bytes();
    let object = pb::Port {
        network_id: net.to_string(),
        mac: format!("02:00:00:{b:02x}:{c:02x}:{d:02x}"),
        fixed_ips: vec![format!("10.0.{c}.{d}"), format!("fd00::{n:x}")],
        security_group_ids: vec![group.to_string()],
        binding: Some(pb::port::Binding::Local(pb::LocalBinding { instance_id: instance.to_string(), metadata: None })),
        hostname: format!("vm{n}"),
        ..Default::default()
    };
    (id, instance, desired(id.to_string(), 1, pb::desired::Object::Port(object)))
}

async fn settled(host: &Host) {
    let mut news = host.signal.news();
    while host.signal.pending() > 0 {
        let _ = news.changed().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(1000), |n| n.parse())?;
    let dir = std::env::temp_dir().join(format!("measure-{}", std::process::id()));
    let config = Config {
        state_dir: dir.clone(),
        prefix: format!("measure-{}", std::process::id()),
        underlay_address: "127.0.0.1".parse()?,
        vxlan_port: 14789,
        audit_secs: 3600,
        ..Config::default()
    };
    let host = Arc::new(Host::open(config, Worker::current()?)?);
    let shutdown = CancellationToken::new();
    let looping = tokio::spawn(reconcile::run(Arc::clone(&host), shutdown.clone()));
    let (net, sg) = (NetworkId::new(), SecurityGroupId::new());
    let subnet = |cidr: &str, gateway: &str| pb::Subnet {
        id: SubnetId::new().to_string(),
        cidr: cidr.into(),
        gateway: gateway.into(),
        dhcp: true,
        ..Default::default()
    };
    let network = pb::Network {
        vni: 77,
        mtu: 1450,
        gateway_mac: "02:00:5e:00:00:01".into(),
        subnets: vec![subnet("10.0.0.0/16", "10.0.0.1"), subnet("fd00::/64", "fd00::1")],
        ..Default::default()
    };
    let ports: Vec<_> = (10..10 + count).map(|n| port(n, net, sg)).collect();
    let mut words = vec![desired(net.to_string(), 1, pb::desired::Object::Network(network)), group(sg, 1, 22)];
    words.extend(ports.iter().map(|(_, _, word)| word.clone()));
    let began = Instant::now();
    host.accept(words, 1).await?;
    settled(&host).await;
    let programmed = began.elapsed();
    let acquiring = ports.iter().map(|(id, instance, _)| host.acquire(*id, *instance, 1, Duration::from_secs(60)));
    let acquired = futures::future::join_all(acquiring).await;
    let refused = acquired.iter().filter(|got| got.is_err()).count();
    let full = began.elapsed();
    let mut one = Vec::new();
    for n in 0..50 {
        let (id, instance, word) = port(40_000 + n, net, sg);
        let began = Instant::now();
        host.accept(vec![word], i64::from(n) + 2).await?;
        host.acquire(id, instance, 1, Duration::from_secs(60)).await.map_err(|r| r.detail)?;
        one.push(began.elapsed());
    }
    let mut rule = Vec::new();
    for n in 0..50 {
        let began = Instant::now();
        host.accept(vec![group(sg, i64::from(n) + 2, 1000 + n)], i64::from(n) + 100).await?;
        settled(&host).await;
        rule.push(began.elapsed());
    }
    let began = Instant::now();
    let tombstone = pb::Desired {
        id: net.to_string(),
        version: Some(pb::Version { epoch: 1, generation: 2 }),
        deleted: true,
        kind: pb::ObjectKind::Network.into(),
        ..Default::default()
    };
    host.accept(vec![tombstone], 1000).await?;
    settled(&host).await;
    let removed = began.elapsed();
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    let at = |times: &mut Vec<Duration>, share: f64| {
        times.sort_unstable();
        ms(times[((times.len() - 1) as f64 * share) as usize])
    };
    println!(
        "{}",
        serde_json::json!({"ports": count, "refused": refused, "programmed_ms": ms(programmed), "full_program_ms": ms(full),
            "one_port_ms_p50": at(&mut one, 0.5), "one_port_ms_p99": at(&mut one, 0.99),
            "rule_change_ms_p50": at(&mut rule, 0.5), "rule_change_ms_p99": at(&mut rule, 0.99), "removed_ms": ms(removed)})
    );
    shutdown.cancel();
    looping.await?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
