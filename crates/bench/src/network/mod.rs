//! `iaas-bench network`: how fast a host's network-agent makes the kernel do what it learns, with many ports present.
//!
//! The real agent against the real kernel, in namespaces of the bench's own. Times run from the agent's learning of a change, which
//! includes its durable write, until the kernel does it: for one port until its first packet was answered, for a rule until the
//! first packet passed or was refused. The bench holds the taps' descriptors as QEMU would. The reference is one port made by hand
//! with `ip -batch` and `nft -f`, the tools that others drive, in the same namespace.

pub mod message;
pub mod place;
mod restart;
mod wire;

use crate::stats::{Sample, round};
use anyhow::{Context, ensure};
use domain::{NetworkId, SecurityGroupId};
use message::{GATEWAY_MAC, MTU, OPEN, Port, text_of};
use network_agent::model::{names, state::Wiring};
use place::{Agent, Place, run_in};
use proto::sync::v1::ObjectKind;
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};
use wire::{Datagram, Wire};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(20..=20_000))]
    ports: u16,
    /// Ports added one by one, and rule changes.
    #[arg(long, default_value_t = 100)]
    runs: u16,
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Be the agent of that configuration, to be killed.
    #[arg(long, hide = true)]
    agent: Option<PathBuf>,
}

const HOST: &str = "h1";
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// For a frame that must come.
const ARRIVAL: Duration = Duration::from_secs(20);
/// Until it is sent again.
const AGAIN: Duration = Duration::from_micros(500);
/// For one that must not.
const ABSENCE: Duration = Duration::from_millis(2);

pub async fn run(args: Args) -> anyhow::Result<Value> {
    if let Some(config) = &args.agent {
        return restart::be_agent(config).await;
    }
    let mut place = Place::new(&args.dir)?;
    place.namespace(HOST).await?;
    let config = place.config(HOST, UNDERLAY, Wiring::Tap);
    let agent = Agent::start(&place, HOST, config.clone()).await?;
    let (net, group) = (NetworkId::new(), SecurityGroupId::new());
    let ports: Vec<Port> = (0..args.ports).map(|n| Port::new(n, net, group, None)).collect();

    eprintln!("{} ports from nothing", args.ports);
    let mut messages = vec![message::network(net, 77), message::group(group, 1, Some(OPEN))];
    messages.extend(ports.iter().map(|port| port.message.clone()));
    let began = Instant::now();
    agent.accept(messages.clone()).await?;
    agent.settled().await?;
    let ready_ms = ms(began.elapsed());
    let mut taps = agent.acquire_all(&ports).await?;
    let full_ms = ms(began.elapsed());
    let (sink, talker) = (wire_of(&mut taps, &ports, 0)?, wire_of(&mut taps, &ports, 1)?);
    // Only these two are used; QEMU would hold the others'.
    drop(taps);

    eprintln!("ports one by one");
    let one = one_by_one(&agent, net, group, &sink, &args).await?;
    eprintln!("rules");
    let rule = rules(&agent, group, &sink, &talker, one.runs).await?;
    agent.stop().await?;

    eprintln!("the agent is killed under traffic");
    let lost = restart::under_traffic(&place, HOST, &config, (&sink, &talker), &ports[2]).await?;

    eprintln!("everything anew");
    let began = Instant::now();
    let agent = Agent::start(&place, HOST, config.clone()).await?;
    agent.accept(messages).await?;
    agent.settled().await?;
    let resync_ms = ms(began.elapsed());
    agent.stop().await?;
    let by_hand = by_hand(&place, net, one.runs).await?;
    let agent = Agent::start(&place, HOST, config).await?;
    agent.settled().await?;
    let began = Instant::now();
    let mut messages: Vec<_> = ports.iter().map(Port::gone).collect();
    messages.push(message::gone(net.to_string(), ObjectKind::Network));
    agent.accept(messages).await?;
    agent.settled().await?;
    let remove_ms = ms(began.elapsed());

    eprintln!("a hundred networks");
    let hundred = networks(&agent, args.ports).await?;
    agent.stop().await?;
    let reference = by_hand.percentile(50.0);
    Ok(json!({
        "bench": "network",
        "ports": ports.len(),
        "ready_ms": round(ready_ms),
        "full_program_ms": round(full_ms),
        "one_port_ms_p50": round(one.answered.percentile(50.0)),
        "one_port_ms_p99": round(one.answered.percentile(99.0)),
        "one_port_ready_ms_p99": round(one.ready.percentile(99.0)),
        "rule_change_ms_p50": round(rule.percentile(50.0)),
        "rule_change_ms_p99": round(rule.percentile(99.0)),
        "resync_ms": round(resync_ms),
        "remove_ms": round(remove_ms),
        "full_program_100_networks_ms": round(hundred.0),
        "remove_100_networks_ms": round(hundred.1),
        "restart_packets": lost.sent,
        "restart_lost_packets": lost.lost,
        "by_hand_ms_p50": round(reference),
        "one_port_to_by_hand": round(one.answered.percentile(50.0) / reference),
    }))
}

pub fn ms(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1000.0
}

fn wire_of(taps: &mut [Option<OwnedFd>], ports: &[Port], n: usize) -> anyhow::Result<Wire> {
    Wire::new(taps[n].take().context("a port came without its tap")?, &ports[n])
}

struct OneByOne {
    /// Learned of until programmed, waiting for its instance.
    ready: Sample,
    /// Learned of until handed over and its first packet answered.
    answered: Sample,
    runs: u16,
}

