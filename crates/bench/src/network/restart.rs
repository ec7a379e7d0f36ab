//! A flow between two ports while their agent, a process of its own, is killed and started again.

use super::{
    ARRIVAL,
    message::{OPEN, Port},
    place::{Place, TIMEOUT},
    wire::{Datagram, Wire},
};
use anyhow::{Context, ensure};
use network_agent::{Deps, config::Config};
use proto::port_socket::{PortClient, PortReply, PortRequest};
use serde_json::Value;
use service_kit::transport::GrpcTarget;
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Between two datagrams of the flow.
const GAP: Duration = Duration::from_millis(1);
/// A datagram that takes longer is lost.
const LOST: Duration = Duration::from_millis(20);
/// How long it flows before the agent is killed, and after it is back.
const AROUND: Duration = Duration::from_millis(500);

pub struct Flow {
    pub sent: u64,
    pub lost: u64,
}

/// Serves as the agent until it is killed; its manager is away.
pub async fn be_agent(config: &Path) -> anyhow::Result<Value> {
    let config: Config = serde_json::from_slice(&std::fs::read(config)?)?;
    let manager = GrpcTarget::Tcp { url: "http://127.0.0.1:9".into(), tls: None };
    network_agent::serve(config, Deps { manager }, CancellationToken::new()).await?;
    Ok(Value::Null)
}

/// Ended when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `free`: a port whose tap nobody holds, that tells when the agent is there.
pub async fn under_traffic(
    place: &Place,
    name: &str,
    config: &Config,
    (sink, talker): (&Wire, &Wire),
    free: &Port,
) -> anyhow::Result<Flow> {
    let file = place.dir.path().join("agent.json");
    std::fs::write(&file, serde_json::to_vec(config)?)?;
    let start = async || -> anyhow::Result<Process> {
        let (worker, file) = (place.enter(name)?, file.clone());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["network", "--agent"]).arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process(worker.run(move |_| command.spawn()).await??);
        ready(&config.port_socket, free).await?;
        Ok(process)
    };
    let first = start().await?;
    let ended = AtomicBool::new(false);
    let restart = async {
        tokio::time::sleep(AROUND).await;
        drop(first);
        let second = start().await;
        tokio::time::sleep(AROUND).await;
        ended.store(true, Ordering::Release);
        second
    };
    let (flow, second) = tokio::join!(flow(sink, talker, &ended), restart);
    second?;
    flow
}

/// The agent has programmed the port and hands it over.
async fn ready(socket: &Path, port: &Port) -> anyhow::Result<()> {
    let began = Instant::now();
    let request =
        PortRequest::Acquire { port_id: port.id, instance_id: port.instance_id, epoch: 1, timeout_ms: 20_000 };
    loop {
        let (socket, request) = (socket.to_owned(), request.clone());
        let call = move || PortClient::connect(&socket)?.call(&request, TIMEOUT);
        match tokio::task::spawn_blocking(call).await? {
            Ok((PortReply::Acquired { .. }, _)) => return Ok(()),
            _ if began.elapsed() < TIMEOUT => tokio::time::sleep(Duration::from_millis(1)).await,
            other => {
                other.context("the agent's socket")?;
                anyhow::bail!("the agent doesn't hand a port over");
            }
        }
    }
}

async fn flow(sink: &Wire, talker: &Wire, ended: &AtomicBool) -> anyhow::Result<Flow> {
    let datagram = |number| Datagram { to: sink.addr, from_port: 5000, to_port: OPEN, number };
    // The first opens the flow.
    talker.send(datagram(0))?;
    ensure!(sink.receive(OPEN, ARRIVAL)?.is_some(), "the flow begins");
    let (mut sent, mut received) = (0, 0);
    while !ended.load(Ordering::Acquire) {
        sent += 1;
        talker.send(datagram(sent))?;
        let arrived = tokio::task::block_in_place(|| sink.receive(OPEN, LOST))?;
        received += u64::from(arrived == Some(sent));
        tokio::time::sleep(GAP).await;
    }
    Ok(Flow { sent, lost: sent - received })
}
