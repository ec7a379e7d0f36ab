//! `iaas-bench dataplane`: throughput and delay between two endpoints on two hosts, through both hosts' networks and VXLAN, against
//! the same endpoints joined by a plain veth. Both are measured in turns, so that both meet the same machine; medians count.

use crate::{
    network::{
        message::{self, GATEWAY_MAC, MTU, Port, text_of},
        place::{Agent, Place, run_in},
    },
    stats::{Sample, round},
};
use anyhow::Context;
use domain::{NetworkId, SecurityGroupId};
use network_agent::{
    link::netns::Worker,
    model::{names, state::Wiring},
};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Turns; each measures both ways.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of one measurement of throughput.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

const PLAIN: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

pub async fn run(args: Args) -> anyhow::Result<Value> {
    let mut place = Place::new(&args.dir)?;
    let (one, two) = (place.namespace("g1").await?, place.namespace("g2").await?);
    let agents = hosts(&mut place).await?;
    let far = wire_ports(&place, &agents, [&one, &two]).await?;
    run_in(&one, &format!("ip link add p0 type veth peer name p0 netns {}", fd_path(&two))).await?;
    for (guest, addr) in [(&one, PLAIN[0]), (&two, PLAIN[1])] {
        run_in(guest, &format!("ip link set p0 up && ip addr add {addr}/24 dev p0")).await?;
    }
    let (mut routed, mut plain, mut routed_rtt, mut plain_rtt) = (vec![], vec![], vec![], vec![]);
    for turn in 0..args.rounds {
        eprintln!("turn {} of {}", turn + 1, args.rounds);
        routed.push(gbps(&one, &two, &far, args.seconds).await?);
        plain.push(gbps(&one, &two, PLAIN[1], args.seconds).await?);
        routed_rtt.push(rtt_us(&one, &far).await?);
        plain_rtt.push(rtt_us(&one, PLAIN[1]).await?);
    }
    for agent in agents {
        agent.stop().await?;
    }
    let median = |values: Vec<f64>| Sample::new(values).percentile(50.0);
    let (routed, plain) = (median(routed), median(plain));
    Ok(json!({
        "bench": "dataplane",
        "mtu": MTU,
        "routed_gbps": round(routed),
        "plain_gbps": round(plain),
        "ratio": round(routed / plain),
        "added_rtt_us": round(median(routed_rtt) - median(plain_rtt)),
    }))
}

fn fd_path(worker: &Worker) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), worker.namespace_fd())
}

fn underlay(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 0, n)
}

/// Two hosts on a bridge, each with its agent.
async fn hosts(place: &mut Place) -> anyhow::Result<[Agent; 2]> {
    let fabric = place.namespace("fabric").await?;
    run_in(&fabric, "ip link add br0 type bridge && ip link set br0 up").await?;
    let mut agents = Vec::new();
    for n in [1, 2] {
        let name = format!("h{n}");
        let host = place.namespace(&name).await?;
        let link = format!(
            "ip link add u{n} type veth peer name eth0 netns {} && ip link set u{n} master br0 up",
            fd_path(&host)
        );
        run_in(&fabric, &link).await?;
        run_in(&host, &format!("ip link set eth0 up && ip addr add {}/24 dev eth0", underlay(n))).await?;
        agents.push(Agent::start(place, &name, place.config(&name, underlay(n), Wiring::Veth)).await?);
    }
    <[Agent; 2]>::try_from(agents).map_err(|_| anyhow::anyhow!("two hosts"))
}

/// One network over both hosts, one port on each, wired to the guests; the second's address.
async fn wire_ports(place: &Place, agents: &[Agent; 2], guests: [&Arc<Worker>; 2]) -> anyhow::Result<String> {
    let (net, group) = (NetworkId::new(), SecurityGroupId::new());
    let mut addr = String::new();
    // The same port's message differs by host: bound there or elsewhere.
    let bound = [Port::new(0, net, group, None), Port::new(1, net, group, None)];
    for (at, agent) in agents.iter().enumerate() {
        let elsewhere = Port::new(1 - at as u16, net, group, Some(underlay(2 - at as u8)));
        let messages = vec![
            message::network(net, 77),
            message::group(group, 1, None),
            bound[at].message.clone(),
            elsewhere.message.clone(),
        ];
        agent.accept(messages).await?;
        agent.acquire(&bound[at]).await?;
        let port = &bound[at];
        let (end, guest) = (names::endpoint_link(port.id), guests[at]);
        let tenant = place.enter(&names::namespace(&format!("h{}", at + 1), net))?;
        run_in(&tenant, &format!("ip link set {end} netns {}", fd_path(guest))).await?;
        run_in(
            guest,
            &format!(
                "ip link set {end} name eth0 address {mac} mtu {MTU} up && ip addr add {addr}/32 dev eth0 && \
                 ip route add default via 10.0.0.1 dev eth0 onlink && \
                 ip neigh replace 10.0.0.1 lladdr {gateway} dev eth0 nud permanent",
                mac = text_of(port.mac),
                addr = port.addr,
                gateway = text_of(GATEWAY_MAC),
            ),
        )
        .await?;
        addr = port.addr.to_string();
    }
    Ok(addr)
}

/// What iperf3 receives over one TCP stream.
async fn gbps(from: &Worker, to: &Worker, addr: &str, seconds: u64) -> anyhow::Result<f64> {
    let mut server = to
        .run(|_| {
            std::process::Command::new("iperf3")
                .args(["-s", "-1", "--forceflush"])
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::piped())
                .spawn()
        })
        .await?
        .context("iperf3 (Debian's package iperf3) is needed")?;
    let said = tokio::task::block_in_place(|| -> anyhow::Result<Value> {
        // It listens when it says so.
        let out = server.stdout.take().context("iperf3's output")?;
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out));
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("listening"))).context("iperf3 listens")??;
        let client = format!("iperf3 -c {addr} -t {seconds} -O 1 -J");
        let handle = tokio::runtime::Handle::current();
        let said = handle.block_on(run_in(from, &client));
        if said.is_err() {
            let _ = server.kill();
        }
        lines.for_each(drop);
        server.wait()?;
        Ok(serde_json::from_str(&said?)?)
    })?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 says no rate")?;
    Ok(bits / 1e9)
}

/// The mean of many round trips.
async fn rtt_us(from: &Worker, addr: &str) -> anyhow::Result<f64> {
    let said = run_in(from, &format!("ping -n -q -c 300 -i 0.003 {addr}")).await?;
    // rtt min/avg/max/mdev = 0.020/0.035/0.090/0.010 ms
    let numbers =
        said.lines().find_map(|line| line.strip_prefix("rtt ")?.split(" = ").nth(1)).context("ping's times")?;
    let mean = numbers.split('/').nth(1).context("the mean")?;
    Ok(mean.parse::<f64>()? * 1000.0)
}
