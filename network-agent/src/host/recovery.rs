//! A ledger that was lost, or parts of it, must not cut guests that run.
//!
//! The problem: what the ledger doesn't know, a round removes: the interface of a running guest, its routes, its group's rules. But the kernel
//! still has all of it, and two others know it too: the manager what this host must be, the compute-agent which ports its instances have.
//!
//! So networks that carry packets here are left exactly as they are until the manager has said what they must be and the compute-agent
//! has confirmed the ports that carry them. Whoever doesn't come within [`CONFIRM_TIMEOUT`] after the manager is gone: a guest that ended meanwhile.
//! Without a manager nothing changes, which is what a host does without its manager anyway; networks that aren't here yet aren't held.

use super::Host;
use crate::{
    ledger::Loss,
    link::{
        netns::{self, Worker},
        observe,
    },
    model::{names, state::Hop},
};
use domain::NetworkId;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long the compute-agent has, once the manager has spoken.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Networks that are left as they are, with the ports' interfaces that carry packets.
#[derive(Debug, Default)]
pub struct Recovery {
    held: Mutex<BTreeMap<NetworkId, BTreeSet<String>>>,
}

impl Recovery {
    /// Looks at what the kernel has, if the ledger lacks anything. Blocking.
    pub(super) fn find(loss: Loss, dir: &std::path::Path, prefix: &str) -> Self {
        if loss == Loss::Nothing {
            return Self::default();
        }
        let names = netns::list(dir).unwrap_or_default();
        let here = names.iter().filter_map(|name| Some((names::network_of(prefix, name)?, dir.join(name))));
        let mut held = BTreeMap::new();
        for (id, path) in here.filter(|(_, path)| netns::mounted(path)) {
            match Worker::enter(&path).map(|worker| worker.run_blocking(|inside| observe::all(&mut inside.netlink))) {
                Ok(Ok(Ok(found))) => {
                    let links = found.state.routes.values().filter_map(Hop::link);
                    let ports = links.filter(|link| link.starts_with(names::PORT_PREFIX)).map(ToOwned::to_owned);
                    held.insert(id, ports.collect::<BTreeSet<String>>());
                }
                Ok(Ok(Err(error))) => tracing::warn!(network_id = %id, %error, "a network can't be looked at"),
                Ok(Err(error)) | Err(error) => tracing::warn!(network_id = %id, %error, "a network can't be looked at"),
            }
        }
        held.retain(|_, ports| !ports.is_empty());
        if !held.is_empty() {
            let networks: Vec<_> = held.keys().collect();
            tracing::warn!(
                ?networks,
                "the ledger doesn't know all that runs here: these are left as they are until it does"
            );
        }
        Self { held: Mutex::new(held) }
    }

    pub(super) fn held(&self) -> BTreeSet<NetworkId> {
        self.held.lock().keys().copied().collect()
    }
}

/// Lets networks go as they are known again.
pub(super) async fn run(host: Arc<Host>, shutdown: CancellationToken) {
    let mut changes = host.signal.changes();
    let mut deadline = None;
    while !host.recovery.held.lock().is_empty() {
        if deadline.is_none() && host.ledger.host().revision > 0 {
            deadline = Some(tokio::time::Instant::now() + CONFIRM_TIMEOUT);
        }
        let over = deadline.is_some_and(|deadline| deadline <= tokio::time::Instant::now());
        release_known(&host, over);
        let timeout = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = timeout => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

fn release_known(host: &Host, all: bool) {
    let desired_state = host.desired_state();
    let known = |id: &NetworkId, ports: &BTreeSet<String>| {
        let active: BTreeSet<String> = desired_state.active(*id).map(|port| names::port_link(port.id)).collect();
        desired_state.networks.contains_key(id) && ports.is_subset(&active)
    };
    let released: Vec<NetworkId> = {
        let mut held = host.recovery.held.lock();
        let (go, stay): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut *held).into_iter().partition(|(id, ports)| all || known(id, ports));
        *held = stay;
        for (id, ports) in go.iter().filter(|(id, ports)| !known(id, ports)) {
            tracing::warn!(network_id = %id, ?ports, "nobody knows these ports any more: they are removed");
        }
        go.into_keys().collect()
    };
    if released.is_empty() {
        return;
    }
    tracing::info!(networks = ?released, "the ledger knows these networks again");
    // Those that aren't desired here stay as they are: absence never deletes.
    let desired = released.into_iter().filter(|id| desired_state.networks.contains_key(id));
    host.signal.mark(desired.collect::<Vec<_>>());
}
