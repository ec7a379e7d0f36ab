//! Tells the host's network-agent which ports running instances have, whenever that agent starts.
//!
//! The problem: the network-agent's ledger may be lost, or a part of it. It then gets its networks again from its manager, but who has
//! acquired which port only this agent knows; without it, a running guest stays without a network until it is stopped and started.
//!
//! A connection to the network-agent that attends ends when that agent does. So each new connection is a new life of it, and all ports of
//! instances with a QEMU are confirmed. That costs nothing where they are known.

use crate::{
    ledger::{Held, Nic},
    reconcile::context::Context,
};
use domain::InstanceId;
use proto::port_socket::{PortReply, PortRequest, RefusedReason, body_len, decode, encode};
use std::{io, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Between two tries to reach a network-agent that is away.
const RETRY: Duration = Duration::from_millis(500);
/// How long the network-agent may wait for its manager; then it is asked again.
const CONFIRM_MS: u64 = 30_000;

/// Runs until the agent stops.
pub async fn follow_network_agent(context: Arc<Context>) {
    loop {
        let attended = attend(&context);
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            ended = attended => if let Err(error) = ended {
                tracing::debug!(%error, "the host's network-agent is away");
            },
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Until the network-agent ends.
async fn attend(context: &Context) -> io::Result<()> {
    let path = &context.config.port_socket;
    let mut stream = UnixStream::connect(path).await?;
    call(&mut stream, &PortRequest::Attend).await?;
    let ended = async {
        // It says nothing more.
        let _ = stream.read_u8().await;
    };
    let confirmed = async {
        confirm_all(context, path).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = ended => {}
        () = confirmed => {}
    }
    Ok(())
}

async fn confirm_all(context: &Context, path: &Path) {
    let mut waiting: Vec<(InstanceId, Nic)> = Vec::new();
    for held in context.ledger.all() {
        if let Held::Live(entry) = &*held
            && entry.done.process.is_some()
        {
            waiting.extend(entry.done.nics.iter().map(|nic| (entry.desired.instance_id, *nic)));
        }
    }
    let each = waiting.into_iter().map(|(instance_id, nic)| confirm(context, path, instance_id, nic));
    futures::future::join_all(each).await;
}

/// Until the network-agent knows it, or knows better.
async fn confirm(context: &Context, path: &Path, instance_id: InstanceId, nic: Nic) {
    let port_id = nic.port_id;
    while has(context, instance_id, nic) {
        let request = PortRequest::Confirm { port_id, instance_id, epoch: nic.epoch, timeout_ms: CONFIRM_MS };
        match ask(path, &request).await {
            Ok(PortReply::Confirmed) => {
                // It may have been released at the same moment, by a request that came first.
                if !has(context, instance_id, nic) {
                    let release = PortRequest::Release { port_id, instance_id, epoch: nic.epoch };
                    let _ = ask(path, &release).await;
                }
                return;
            }
            Ok(PortReply::Refused { reason: RefusedReason::NotYet, .. }) => {}
            Ok(PortReply::Refused { reason, detail }) => {
                tracing::warn!(%instance_id, %port_id, ?reason, detail, "the network-agent doesn't take a running instance's port");
                return;
            }
            Ok(PortReply::Acquired { .. } | PortReply::Released | PortReply::Attending) => return,
            Err(error) => {
                tracing::debug!(%port_id, %error, "a port can't be confirmed");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Whether a QEMU of the instance may have the NIC.
fn has(context: &Context, instance_id: InstanceId, nic: Nic) -> bool {
    context.ledger.held(instance_id).is_some_and(|held| match &*held {
        Held::Live(entry) => entry.done.process.is_some() && entry.done.nics.contains(&nic),
        Held::Tombstone(_) => false,
    })
}

async fn ask(path: &Path, request: &PortRequest) -> io::Result<PortReply> {
    call(&mut UnixStream::connect(path).await?, request).await
}

async fn call(stream: &mut UnixStream, request: &PortRequest) -> io::Result<PortReply> {
    stream.write_all(&encode(request)).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; body_len(head)?];
    stream.read_exact(&mut body).await?;
    decode(&body)
}