/// Each comes, talks to a neighbour, and goes, so that as many as before are present.
async fn one_by_one(
    agent: &Agent,
    net: NetworkId,
    group: SecurityGroupId,
    sink: &Wire,
    args: &Args,
) -> anyhow::Result<OneByOne> {
    let (mut ready, mut answered) = (Vec::new(), Vec::new());
    for n in 0..args.runs {
        let port = Port::new(args.ports + n, net, group, None);
        let began = Instant::now();
        agent.accept(vec![port.message.clone()]).await?;
        agent.settled().await?;
        ready.push(ms(began.elapsed()));
        let wire = Wire::new(agent.acquire(&port).await?.context("a port came without its tap")?, &port)?;
        let number = u64::from(n);
        wire.send(Datagram { to: sink.addr, from_port: 4000, to_port: OPEN, number })?;
        ensure!(sink.receive(OPEN, ARRIVAL)? == Some(number), "the neighbour hears the new port");
        // The kernel takes note a little later that somebody holds the tap; what comes before is lost, as on any cable.
        let reply = Datagram { to: wire.addr, from_port: OPEN, to_port: 4000, number };
        loop {
            sink.send(reply)?;
            if wire.receive(4000, AGAIN)? == Some(number) {
                break;
            }
            ensure!(began.elapsed() < ARRIVAL, "the new port hears the neighbour");
        }
        answered.push(ms(began.elapsed()));
        drop(wire);
        agent.accept(vec![port.gone()]).await?;
        agent.settled().await?;
    }
    Ok(OneByOne { ready: Sample::new(ready), answered: Sample::new(answered), runs: args.runs })
}

/// Closes and opens the group's only way in; each probe is a flow of its own, since established ones stay.
async fn rules(agent: &Agent, group: SecurityGroupId, sink: &Wire, talker: &Wire, runs: u16) -> anyhow::Result<Sample> {
    let mut took = Vec::new();
    let mut from_port = 10_000;
    // It ends open.
    for n in 0..runs.next_multiple_of(2) {
        let opens = n % 2 == 1;
        let message = message::group(group, i64::from(n) + 2, Some(if opens { OPEN } else { OPEN + 1 }));
        let began = Instant::now();
        agent.accept(vec![message]).await?;
        loop {
            from_port = if from_port == u16::MAX { 10_000 } else { from_port + 1 };
            let number = u64::from(n) << 32 | u64::from(from_port);
            talker.send(Datagram { to: sink.addr, from_port, to_port: OPEN, number })?;
            let received = tokio::task::block_in_place(|| sink.receive(OPEN, ABSENCE))?;
            if received.is_some() == opens {
                break;
            }
            ensure!(began.elapsed() < ARRIVAL, "a rule's change is never felt");
        }
        took.push(ms(began.elapsed()));
        agent.settled().await?;
    }
    Ok(Sample::new(took))
}

/// One port's objects by `ip -batch` and `nft -f`, without an agent: what the same takes with the usual tools.
async fn by_hand(place: &Place, net: NetworkId, runs: u16) -> anyhow::Result<Sample> {
    let inside = place.enter(&names::namespace(HOST, net))?;
    let mut took = Vec::new();
    for n in 0..runs {
        let (link, mac) = (format!("thand{n}"), text_of([2, 0, 0, 9, (n >> 8) as u8, n as u8]));
        let addr = Ipv4Addr::new(10, 0, 250, n as u8);
        let gateway = text_of(GATEWAY_MAC);
        let command = format!(
            "ip -batch - <<'END' && nft -f - <<'END2' && ip -batch - <<'END3'\n\
             tuntap add dev {link} mode tap vnet_hdr\n\
             link set {link} address {gateway} mtu {MTU} up\n\
             END\n\
             add element inet iaas macs {{ \"{link}\" . {mac} }}\n\
             add element arp iaas macs {{ \"{link}\" . {mac} }}\n\
             add element inet iaas guard4 {{ \"{link}\" . {mac} . {addr} }}\n\
             add element arp iaas guard4 {{ \"{link}\" . {mac} . {addr} }}\n\
             END2\n\
             neigh replace {addr} lladdr {mac} dev {link} nud permanent\n\
             route replace {addr}/32 dev {link}\n\
             END3\n"
        );
        let began = Instant::now();
        run_in(&inside, &command).await?;
        took.push(ms(began.elapsed()));
        run_in(&inside, &format!("ip link del {link}")).await?;
    }
    Ok(Sample::new(took))
}

/// All ports over a hundred networks: until all are handed over, and until all is gone.
async fn networks(agent: &Agent, count: u16) -> anyhow::Result<(f64, f64)> {
    const NETWORKS: u16 = 100;
    let group = SecurityGroupId::new();
    let mut messages = vec![message::group(group, 1, Some(OPEN))];
    let (mut ports, mut nets) = (Vec::new(), Vec::new());
    for vni in 0..NETWORKS {
        let net = NetworkId::new();
        messages.push(message::network(net, 1000 + u32::from(vni)));
        ports.extend((0..count / NETWORKS).map(|n| Port::new(n, net, group, None)));
        nets.push(net);
    }
    messages.extend(ports.iter().map(|port| port.message.clone()));
    let began = Instant::now();
    agent.accept(messages).await?;
    agent.acquire_all(&ports).await?;
    let made = ms(began.elapsed());
    let mut messages: Vec<_> = ports.iter().map(Port::gone).collect();
    messages.extend(nets.iter().map(|net| message::gone(net.to_string(), ObjectKind::Network)));
    let began = Instant::now();
    agent.accept(messages).await?;
    agent.settled().await?;
    Ok((made, ms(began.elapsed())))
}
